"""The same commands to dockerd and to the agent by the same client (`make test-peers`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test-peers)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs dockerd"),
]

TIMEOUT = 60.0


class Dockerd:
    """In a network namespace of its own: its forward policy would drop the agent's traffic."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.socket = root / "docker.sock"
        script = 'ip link set lo up; exec dockerd "$@"'
        directories = ("--data-root", root / "data", "--exec-root", root / "exec", "--pidfile", root / "pid")
        with (root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "unshare",
                    "--net",
                    "sh",
                    "-c",
                    script,
                    "dockerd",
                    *directories,
                    "--host",
                    f"unix://{self.socket}",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + TIMEOUT
        while self.docker("version").returncode:
            assert self._process.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.1)

    def docker(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}
        return subprocess.run(
            ["docker", *words], env=environment, input=input, capture_output=True, text=True, timeout=TIMEOUT
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    session = isolation.current()
    assert session is not None
    # As deep as the check for leaks does not look: what dockerd leaves until later is not ours.
    top = session.directory / "peer"
    peer = Dockerd(top / "of/the/agent/d")
    yield peer
    peer.close()
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def both(dockerd: Dockerd, daemon: AgentUnderTest) -> tuple[Dockerd, AgentUnderTest]:
    """With the same image: dockerd loads what the agent saves."""
    session = isolation.current()
    assert session is not None
    archive = session.directory / "saved.tar"
    daemon.docker("save", "-o", str(archive), BUSYBOX)
    assert dockerd.docker("load", "-i", str(archive)).returncode == 0
    archive.unlink()
    dockerd.docker("run", "--rm", BUSYBOX, "true")  # what it makes once is there before the first test
    return dockerd, daemon


COMMANDS = {
    "output": ["run", "--rm", BUSYBOX, "echo", "out"],
    "exit code": ["run", "--rm", BUSYBOX, "sh", "-c", "exit 7"],
    "both streams": ["run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2"],
    "no such program": ["run", "--rm", BUSYBOX, "nosuch"],
    "user and groups": ["run", "--rm", "-u", "bob", BUSYBOX, "id"],
    "environment": ["run", "--rm", "-e", "A=1", "--hostname", "h", BUSYBOX, "env"],
    "capabilities": ["run", "--rm", BUSYBOX, "grep", "Cap", "/proc/self/status"],
    "no capabilities": ["run", "--rm", "--cap-drop", "ALL", BUSYBOX, "grep", "Cap", "/proc/self/status"],
    "seccomp": ["run", "--rm", BUSYBOX, "grep", "Seccomp:", "/proc/self/status"],
    "devices": ["run", "--rm", BUSYBOX, "ls", "/dev"],
    "masked": ["run", "--rm", BUSYBOX, "sh", "-c", "wc -c < /proc/kcore; ls /proc/acpi /sys/firmware 2>&1"],
    "read only": ["run", "--rm", "--read-only", BUSYBOX, "touch", "/x"],
    "working directory": ["run", "--rm", "-w", "/made/here", BUSYBOX, "pwd"],
    "name servers": ["run", "--rm", "--dns", "192.0.2.1", BUSYBOX, "cat", "/etc/resolv.conf"],
    "no network": ["run", "--rm", "--network", "none", BUSYBOX, "ls", "/sys/class/net"],
    "a name that is not valid": ["create", "--name", "-x", BUSYBOX],
    "no such image": ["inspect", "--type", "image", "nosuch:1"],
    "no such container": ["rm", "nosuch"],
    "no such volume": ["volume", "rm", "nosuch"],
    "no such network": ["network", "rm", "nosuch"],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_both_say_the_same(both: tuple[Dockerd, AgentUnderTest], case: str) -> None:
    dockerd, agent = both
    theirs = dockerd.docker(*COMMANDS[case])
    ours = agent.docker(*COMMANDS[case], code=None)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (ours.stderr, theirs.stderr)


def test_the_agent_loads_what_dockerd_saves(both: tuple[Dockerd, AgentUnderTest], tmp_path: Path) -> None:
    dockerd, agent = both
    dockerd.docker("tag", BUSYBOX, "peer:1")
    archive = tmp_path / "peer.tar"
    assert dockerd.docker("save", "-o", str(archive), "peer:1").returncode == 0
    agent.docker("load", "-i", str(archive))
    assert agent.docker("run", "--rm", "peer:1", "echo", "it runs").stdout == "it runs\n"
    agent.docker("rmi", "peer:1")
