"""The states of a container, what each of them refuses in Docker's words, and how it leaves them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError
from docker.models.containers import Container
from tests.support import busybox, isolation, linux
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse_agent.supervise.client import ShimClient

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

TIMEOUT = 40.0
LASTING = ["sleep", "1000"]


def run(agent: AgentUnderTest, *command: str, **options: Any) -> Container:
    return agent.client.containers.run(BUSYBOX, list(command), detach=True, **options)


def state(container: Container) -> dict[str, Any]:
    container.reload()
    return dict(container.attrs["State"])


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def refusals(agent: AgentUnderTest, name: str, verbs: dict[str, str]) -> None:
    """Each verb fails, and says so in these words."""
    for verb, words in verbs.items():
        program, *options = verb.split()
        done = agent.docker(program, *options, name, *(["true"] if program == "exec" else []), code=None)
        assert done.returncode == (1 if program != "run" else 125), (verb, done)
        assert words.replace("NAME", name) in done.stderr, (verb, done.stderr)


def test_one_that_never_ran(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, LASTING, name="new1")
    shown = state(container)
    assert (shown["Status"], shown["Running"], shown["Pid"], shown["ExitCode"]) == ("created", False, 0, 0)
    refusals(
        agent,
        "new1",
        {
            "kill": f"cannot kill container: NAME: container {container.id} is not running",
            "pause": f"Container {container.id} is not running",
            "unpause": f"Container {container.id} is not paused",
            "top": f"Container {container.id} is not running",
            "exec": f"container {container.id} is not running",
            "attach": "cannot attach to a stopped container",
        },
    )
    assert agent.docker("stop", "new1").stdout == "new1\n"
    assert agent.docker("logs", "-f", "new1").stdout == ""


def test_a_paused_one(agent: AgentUnderTest) -> None:
    container = run(agent, *LASTING, name="held")
    container.pause()
    shown = state(container)
    assert (shown["Status"], shown["Running"], shown["Paused"]) == ("paused", True, True)
    refusals(
        agent,
        "held",
        {
            "pause": f"Container {container.id} is already paused",
            "start": "cannot start a paused container, try unpause instead",
            "exec": f"Container {container.id} is paused, unpause the container before exec",
            "rm": 'cannot remove container "/NAME": container is paused and must be unpaused first',
            "attach": "cannot attach to a paused container",
        },
    )
    assert len(container.top()["Processes"]) == 1
    container.kill()
    container.wait()
    assert state(container)["ExitCode"] == 137
    container.start()
    container.pause()
    container.restart(timeout=0)
    assert state(container)["Status"] == "running"
    container.pause()
    container.remove(force=True)


def test_one_that_waits_for_its_restart(agent: AgentUnderTest) -> None:
    """Its back-off is over a second by then: the verbs below find it waiting."""
    container = run(agent, "sh", "-c", "exit 3", name="again", restart_policy={"Name": "always"})
    eventually(lambda: state(container)["Restarting"] and container.attrs["RestartCount"] >= 5)
    assert (container.attrs["State"]["Status"], container.attrs["State"]["ExitCode"]) == ("restarting", 3)
    waits = f"Container {container.id} is restarting, wait until the container is running"
    for verb, words in (
        (container.pause, waits),
        (container.top, waits),
        (lambda: agent.client.api.exec_create(container.id, "true"), waits),
        (container.remove, 'cannot remove container "/again": container is restarting: stop the container'),
    ):
        with pytest.raises(APIError) as refused:
            verb()
        assert refused.value.status_code == 409 and words in str(refused.value.explanation)
    container.kill()
    eventually(lambda: state(container)["Status"] == "exited")
    assert container.wait()["StatusCode"] == 3
    lasting = run(agent, "sh", "-c", "echo >> /runs; [ $(wc -l < /runs) = 2 ] && exec sleep 1000; exit 4",
                  restart_policy={"Name": "always"})  # fmt: skip
    eventually(lambda: state(lasting)["Status"] == "running" and lasting.attrs["RestartCount"] == 1)
    assert (lasting.attrs["State"]["ExitCode"], lasting.attrs["State"]["Restarting"]) == (0, False)
    agent.docker("update", "--restart", "no", lasting.id)
    os.kill(lasting.attrs["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: state(lasting)["Status"] == "exited")


def test_times_of_both_runs(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "exit 3")
    container.wait()
    first = state(container)
    container.start()
    container.wait()
    second = state(container)
    assert first["StartedAt"] <= first["FinishedAt"] < second["StartedAt"] <= second["FinishedAt"]


def test_the_end_of_the_last_run_is_known_in_the_next_one(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "mkdir /once && exit 3; exec sleep 1000")
    container.wait()
    ended = state(container)["FinishedAt"]
    container.start()
    assert state(container)["FinishedAt"] == ended
    agent.restart()
    assert (state(container)["Status"], state(container)["FinishedAt"]) == ("running", ended)


def test_what_stands_in_the_way_of_a_removal_makes_it_dead(agent: AgentUnderTest) -> None:
    container = run(agent, "true", name="stuck")
    container.wait()
    log = Path(state(container) and container.attrs["LogPath"])
    linux.mount("/dev/null", str(log), None, linux.MS_BIND)
    try:
        refusals(agent, "stuck", {"rm": f"unable to remove the files of container {container.id}"})
        shown = state(container)
        assert (shown["Status"], shown["Dead"], shown["Running"]) == ("dead", True, False)
        assert "busy" in shown["Error"]
        assert (
            agent.docker("ps", "-a", "--filter", "status=dead", "--format", "{{.Status}}").stdout == "Dead\n"
        )
        refusals(
            agent,
            "stuck",
            {
                "start": f"container {container.id} is marked for removal and cannot be started",
                "logs": "can not get logs from container which is dead or marked for removal",
                "exec": "is not running",
            },
        )
        agent.restart()
        assert state(container)["Status"] == "dead"
    finally:
        linux.umount(str(log), linux.MNT_DETACH)
    container.remove()
    assert agent.docker("ps", "-aq").stdout == ""


def test_policies_after_a_boot(agent: AgentUnderTest) -> None:
    """Daemon and supervisors are gone at once: `always` comes back, and of the others those that ran."""
    wanted = {
        "always-up": True,
        "always-stopped": True,
        "unless-stopped-up": True,
        "unless-stopped-stopped": False,
        "no-up": False,
    }
    containers = {
        name: run(agent, *LASTING, name=name, restart_policy={"Name": name.rpartition("-")[0]})
        for name in wanted
    }
    for name, container in containers.items():
        if name.endswith("stopped"):
            container.stop(timeout=0)
    shims = [
        ShimClient(agent.root / "run/shims" / container.id / "shim.sock").pid()
        for name, container in containers.items()
        if name.endswith("up")
    ]
    agent.kill()
    for shim in shims:
        os.kill(shim, signal.SIGKILL)
    for shim in shims:
        eventually(lambda shim=shim: not Path(f"/proc/{shim}").exists())  # type: ignore[misc]
    agent.start()
    for name, runs in wanted.items():
        eventually(lambda name=name, runs=runs: state(containers[name])["Running"] == runs)  # type: ignore[misc]
    assert state(containers["no-up"])["ExitCode"] == 137


def test_of_many_with_one_name_one_is_made_and_removed(agent: AgentUnderTest) -> None:
    outcomes: list[str] = []

    def attempt(what: Callable[[docker.DockerClient], object]) -> None:
        client = docker.DockerClient(f"unix://{agent.socket}", timeout=60)
        try:
            what(client)
            outcomes.append("done")
        except APIError as error:
            outcomes.append(str(error.explanation))
        client.close()

    def at_once(what: Callable[[docker.DockerClient], object]) -> list[str]:
        outcomes.clear()
        threads = [threading.Thread(target=attempt, args=(what,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        return sorted(outcomes, key=lambda text: text != "done")

    first, *others = at_once(lambda client: client.api.create_container(BUSYBOX, LASTING, name="only"))
    assert first == "done" and len(others) == 5
    assert all("is already in use by container" in text for text in others), others
    container = agent.client.containers.get("only")
    container.start()
    first, *others = at_once(lambda client: client.api.remove_container("only", force=True))
    assert first == "done"
    assert all(
        "already in progress" in text or "No such container" in text or text == "done" for text in others
    )
    assert agent.client.containers.list(all=True) == []


def test_what_is_started_again_is_not_removed_at_its_end(agent: AgentUnderTest) -> None:
    """Of `--rm`: a restart stops it too, but its run goes on; the next stop removes it."""
    run = ("--rm", "--name", "brief", "-v", "/data", BUSYBOX, "sleep", "1000")
    agent.docker("run", "-d", *run)
    agent.docker("exec", "brief", "touch", "/data/kept")
    for _ in range(2):
        agent.docker("restart", "-t", "0", "brief")
        agent.docker("exec", "brief", "test", "-e", "/data/kept")
    agent.docker("stop", "-t", "0", "brief")
    eventually(lambda: agent.docker("ps", "-aq").stdout == "")
    assert agent.client.volumes.list() == []


def test_waiting_for_a_removal_and_the_volumes_that_go_with_it(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(
        BUSYBOX, ["sh", "-c", "exit 6"], volumes=["/kept"], auto_remove=True
    )
    assert len(agent.client.volumes.list()) == 1
    api = agent.client.api
    with api._post(
        api._url("/containers/{0}/wait", container.id), params={"condition": "removed"}, stream=True
    ) as answer:
        assert answer.status_code == 200  # before it has even started
        container.start()
        assert answer.json()["StatusCode"] == 6
    eventually(lambda: agent.client.volumes.list() == [])


def test_a_tree_deeper_than_python_recurses_is_removed(agent: AgentUnderTest) -> None:
    script = "i=0; while [ $i -lt 2100 ]; do mkdir a && cd a || exit 1; i=$((i+1)); done"
    agent.docker(
        "run", "--name", "deep", "-v", "deep:/v", BUSYBOX, "sh", "-c", f"({script}) && cd /v && {script}"
    )
    agent.docker("rm", "deep")
    agent.docker("volume", "rm", "deep")
    assert agent.docker("ps", "-aq").stdout == ""
