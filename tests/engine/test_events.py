"""What `docker events` tells: every action in Docker's words and order, attributes, history, filters."""

from __future__ import annotations

import re
import shutil
import time
from typing import Any

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

TIMEOUT = 30.0


def told(agent: AgentUnderTest, since: float, *options: str) -> list[str]:
    """What the client shows of events that are over, without times; ids as ID."""
    window = ("--since", f"{since:.6f}", "--until", f"{time.time():.6f}")
    lines = agent.docker("events", *window, *options).stdout.splitlines()
    return [re.sub(r"[0-9a-f]{64}", "ID", line.partition(" ")[2]) for line in lines]


def _until_told(agent: AgentUnderTest, begin: float, action: str) -> None:
    """What a supervisor tells comes a moment after the client's answer."""
    deadline = time.monotonic() + TIMEOUT
    while not told(agent, begin, "--filter", f"event={action}"):
        assert time.monotonic() < deadline


def test_a_life_in_events(agent: AgentUnderTest) -> None:
    """The lines are those of dockerd, in its order."""
    docker, begin = agent.docker, time.time()
    docker("network", "create", "nn")
    options = ("--name", "c1", "--label", "l=1", "-v", "vv:/v:ro", "--network", "nn", "--stop-timeout", "0")
    docker("run", "-d", *options, BUSYBOX, "sleep", "1000")
    docker("exec", "c1", "sh", "-c", "exit 3", code=3)
    _until_told(agent, begin, "exec_die")
    docker("top", "c1")
    docker("pause", "c1")
    docker("unpause", "c1")
    docker("rename", "c1", "c2")
    docker("update", "--cpu-shares", "512", "c2")
    docker("kill", "-s", "HUP", "c2")
    docker("restart", "c2")
    docker("kill", "c2")
    docker("wait", "c2")
    docker("rm", "c2")
    docker("network", "rm", "nn")
    docker("volume", "rm", "vv")
    own = "image=busybox:test, l=1, name"
    execution = f"(execID=ID, {own}=c1)"
    mount = "volume mount vv (container=ID, destination=/v, driver=local, propagation=, read/write=false)"
    over = [
        "network disconnect ID (container=ID, name=nn, type=bridge)",
        "volume unmount vv (container=ID, driver=local)",
    ]
    shown = [re.sub(r"execDuration=\d+", "execDuration=N", line) for line in told(agent, begin)]
    assert shown == [
        "network create ID (name=nn, type=bridge)",
        "volume create vv (driver=local)",
        f"container create ID ({own}=c1)",
        "network connect ID (container=ID, name=nn, type=bridge)",
        mount,
        f"container start ID ({own}=c1)",
        f"container exec_create: sh -c exit 3 ID {execution}",
        f"container exec_start: sh -c exit 3 ID {execution}",
        f"container exec_die ID (execID=ID, exitCode=3, {own}=c1)",
        f"container top ID ({own}=c1)",
        f"container pause ID ({own}=c1)",
        f"container unpause ID ({own}=c1)",
        f"container rename ID ({own}=c2, oldName=/c1)",
        f"container update ID ({own}=c2)",
        f"container kill ID ({own}=c2, signal=1)",
        f"container kill ID ({own}=c2, signal=9)",
        f"container die ID (execDuration=N, exitCode=137, {own}=c2)",
        *over,
        f"container stop ID ({own}=c2)",
        "network connect ID (container=ID, name=nn, type=bridge)",
        mount,
        f"container start ID ({own}=c2)",
        f"container restart ID ({own}=c2)",
        f"container kill ID ({own}=c2, signal=9)",
        f"container die ID (execDuration=N, exitCode=137, {own}=c2)",
        *over,
        f"container destroy ID ({own}=c2)",
        "network destroy ID (name=nn, type=bridge)",
        "volume destroy vv (driver=local)",
    ]
    assert told(agent, begin, "--filter", "type=network", "--filter", "event=connect") == [shown[3]] * 2
    assert told(agent, begin, "--filter", "container=c1", "--filter", "event=pause") == [shown[10]]
    assert told(agent, begin, "--filter", "image=busybox", "--filter", "event=top") == [shown[9]]
    assert told(agent, begin, "--filter", "label=l=1", "--filter", "event=exec_start") == [shown[7]]
    assert told(agent, begin, "--filter", "volume=vv", "--filter", "event=destroy") == [shown[-1]]
    assert told(agent, begin, "--filter", "daemon=x") == told(agent, begin, "--filter", "label=l=2") == []


def test_clients_and_prunes_in_events(agent: AgentUnderTest) -> None:
    docker, begin = agent.docker, time.time()
    docker("run", "--name", "passing", BUSYBOX, "true")
    docker("container", "prune", "-f")
    docker("network", "prune", "-f")
    docker("volume", "prune", "-f")
    docker("image", "prune", "-f")
    actions = [line.split()[1] for line in told(agent, begin, "--filter", "type=container")]
    assert actions == ["create", "attach", "start", "die", "destroy", "prune"]
    pruned = told(agent, begin, "--filter", "event=prune")
    assert [line.split()[0] for line in pruned] == ["container", "network", "volume", "image"]
    assert all(re.fullmatch(r"\w+ prune  \(reclaimed=\d+\)", line) for line in pruned)


def test_a_removal_by_force_in_events(agent: AgentUnderTest) -> None:
    docker, begin = agent.docker, time.time()
    docker("run", "-d", "--name", "doomed", "--network", "none", BUSYBOX, "sleep", "1000")
    docker("rm", "-f", "doomed")
    actions = [line.split()[1] for line in told(agent, begin, "--filter", "type=container")]
    assert list(dict.fromkeys(actions)) == ["create", "start", "kill", "die", "destroy"]


def test_images_in_events(agent: AgentUnderTest) -> None:
    docker, begin = agent.docker, time.time()
    docker("tag", BUSYBOX, "other:1")
    docker("rmi", "other:1")
    assert told(agent, begin) == [
        "image tag sha256:ID (name=other:1)",
        "image untag sha256:ID (name=sha256:ID)",
    ]


def test_who_lets_go_of_a_terminal_is_told(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, "cat", tty=True, stdin_open=True)
    events = agent.client.events(filters={"container": container.id}, decode=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    stream._sock.sendall(b"\x10\x11")
    container.resize(10, 20)
    identity = agent.client.api.exec_create(container.id, "cat", tty=True, stdin=True)["Id"]
    inner = agent.client.api.exec_start(identity, tty=True, socket=True)
    inner._sock.sendall(b"\x10\x11")
    seen: dict[str, dict[str, Any]] = {}
    for event in events:
        seen[event["Action"]] = event["Actor"]["Attributes"]
        if event["Action"] == "exec_detach":
            break
    assert {"create", "attach", "start", "detach", "resize", "exec_detach"} <= {*seen, "create"}
    assert (seen["resize"]["height"], seen["resize"]["width"]) == ("10", "20")
    assert seen["exec_detach"]["execID"] == identity
    events.close()
    stream.close()
    inner.close()
    container.remove(force=True)
