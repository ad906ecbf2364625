"""A daemon that is killed at any step of load, import, commit, rmi and prune: the next one has whole images
only, and nothing else is left; a second attempt works. Then several at a time."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from docker.errors import APIError, ImageNotFound, NotFound
from tests.support import isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.failpoints import Failpoints
from tests.support.imagefiles import config, docker_archive, files, sha256

from hawse_agent import failpoints as registry

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")
OF_LOADS = tuple(f"image: {step}" for step in registry.STEPS["image"])
OF_COMMITS = tuple(f"commit: {step}" for step in registry.STEPS["commit"])
OF_REMOVALS = tuple(f"rmi: {step}" for step in registry.STEPS["rmi"])
LAYERS = [files({f"etc/{number}": f"{number}" * 1000}) for number in range(3)]


def archive(*numbers: int, name: str = "victim") -> bytes:
    layers = [LAYERS[number] for number in numbers]
    return docker_archive([(config([sha256(layer) for layer in layers]), layers, [name])])


def snapshot(agent: AgentUnderTest) -> tuple[list[str], ...]:
    lib = agent.root / "lib"
    return tuple(sorted(os.listdir(lib / name)) for name in ("blobs/sha256", "layers", "incoming"))


def attempt(agent: AgentUnderTest, work: Callable[[], object]) -> bool:
    """False when the daemon has died of it; another one runs then."""
    try:
        work()
        return True
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError):
        assert agent.ended(60)
    except APIError:
        if not agent.ended(2):
            raise
    agent.start()
    return False


def check(agent: AgentUnderTest) -> None:
    """Every layer that an image has is whole, and what is here is what images have."""
    wanted = set()
    for image in agent.client.images.list(all=True):
        for digest in image.attrs["RootFS"]["Layers"]:
            wanted.add(digest[7:])
    here = set(os.listdir(agent.root / "lib/layers")) - {"empty"}
    assert here == wanted and not os.listdir(agent.root / "lib/incoming")
    for number, layer in enumerate(LAYERS):
        if sha256(layer)[7:] in here:
            file = agent.root / "lib/layers" / sha256(layer)[7:] / f"etc/{number}"
            assert file.read_text() == f"{number}" * 1000


def forget(agent: AgentUnderTest) -> None:
    """Blobs that nobody claimed may wait for an upload to go on; a day is too long for a test."""
    for image in agent.client.images.list(all=True):
        if BUSYBOX not in image.tags:
            agent.client.images.remove(image.id, force=True)
    for path in (agent.root / "lib/blobs/sha256").iterdir():
        os.utime(path, (1, 1))
    agent.restart()


@pytest.fixture(autouse=True)
def _no_order_is_left(failpoints: Failpoints, agent: AgentUnderTest) -> Iterator[None]:
    before = snapshot(agent)
    yield
    failpoints.clear()
    if not agent.running:
        agent.start()
    forget(agent)
    assert snapshot(agent) == before


@pytest.mark.parametrize("step", OF_LOADS)
def test_a_load(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    failpoints.order(step, "die")
    assert not attempt(agent, lambda: agent.client.images.load(archive(0, 1)))
    check(agent)
    agent.client.images.load(archive(0, 1))
    check(agent)
    assert agent.client.images.get("victim").tags == ["victim:latest"]


@pytest.mark.parametrize("step", OF_LOADS)
def test_a_load_that_fails(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    before = snapshot(agent)
    failpoints.order(step, "ENOSPC")
    try:
        agent.client.images.load(archive(0, 1))
    except APIError as error:
        assert "No space left" in str(error) or "disk is full" in str(error)
        if step != "image: names":
            assert snapshot(agent) == before, "nothing is left at once"
    assert not failpoints.is_ordered(step)
    agent.client.images.load(archive(0, 1))
    check(agent)


@pytest.mark.parametrize("step", ["image: unpack", "image: record"])
def test_an_import(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    failpoints.order(step, "die")

    def work() -> None:
        agent.client.api.import_image_from_data(LAYERS[2], repository="victim")

    assert not attempt(agent, work)
    check(agent)
    work()
    check(agent)
    assert agent.client.images.get("victim").attrs["RootFS"]["Layers"] == [sha256(LAYERS[2])]


@pytest.mark.parametrize("step", OF_COMMITS)
def test_a_commit(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    """The container goes on afterwards, also where it was paused."""
    script = "touch /x; while :; do sleep 0.02; done"
    container = agent.client.containers.run(BUSYBOX, ["sh", "-c", script], detach=True, name="box")
    while container.exec_run(["test", "-e", "/x"]).exit_code:
        continue
    failpoints.order(step, "die")
    assert not attempt(agent, lambda: container.commit("victim"))
    container.reload()
    assert container.status == "running"
    check(agent)
    image = container.commit("victim")
    check(agent)
    container.remove(force=True)
    told = agent.client.containers.run(image.id, ["ls", "/x"], network_mode="none", remove=True)
    assert told == b"/x\n"


@pytest.mark.parametrize(
    ("verb", "step"),
    [
        *(("rmi", step) for step in OF_REMOVALS),
        ("prune", "rmi: record"),
        *(
            pytest.param("prune", step, marks=pytest.mark.soak)
            for step in OF_REMOVALS
            if "record" not in step
        ),
    ],
)
def test_a_removal(agent: AgentUnderTest, failpoints: Failpoints, step: str, verb: str) -> None:
    agent.client.images.load(archive(0, 1))
    agent.client.images.load(archive(0, 2, name="other"))
    container = agent.client.containers.create(BUSYBOX, ["true"])
    failpoints.order(step, "die")

    def work() -> None:
        if verb == "rmi":
            agent.client.images.remove("victim")
        else:
            agent.client.images.prune(filters={"dangling": False})

    if not attempt(agent, work):
        check(agent)
        try:
            work()
        except ImageNotFound:
            pass  # it had gone
    check(agent)
    container.remove()
    left = {tag for image in agent.client.images.list() for tag in image.tags}
    assert left == ({"other:latest", BUSYBOX} if verb == "rmi" else {BUSYBOX})


def test_two_loads_of_the_same_at_once(agent: AgentUnderTest, failpoints: Failpoints) -> None:
    """One waits for the other's layer; when that one fails, its own is unpacked."""
    results: list[object] = []

    def load(name: str, data: bytes) -> None:
        try:
            agent.client.images.load(data)
            results.append(name)
        except APIError as error:
            results.append(error)

    for _ in range(3):
        results.clear()
        threads = [
            threading.Thread(target=load, args=(f"v{number}", archive(0, 1, 2, name=f"v{number}")))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, results)) == ["v0", "v1", "v2", "v3"]
        check(agent)
        assert sorted(agent.client.images.get("v0").tags) == [f"v{number}:latest" for number in range(4)]
        agent.client.images.remove(agent.client.images.get("v0").id, force=True)
        check(agent)


