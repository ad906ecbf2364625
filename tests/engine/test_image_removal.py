"""rmi, prune, history and df, by Docker's own command: what goes, what stays, what the disk says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import APIError
from tests.support import agent as agents
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.imagefiles import config, docker_archive, files, sha256

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]


@pytest.fixture(autouse=True)
def _without_images(agent: AgentUnderTest) -> Iterator[None]:
    yield
    for container in agent.client.containers.list(all=True):
        container.remove(force=True, v=True)
    while left := [image for image in agent.client.images.list(all=True) if BUSYBOX not in image.tags]:
        for image in left:
            try:
                agent.client.images.remove(image.id, force=True)
            except APIError as error:
                assert "dependent child" in str(error) or error.status_code == 404


def load(agent: AgentUnderTest, name: str, *contents: str) -> str:
    """An image of a layer each; its id."""
    layers = [files({f"etc/{text}": text * 5000}) for text in contents]
    configuration = config([sha256(layer) for layer in layers])
    agent.client.images.load(docker_archive([(configuration, layers, [name] if name else [])]))
    return sha256(configuration)


def child(agent: AgentUnderTest, of: str, name: str = "", change: str = "ENV A=1") -> str:
    container = agent.client.containers.create(of, ["x"])
    try:
        return str(container.commit(name or None, changes=change).id)
    finally:
        container.remove()


def refused(agent: AgentUnderTest, *words: str) -> str:
    return agent.docker("rmi", *words, code=1).stderr


def test_what_containers_use(agent: AgentUnderTest) -> None:
    """Docker's words, and what -f may do."""
    image = load(agent, "used:1", "a")
    stopped = agent.client.containers.create("used:1", ["x"])
    short, user = image[7:19], stopped.id[:12]
    assert (
        f'conflict: unable to remove repository reference "used:1" (must force) - container {user} '
        f"is using its referenced image {short}"
    ) in refused(agent, "used:1")
    assert (
        f"conflict: unable to delete {short} (must be forced) - "
        f"image is being used by stopped container {user}"
    ) in refused(agent, short)
    agent.docker("tag", "used:1", "other/used:2")
    assert "image is referenced in multiple repositories" in refused(agent, short)
    assert agent.docker("rmi", "other/used:2").stdout == "Untagged: other/used:2\n"
    running = agent.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True)
    base = agent.client.images.get(BUSYBOX).id
    wanted = f"(cannot be forced) - image is being used by running container {running.id[:12]}"
    assert wanted in refused(agent, base[7:19]) and wanted in refused(agent, "-f", base[7:19])
    assert agent.docker("rmi", "-f", "used:1").stdout == "Untagged: used:1\n"
    assert agent.client.images.get(image).tags == []
    stopped.remove()
    assert f"Deleted: {image}" in agent.docker("rmi", short).stdout
    assert "No such image: nothing:latest" in refused(agent, "nothing")


def test_names_layers_and_images_go_by_count(agent: AgentUnderTest) -> None:
    one, other = load(agent, "one", "shared", "x"), load(agent, "other", "shared", "y")
    agent.docker("tag", "one", "alias")
    layers = agent.root / "lib/layers"
    count = len(os.listdir(layers))
    assert agent.docker("rmi", "one").stdout == "Untagged: one:latest\n"
    assert len(os.listdir(layers)) == count
    assert agent.docker("rmi", "alias").stdout == f"Untagged: alias:latest\nDeleted: {one}\n"
    assert len(os.listdir(layers)) == count - 1
    assert agent.docker("rmi", other).stdout == f"Untagged: other:latest\nDeleted: {other}\n"
    assert len(os.listdir(layers)) == count - 3


def test_parents_and_children(agent: AgentUnderTest) -> None:
    """As with Docker: a parent outlives its children, and goes with the last if it has no name."""
    base = load(agent, "base", "a")
    middle = child(agent, "base")
    last = child(agent, middle, "last", "ENV B=1")
    rows = agent.docker("history", "-q", "--no-trunc", "last").stdout.split()
    assert rows == [last, middle, base]
    assert "image has dependent child images" in refused(agent, "-f", middle[7:19])
    listed = agent.docker("images", "-q", "--no-trunc").stdout.split()
    assert middle not in listed and middle in agent.docker("images", "-aq", "--no-trunc").stdout
    assert agent.docker("rmi", "base").stdout == "Untagged: base:latest\n"
    assert agent.client.images.prune()["ImagesDeleted"] is None, "they have children"
    done = agent.docker("rmi", "--no-prune", child(agent, "last", "leaf", "ENV C=1")[7:19]).stdout
    assert done.startswith("Untagged: leaf:latest\nDeleted: ") and len(done.splitlines()) == 2
    assert agent.docker("rmi", "last").stdout.splitlines() == [
        "Untagged: last:latest",
        *(f"Deleted: {image}" for image in (last, middle, base)),
    ]


