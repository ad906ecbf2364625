"""A daemon or a shim that is killed at any step: the next daemon repairs it, a second attempt works.

Each case is one life of a container with an anonymous volume, a published port and a restart in the middle,
with one death in it; the leak check compares the whole machine before and after.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound
from tests.support import isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.failpoints import Failpoints

from hawse_agent import failpoints as registry
from hawse_agent.runtime.init import STEPS

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")

PATIENCE = 60.0
SCRIPT = """
trap 'exit 0' TERM
[ -e /data/once ] || { touch /data/once; exit 1; }
touch /data/twice
while :; do sleep 0.02; done
"""
OF_DAEMON = tuple(
    name for name in registry.names() if name.startswith(("create: ", "start: ", "stop: ", "remove: "))
)
OF_SHIM = tuple(name for name in registry.names() if name.startswith("shim: "))
OF_INIT = (*(f"init: {step}" for step, _ in STEPS), "init: wait for the shim", "init: confine", "init: exec")


def live(agent: AgentUnderTest) -> None:
    """Create, start, stop and remove a container, each tried again after a failure until it is so."""
    api = agent.client.api
    host_config = api.create_host_config(
        port_bindings={80: 8077}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 0}
    )

    def create() -> None:
        command = ["sh", "-c", SCRIPT]
        api.create_container(
            BUSYBOX, command, name="victim", volumes=["/data"], ports=[80], host_config=host_config
        )

    def runs_for_good() -> bool:
        volume = api.inspect_container("victim")["Mounts"][0]["Source"]
        return os.path.exists(f"{volume}/twice") and status(agent) == "running"

    until(agent, create, lambda: status(agent) == "created")
    until(agent, lambda: api.start("victim"), runs_for_good)
    until(agent, lambda: api.stop("victim", timeout=20), lambda: status(agent) == "exited")
    until(agent, lambda: api.start("victim"), runs_for_good)
    until(agent, lambda: api.stop("victim", timeout=0), lambda: status(agent) == "exited")
    until(agent, lambda: api.remove_container("victim", v=True), lambda: status(agent) == "")


def status(agent: AgentUnderTest) -> str:
    """Nothing when it is not there."""
    try:
        return str(agent.client.api.inspect_container("victim")["State"]["Status"])
    except NotFound:
        return ""


def until(agent: AgentUnderTest, attempt: Callable[[], object], done: Callable[[], bool]) -> None:
    """Attempt it until it is done; a daemon that has died meanwhile is followed by another."""
    deadline = time.monotonic() + PATIENCE
    while True:
        problem = "it is done in vain"
        try:
            try:
                attempt()
            except APIError as error:
                problem = repr(error)
            if done():
                return
        except requests.exceptions.ConnectionError as error:
            problem = repr(error)
            assert agent.ended(PATIENCE), f"the daemon has cut the connection: {error}"
            agent.start()
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)


def kill_shim() -> None:
    """That of the only container; harmless where there is none."""
    for pid in (entry for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            title = Path("/proc", pid, "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith(b"hawse-shim: "):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def sample(steps: tuple[str, ...]) -> list[Any]:
    """One in eight; all of them by `make soak`."""
    return [
        pytest.param(step, marks=[pytest.mark.soak] if index % 8 else []) for index, step in enumerate(steps)
    ]


@pytest.fixture(autouse=True)
def _no_order_is_left(failpoints: Failpoints, agent: AgentUnderTest) -> Iterator[None]:
    yield
    failpoints.clear()


@pytest.mark.parametrize("step", OF_DAEMON)
def test_the_daemon_dies(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    failpoints.order(step, "die")
    live(agent)
    assert not failpoints.is_ordered(step)


@pytest.mark.parametrize("step", OF_SHIM)
def test_the_shim_dies(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    failpoints.order(step, "die")
    live(agent)
    assert not failpoints.is_ordered(step)


@pytest.mark.parametrize("step", sample(tuple(step for step in OF_DAEMON if step != "start: watch")))
def test_a_step_of_the_daemon_fails(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    """All but one, which asks neither disk nor kernel for anything."""
    failpoints.order(step, "ENOSPC")
    live(agent)
    assert not failpoints.is_ordered(step)


@pytest.mark.parametrize("step", sample(OF_INIT))
def test_the_first_process_dies(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    failpoints.order(step, "die")
    live(agent)
    assert not failpoints.is_ordered(step)


@pytest.mark.parametrize("step", sample((*OF_SHIM, *OF_INIT)))
def test_the_daemon_dies_meanwhile(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    """While the shim, or PID 1, is at a step."""
    meeting = failpoints.meet(step, agent.kill)
    live(agent)
    meeting.join()


@pytest.mark.parametrize("step", sample(OF_DAEMON))
def test_the_shim_dies_meanwhile(agent: AgentUnderTest, failpoints: Failpoints, step: str) -> None:
    """While the daemon is at a step."""
    meeting = failpoints.meet(step, kill_shim)
    live(agent)
    meeting.join()


def test_how_it_ended_is_known_though_its_shim_died(agent: AgentUnderTest, failpoints: Failpoints) -> None:
    failpoints.order("shim: tell exited", "die")
    container = agent.client.containers.run(BUSYBOX, ["sh", "-c", "exit 7"], detach=True)
    assert container.wait(timeout=PATIENCE)["StatusCode"] == 7
