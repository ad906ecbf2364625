"""Where the images of stacks are built, how often, and what is said when a step fails."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support import imagefiles

from hawse.fleet.client import AgentClient, StepFailed
from hawse.images.store import ImageStore
from hawse.runner.builder import Builder
from hawse.stack import Build
from hawse_agent.errors import HawseError, HostRefused, InputError, Unreachable

LAYER = imagefiles.files({"a": "1"})
CONFIG = imagefiles.config([imagefiles.sha256(LAYER)])


class FakeAgent:
    """Builds one image, and has it fetched."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        self.name, self.fails = name, fails
        self.contexts: list[list[str]] = []
        self.queries: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []

    def second(self) -> FakeAgent:
        return self

    def __enter__(self) -> FakeAgent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def messages(self, method: str, path: str, *, query: Any, headers: Any, body: Any) -> Iterator[Any]:
        assert (method, path) == ("POST", "/hawse/v1/build")
        line, _, data = b"".join(body).partition(b"\n")
        assert line == b'{"secrets": {}}'
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            self.contexts.append(tar.getnames())
        self.queries.append(query)
        self.headers.append(headers)
        yield {"step": {"number": 1, "of": 1, "text": "RUN x", "state": "started"}}
        yield {"stream": "told\n"}
        if self.fails:
            raise StepFailed("it returned 3 (Dockerfile:1)", code=3)

    def image_layers(self, name: str) -> tuple[str, list[dict[str, Any]]]:
        layer = {"mediaType": imagefiles.LAYER, "digest": imagefiles.sha256(LAYER), "size": len(LAYER)}
        return imagefiles.sha256(CONFIG), [{**layer, "diff_id": imagefiles.sha256(LAYER)}]

    @contextmanager
    def download_blob(self, digest: str, *, offset: int = 0) -> Iterator[Iterator[bytes]]:
        yield iter([{imagefiles.sha256(data): data for data in (LAYER, CONFIG)}[digest]])


@pytest.fixture
def build(tmp_path: Path) -> Build:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text("FROM scratch\n")
    return Build(reference="shop-web", context=str(tmp_path / "app"), tags=("shop:extra",))


def builder(
    directory: Path, *hosts: str, local: FakeAgent | None = None, agents: Mapping[str, FakeAgent | None]
) -> Builder:
    def remote(host: str, say: Callable[[str], None]) -> AgentClient:
        if (agent := agents[host]) is None:
            raise Unreachable(f"{host}: no route", stage="tcp")
        return cast(AgentClient, agent)

    made = Builder(
        images=ImageStore(directory / "images"),
        local=lambda: cast(AgentClient, local) if local is not None else None,
        remote=remote,
        headers=lambda: {"X-Registry-Config": "e30="},
    )
    made.hosts = hosts
    return made


def quiet(text: str) -> None:
    """Nobody listens."""


def test_an_image_is_built_once_in_a_run(tmp_path: Path, build: Build) -> None:
    agent, said = FakeAgent("web1"), list[str]()
    made = builder(tmp_path, "web1", "web2", agents={"web1": agent, "web2": None})
    source, now = made.source(build, said.append)
    assert (
        now
        and source.id == imagefiles.sha256(CONFIG)
        and source.reference == "docker.io/library/shop-web:latest"
    )
    assert made.source(build, quiet) == (source, False)
    assert agent.contexts == [["Dockerfile"]] and agent.queries[0]["t"] == ["shop-web", "shop:extra"]
    assert agent.headers[0]["X-Registry-Config"] == "e30=" and "building shop-web: 1/1 RUN x" in said


def test_this_machines_agent_comes_first(tmp_path: Path, build: Build) -> None:
    own, other = FakeAgent("localhost"), FakeAgent("web1")
    builder(tmp_path, "web1", local=own, agents={"web1": other}).source(build, quiet)
    assert len(own.contexts) == 1 and other.contexts == []


def test_a_host_that_is_away_is_passed_over(tmp_path: Path, build: Build) -> None:
    agent = FakeAgent("web2")
    builder(tmp_path, "web1", "web2", agents={"web1": None, "web2": agent}).source(build, quiet)
    assert len(agent.contexts) == 1
    with pytest.raises(Unreachable, match="web1"):
        builder(tmp_path, "web1", agents={"web1": None}).source(build, quiet)


def test_all_who_wait_hear_of_a_failure(tmp_path: Path, build: Build) -> None:
    agent = FakeAgent("web1", fails=True)
    made = builder(tmp_path, "web1", agents={"web1": agent})
    errors: list[HawseError] = []
    for _ in range(2):
        with pytest.raises(HostRefused) as caught:
            made.source(build, quiet)
        errors.append(caught.value)
    assert errors[0] is errors[1] and len(agent.contexts) == 1
    assert errors[0].message == "build shop-web: it returned 3 (Dockerfile:1)" and errors[0].hint == "told"


def test_a_context_that_is_not_there_is_said(tmp_path: Path) -> None:
    made = builder(tmp_path, "web1", agents={"web1": FakeAgent("web1")})
    with pytest.raises(InputError, match="nowhere is no directory"):
        made.source(Build(reference="x", context=str(tmp_path / "nowhere")), quiet)
