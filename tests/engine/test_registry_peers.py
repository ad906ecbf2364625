"""dockerd and the agent at one registry: each pulls what the other has pushed (`make test-peers`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from tests.support import busybox, dockerd, isolation, registries
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.dockerd import Dockerd
from tests.support.registries import DebianRegistry

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test-peers)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(not dockerd.available(), reason="needs dockerd"),
    pytest.mark.skipif(not registries.available(), reason="needs docker-registry and skopeo"),
]


@pytest.fixture(scope="module")
def peers(daemon: AgentUnderTest) -> Iterator[tuple[Dockerd, str]]:
    """dockerd, which has a loopback of its own: one storage is served there and here at the same address."""
    session = isolation.current()
    assert session is not None
    top = session.directory / "peer"
    peer = Dockerd(top / "of/the/agent/d")
    archive = session.directory / "saved.tar"
    daemon.docker("save", "-o", str(archive), BUSYBOX)
    peer.docker("load", "-i", str(archive))
    archive.unlink()
    peer.docker("run", "--rm", BUSYBOX, "true")  # what it makes once is there before the first test
    with DebianRegistry(top / "of/the/agent/r") as registry:
        port = int(registry.address.rpartition(":")[2])
        into = ("nsenter", f"--net=/proc/{peer.pid}/ns/net")
        place = top / "of/the/agent/s"
        with DebianRegistry(place, storage=registry.storage, port=port, before=into):
            yield peer, registry.address
            peer.close()
    shutil.rmtree(top)


def test_each_pulls_what_the_other_has_pushed(peers: tuple[Dockerd, str], agent: AgentUnderTest) -> None:
    peer, address = peers
    ours, theirs = f"{address}/by/agent:1", f"{address}/by/docker:1"
    agent.docker("tag", BUSYBOX, ours)
    pushed = agent.docker("push", ours).stdout
    pulled = peer.docker("pull", ours)
    assert pulled.returncode == 0, pulled.stderr
    digest = next(word for word in pushed.split() if word.startswith("sha256:"))
    assert f"Digest: {digest}" in pulled.stdout
    listed = ["run", "--rm", "--network", "none", ours, "ls", "-ln", "/bin/busybox", "/etc/passwd", "/home"]
    assert peer.docker(*listed).stdout == agent.docker(*listed).stdout
    identity = ["inspect", "-f", "{{.Id}} {{.RepoDigests}} {{.RootFS.Layers}}", ours]
    assert peer.docker(*identity).stdout == agent.docker(*identity).stdout
    peer.docker("tag", ours, theirs)
    done = peer.docker("push", theirs)
    assert done.returncode == 0, done.stderr
    agent.docker("pull", theirs)
    assert agent.docker("run", "--rm", theirs, "echo", "it runs").stdout == "it runs\n"
    for name in (ours, theirs):
        agent.docker("rmi", name)


def test_a_pull_reads_as_dockers(peers: tuple[Dockerd, str], agent: AgentUnderTest) -> None:
    peer, address = peers
    name = f"{address}/read/box:1"
    agent.docker("tag", BUSYBOX, name)
    agent.docker("push", "-q", name)
    agent.docker("rmi", name)
    theirs = peer.docker("pull", name).stdout
    ours = agent.docker("pull", name).stdout
    assert [line for line in ours.splitlines() if ": " not in line[12:14]] == [
        line for line in theirs.splitlines() if ": " not in line[12:14]
    ]
    for words in (
        ["pull", f"{address}/read/box:2"],
        ["pull", f"{address}/nothing"],
        ["push", f"{address}/none:1"],
    ):
        failed, expected = agent.docker(*words, code=1), peer.docker(*words)
        assert failed.stderr == expected.stderr
    agent.docker("rmi", name)
