"""A disk that is full: what cannot be done says so, what runs runs on, and making room is always possible."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import APIError
from docker.models.containers import Container
from tests.support import agent as agents
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse_agent.linux import mount

SESSION = isolation.current()
pytestmark = [
    pytest.mark.skipif(SESSION is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


@pytest.fixture(scope="module", autouse=True)
def _forwarding() -> None:
    """Every daemon turns it on, and none off: others may rely on it by then."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@pytest.fixture
def small() -> Iterator[AgentUnderTest]:
    """An agent on a disk of its own."""
    assert SESSION is not None
    root = agents.new_root(SESSION.directory)
    root.mkdir()
    mount.mount("tmpfs", str(root), "tmpfs", data="size=48m")
    try:
        with AgentUnderTest(root) as agent:
            agent.load_busybox()
            yield agent
    finally:
        mount.umount(str(root))
        root.rmdir()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC


def test_full(small: AgentUnderTest) -> None:
    talker = small.client.containers.run(
        BUSYBOX, ["sh", "-c", "while :; do echo line; usleep 1000; done"], detach=True
    )
    stopped = small.client.containers.create(BUSYBOX, ["true"])
    filler = small.root / "filler"
    fill(filler)
    for attempt in (lambda: small.client.containers.create(BUSYBOX, ["true"]), stopped.start):
        with pytest.raises(APIError, match=r"disk is full|No space left on device"):
            attempt()
    time.sleep(0.2)
    talker.reload()
    assert talker.status == "running" and talker.exec_run(["true"]).exit_code == 0
    talker.stop(timeout=0)
    talker.remove()
    filler.unlink()
    again = small.client.containers.run(BUSYBOX, ["echo", "room"], detach=True)
    assert again.wait(timeout=60)["StatusCode"] == 0 and again.logs() == b"room\n"
    stopped.start()
    assert stopped.wait(timeout=60)["StatusCode"] == 0
    assert not [name for name in os.listdir(small.root / "lib/containers") if name.startswith(".")]


def test_what_ends_meanwhile_is_noticed(small: AgentUnderTest) -> None:
    """Also when the reserve for such times is spent."""
    boxes = [small.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True) for _ in range(3)]
    for number, box in enumerate(boxes):
        fill(small.root / f"filler{number}")
        end(box)
    for number in range(len(boxes)):
        (small.root / f"filler{number}").unlink()
    end(small.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True))


def end(box: Container) -> None:
    """By a signal that the daemon knows nothing of, until it knows that it has ended."""
    box.reload()
    os.kill(box.attrs["State"]["Pid"], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while box.status != "exited":
        assert time.monotonic() < deadline
        time.sleep(0.05)
        box.reload()
