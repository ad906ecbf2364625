"""The wall clock jumps, forwards and back: what waits, waits as long as it should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import agent as agents
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

SESSION = isolation.current()
pytestmark = [
    pytest.mark.skipif(SESSION is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


@pytest.fixture(scope="module")
def ahead() -> Path:
    """The file that says how many seconds the daemon's clock is ahead."""
    assert SESSION is not None
    file = SESSION.directory / "clock"
    file.write_text("0")
    return file


@pytest.fixture(scope="module")
def daemon(ahead: Path) -> Iterator[AgentUnderTest]:
    assert SESSION is not None
    program = ("-m", "tests.support.clock", str(ahead))
    with AgentUnderTest(agents.new_root(SESSION.directory), program=program) as daemon:
        daemon.load_busybox()
        daemon.client.containers.run(BUSYBOX, "true", remove=True)
        yield daemon


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("seconds", [86400, -86400])
def test_what_waits(agent: AgentUnderTest, ahead: Path, seconds: int) -> None:
    """A health check, a restart and a stop, each in the middle of a jump; and the log goes on."""
    ahead.write_text("0")
    probes = {"test": ["CMD", "true"], "interval": 200_000_000, "retries": 1}
    healthy = agent.client.containers.run(BUSYBOX, ["sleep", "1000"], healthcheck=probes, detach=True)
    failing = agent.client.containers.run(
        BUSYBOX,
        ["sh", "-c", "echo begun; exit 1"],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 0},
        detach=True,
    )
    ahead.write_text(str(seconds))
    failing.reload()
    count = failing.attrs["RestartCount"]

    def probed() -> list[str]:
        healthy.reload()
        return [probe["Start"] for probe in healthy.attrs["State"]["Health"]["Log"]]

    seen = probed()
    wait_until(lambda: bool(set(probed()) - set(seen)))
    wait_until(lambda: bool(probed()) and healthy.attrs["State"]["Health"]["Status"] == "healthy")

    def restarted() -> bool:
        failing.reload()
        return bool(failing.attrs["RestartCount"] > count + 1)

    wait_until(restarted)
    assert failing.logs(since=1).count(b"begun") >= 2
    healthy.stop(timeout=1)
    healthy.reload()
    assert (healthy.status, healthy.attrs["State"]["ExitCode"]) == ("exited", 137)
    failing.remove(force=True)
