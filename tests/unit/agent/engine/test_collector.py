"""Which images go by themselves, and why. The clock and the disk are made up."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.imagefiles import config, docker_archive, files, sha256

from hawse_agent.distribution.registry import Client
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.engine.collector import Collector
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.images import Images
from hawse_agent.engine.settings import ImagesSettings
from hawse_agent.engine.state import State
from hawse_agent.images.store import ImageStore
from hawse_agent.paths import Paths, paths_for
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.records import ContainerRecord

HOUR = 3600.0
NOW = 2_000_000_000.0


class World:
    def __init__(self, paths: Paths, state: State) -> None:
        self.paths = paths
        self.containers: list[ContainerRecord] = []
        self.events = EventBus()
        self.images = Images(
            store=ImageStore(paths, state),
            registries=Client(RegistrySettings()),
            events=self.events,
            containers=lambda: self.containers,
        )

    def load(self, name: str, *, unused: float) -> str:
        """An image that was used so many hours ago."""
        layer = files({f"f-{name}": name})
        configuration = config([sha256(layer)], Env=[f"NAME={name}"])
        self.images.load(io.BytesIO(docker_archive([(configuration, [layer], [name] if name else [])])))
        used = NOW - unused * HOUR
        os.utime(self.images.store.blobs.path(sha256(configuration)), (used, used))
        return sha256(configuration)

    def use(self, image: str) -> None:
        spec = ContainerSpec(name="c", image=image)
        self.containers.append(ContainerRecord(id="c" * 64, spec=spec, image_id=image, created=0))

    def collect(self, free: list[float] | None = None, **settings: int) -> list[str]:
        figures = iter(free or [])
        return Collector(
            images=self.images,
            settings=ImagesSettings(**settings),
            paths=self.paths,
            free=lambda: next(figures),
            clock=lambda: NOW,
        ).collect()

    def names(self) -> list[str]:
        return sorted(name for image in self.images.list() for name in image.repo_tags or ("<none>",))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    paths = paths_for(tmp_path)
    state = State(paths)
    yield World(paths, state)
    state.close()


def test_nothing_is_asked_for(world: World) -> None:
    world.load("old", unused=10_000)
    assert not ImagesSettings().collects
    assert world.collect() == [] and world.names() == ["old:latest"]


def test_by_age(world: World) -> None:
    world.load("old", unused=73)
    used = world.load("used", unused=1000)
    world.load("fresh", unused=71)
    world.use(used)
    subscription = world.events.subscribe()
    [line] = world.collect(unused_hours=72)
    assert line.startswith("image old:latest (") and line.endswith("0 MB: nobody has used it for 3 days")
    assert world.names() == ["fresh:latest", "used:latest"]
    told = [(event.action, event.attributes["name"]) for event in iter(lambda: subscription.get(0.0), None)]
    assert [action for action, _ in told] == ["delete"]
    assert world.images.last_used(world.images.get("used")) != NOW - 1000 * HOUR, "it is used now"


def test_by_room(world: World) -> None:
    """Those without a name, then what was used longest ago, until there is room."""
    world.load("older", unused=50)
    world.load("newer", unused=5)
    world.load("", unused=1)
    used = world.load("used", unused=1000)
    world.use(used)
    lines = world.collect([0.05, 0.08, 0.2], min_free_percent=10)
    assert [line.partition(" (")[0] for line in lines] == ["image <none>", "image older:latest"]
    assert lines[0].endswith("5% of the disk were free, 10% shall be")
    assert world.names() == ["newer:latest", "used:latest"]
    assert world.collect([0.0] * 5, min_free_percent=10) != [] and world.names() == ["used:latest"]


def test_there_is_room(world: World) -> None:
    world.load("old", unused=10_000)
    assert world.collect([0.5], min_free_percent=10) == []
