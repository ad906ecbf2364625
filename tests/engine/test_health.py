"""Health checks as Docker shows them: state, log, events; what a check inherits, and what it never does."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest
from docker.models.containers import Container
from docker.types import Healthcheck
from tests.support import busybox, imagefiles, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

TIMEOUT = 40.0
SOON = 10**8
SECOND = 10**9


def checked(agent: AgentUnderTest, script: str, *command: str, **times: int) -> Container:
    check = Healthcheck(test=["CMD-SHELL", script], **{"interval": SOON, "timeout": 30 * SECOND, **times})
    return agent.client.containers.run(
        BUSYBOX, list(command) or ["sleep", "1000"], detach=True, healthcheck=check
    )


def health(container: Container) -> dict[str, Any]:
    container.reload()
    return dict(container.attrs["State"]["Health"])


def until(container: Container, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT
    while not true(shown := health(container)):
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)
    return shown


def test_good_then_bad_in_dockers_format(agent: AgentUnderTest) -> None:
    begin = time.time()
    container = checked(agent, "echo probed; test ! -e /bad", retries=2)
    shown = health(container)
    assert (shown["Status"], shown["FailingStreak"]) == ("starting", 0) or shown["Log"]
    until(container, lambda shown: shown["Status"] == "healthy")
    line = agent.docker("ps", "--format", "{{.Status}}", "--filter", "health=healthy").stdout
    assert re.fullmatch(r"Up .* \(healthy\)\n", line)
    container.exec_run(["touch", "/bad"])
    shown = until(container, lambda shown: shown["Status"] == "unhealthy" and len(shown["Log"]) == 5)
    last = shown["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (1, "probed\n") and last["Start"] < last["End"]
    container.reload()
    assert (container.status, container.attrs["RestartCount"]) == ("running", 0)
    events = agent.client.events(
        since=begin, until=time.time(), filters={"event": "health_status"}, decode=True
    )
    assert [event["Action"] for event in events] == ["health_status: healthy", "health_status: unhealthy"]
    container.exec_run(["rm", "/bad"])
    until(container, lambda shown: shown["Status"] == "healthy" and shown["FailingStreak"] == 0)


def test_a_late_probe_is_killed_with_all_that_it_started(agent: AgentUnderTest) -> None:
    container = checked(agent, "echo begun; sleep 777; true", timeout=5 * SECOND, retries=1)
    shown = until(container, lambda shown: shown["Status"] == "unhealthy")
    assert shown["Log"][0]["ExitCode"] == -1
    assert shown["Log"][0]["Output"] == "Health check exceeded timeout (5s): begun\n"
    until(container, lambda shown: len(shown["Log"]) >= 2)
    late = [row for row in container.top()["Processes"] if "777" in row[-1]]
    assert len(late) <= 2  # of the probe that is under way


def test_much_output_is_cut(agent: AgentUnderTest) -> None:
    container = checked(agent, "head -c 10000 /dev/zero | tr '\\0' x; exit 5", retries=1)
    first = until(container, lambda shown: shown["Status"] == "unhealthy")["Log"][0]
    assert (first["ExitCode"], first["Output"]) == (5, "x" * 4096 + "...")


def test_nothing_probes_a_paused_one(agent: AgentUnderTest) -> None:
    container = checked(agent, "true")
    until(container, lambda shown: shown["Status"] == "healthy")
    container.pause()
    before = health(container)["Log"][-1]["Start"]
    time.sleep(0.5)  # five intervals
    later = health(container)
    assert later["Log"][-1]["Start"] <= before or later["Log"][-2]["Start"] == before
    assert (later["Status"], later["FailingStreak"]) == ("healthy", 0)
    container.unpause()
    until(container, lambda shown: shown["Log"][-1]["Start"] > later["Log"][-1]["Start"])


def test_the_images_check_is_inherited_changed_or_dropped(agent: AgentUnderTest) -> None:
    def shown(*options: str) -> Any:
        identity = agent.docker("create", *options, "checked:1").stdout.strip()
        return json.loads(agent.docker("inspect", "-f", "{{json .Config.Healthcheck}}", identity).stdout)

    layer = imagefiles.files({"etc/x": "x"})
    check = {"Test": ["CMD-SHELL", "x"], "Interval": 2 * SECOND, "Retries": 7}
    configuration = imagefiles.config([imagefiles.sha256(layer)], Cmd=["y"], Healthcheck=check)
    agent.client.images.load(imagefiles.docker_archive([(configuration, [layer], ["checked:1"])]))
    try:
        assert shown() == check
        assert shown("--health-interval", "5s") == {**check, "Interval": 5 * SECOND}
        assert shown("--no-healthcheck") == {"Test": ["NONE"]}
        done = agent.docker("create", "--health-interval", "1us", "checked:1", code=1)
        assert "Interval in Healthcheck cannot be less than 1ms" in done.stderr
    finally:
        agent.clear()
        agent.docker("rmi", "checked:1")


def test_an_interval_of_a_month(agent: AgentUnderTest) -> None:
    """Longer than epoll can wait."""
    container = checked(agent, "true", interval=30 * 86_400 * SECOND, timeout=30 * 86_400 * SECOND)
    assert container.exec_run(["true"]).exit_code == 0
    container.stop(timeout=0)
    container.reload()
    assert container.status == "exited"