def test_loads_removals_and_containers_at_once(agent: AgentUnderTest) -> None:
    """Each meets the others at any moment: all that is there is whole, and no container lost its image."""
    names = [f"n{number}" for number in range(3)]
    problems: list[str] = []
    deadline = time.monotonic() + 4

    def repeat(work: Callable[[random.Random], object], seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < deadline:
            try:
                work(dice)
            except (ImageNotFound, NotFound):
                continue
            except APIError as error:
                if error.status_code != 409:
                    problems.append(str(error))

    def load(dice: random.Random) -> None:
        numbers = dice.sample(range(3), 2)
        agent.client.images.load(archive(*numbers, name=dice.choice(names)))

    def remove(dice: random.Random) -> None:
        agent.client.images.remove(dice.choice(names), force=dice.random() < 0.5)

    def prune(dice: random.Random) -> None:
        agent.client.images.prune(filters={"dangling": dice.random() < 0.7})

    def create(dice: random.Random) -> None:
        container = agent.client.containers.create(dice.choice(names), ["x"])
        image = agent.client.api.inspect_image(container.attrs["Image"])
        for digest in image["RootFS"]["Layers"]:
            if not (agent.root / "lib/layers" / digest[7:]).exists():
                problems.append(f"{container.id[:12]} has no layer {digest}")
        container.remove()

    keep = agent.client.containers.create(BUSYBOX, ["true"])
    threads = [
        threading.Thread(target=repeat, args=(work, seed))
        for seed, work in enumerate((load, load, remove, prune, create, create))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keep.remove()
    assert problems == []
    check(agent)


def test_a_client_that_hangs_up_leaves_nothing(agent: AgentUnderTest, tmp_path: Path) -> None:
    before = snapshot(agent)
    data = archive(0, 1)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[:2000])
    done = subprocess.run(
        ["docker", "-H", f"unix://{agent.socket}", "load"], stdin=cut.open("rb"), capture_output=True
    )
    assert done.returncode == 1 and b"ends too early" in done.stderr
    assert snapshot(agent) == before
    api = agent.client.api

    def stream() -> Iterator[bytes]:
        yield data[:2000]
        raise ConnectionResetError("hung up")

    with pytest.raises(requests.exceptions.ConnectionError):
        api._post(api._url("/images/load"), data=stream())
    deadline = time.monotonic() + 20
    while snapshot(agent) != before:
        assert time.monotonic() < deadline


def test_a_power_cut_is_not_trusted(agent: AgentUnderTest) -> None:
    """Blobs that nobody names and that came before the machine was started may be torn: they are verified."""
    agent.client.images.load(archive(0))
    lib = agent.root / "lib"
    torn, whole = sha256(b"torn")[7:], sha256(b"whole")[7:]
    (lib / "blobs/sha256" / torn).write_bytes(bytes(4))
    (lib / "blobs/sha256" / whole).write_bytes(b"whole")
    agent.restart()
    assert {torn, whole} <= set(os.listdir(lib / "blobs/sha256")), "the machine runs on"
    (lib / "blobs/boot").write_text("another one")
    agent.restart()
    here = set(os.listdir(lib / "blobs/sha256"))
    assert whole in here and torn not in here
    assert agent.client.images.get("victim").tags == ["victim:latest"]