def test_prune_by_filters(agent: AgentUnderTest) -> None:
    nameless = load(agent, "", "a")
    named, used = load(agent, "named", "b"), load(agent, "used", "c")
    labelled = child(agent, "named", "labelled", "LABEL keep=1")
    container = agent.client.containers.create("used", ["x"])

    def prune(*filters: str, every: bool = False) -> set[str]:
        words = [*(["-a"] if every else []), *(word for one in filters for word in ("--filter", one))]
        out = agent.docker("image", "prune", "-f", *words).stdout
        return {line.removeprefix("deleted: ") for line in out.splitlines() if line.startswith("deleted: ")}

    assert prune("until=2020-01-01T00:00:00") == set()
    assert prune("label=keep") == set()
    assert prune() == {nameless}
    container_of_base = agent.client.containers.create(BUSYBOX, ["x"])
    assert prune("label!=keep", "until=1s", every=True) == set(), "what has a child stays"
    assert prune("label=keep", every=True) == {labelled}
    assert prune(every=True) == {named}
    container.remove()
    assert prune("until=24h", every=True) == {used}, "by when it was made"
    container_of_base.remove()
    assert "invalid filter" in agent.docker("image", "prune", "-f", "--filter", "x=y", code=1).stderr


def du(*paths: Path) -> int:
    out = subprocess.run(["du", "-sB1", "-c", *paths], check=True, capture_output=True, text=True).stdout
    return int(out.splitlines()[-1].split()[0])


def test_df_says_what_du_says(agent: AgentUnderTest, tmp_path: Path) -> None:
    """Shared layers once, and the cache of builds beside the images."""
    load(agent, "one", "shared", "x")
    load(agent, "other", "shared", "y")
    child(agent, "one", "made")
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo built > /built\n")
    built = subprocess.run(
        [
            "docker",
            "-H",
            f"unix://{agent.socket}",
            "build",
            "-t",
            "built",
            "--network",
            "none",
            str(tmp_path),
        ],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr

    def check() -> int:
        use = agent.client.df()
        cache = sum(row["Size"] for row in use["BuildCache"] if not row["Shared"])
        lib = agent.root / "lib"
        kept = [*(lib / "blobs/sha256").iterdir(), *(lib / "layers").iterdir()]
        assert use["LayersSize"] + cache == du(*kept)
        return cache

    assert check() == 0, "all that the cache has is the image's, too"
    agent.docker("rmi", "built")
    assert check() > 0
    agent.docker("rmi", "one")
    check()
    agent.docker("builder", "prune", "-af")
    assert check() == 0
    row = next(
        json.loads(line)
        for line in agent.docker("system", "df", "--format", "json").stdout.splitlines()
        if '"Images"' in line
    )
    assert row["TotalCount"] == str(len(agent.client.images.list(all=True)))


def test_what_nobody_uses_goes_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """Only where agent.toml says so; the next daemon looks at once."""
    session = isolation.current()
    assert session is not None
    root = agents.new_root(session.directory)
    (root / "etc").mkdir(parents=True)
    (root / "etc/agent.toml").write_text("[images]\nunused_hours = 24\n")
    with AgentUnderTest(root) as other:
        ids = {name: load(other, name, name) for name in ("old", "fresh", "used")}
        container = other.client.containers.create("used", ["x"])
        for name in ("old", "used"):
            os.utime(root / "lib/blobs/sha256" / ids[name][7:], (1, 1))
        other.restart()
        deadline = time.monotonic() + 30
        while len(other.client.api.images()) > 2:  # docker-py's own list looks at each, which may have gone
            assert time.monotonic() < deadline
        assert {tag for image in other.client.images.list() for tag in image.tags} == {
            "fresh:latest",
            "used:latest",
        }
        container.remove()
        other.restart()
        assert len(other.client.images.list()) == 2, "it was used until just now"
    shutil.rmtree(root)
    said = capfd.readouterr().err
    assert "hawse-agent: image old:latest (" in said and "nobody has used it for" in said
