"""`hawse` verbs on containers of this machine's agent: what they do, say and refuse, as docker's do."""

from __future__ import annotations

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import hawse

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


def out(agent: AgentUnderTest, *words: str, code: int = 0, input: bytes = b"") -> str:
    return hawse(agent.socket, *words, code=code, input=input).stdout


def states(agent: AgentUnderTest) -> dict[str, str]:
    lines = out(agent, "ps", "-a", "--format", "{{.Names}} {{.State}}").splitlines()
    return dict(sorted(line.split() for line in lines))


def sleeper(agent: AgentUnderTest, name: str, **options: object) -> str:
    run = agent.client.containers.run
    return str(run(BUSYBOX, ["sleep", "1000"], name=name, detach=True, **options).id)


def test_the_life_of_containers(agent: AgentUnderTest) -> None:
    one, _ = sleeper(agent, "one"), sleeper(agent, "two")
    assert out(agent, "pause", one[:6], "two") == f"{one[:6]}\ntwo\n"
    assert states(agent) == {"one": "paused", "two": "paused"}
    out(agent, "unpause", "one", "two")
    out(agent, "kill", "-s", "KILL", "one")
    assert out(agent, "wait", "one") == "137\n"
    out(agent, "restart", "-t", "0", "one", "two")
    assert out(agent, "stop", "-t", "0", "one", "two") == "one\ntwo\n"
    assert states(agent) == {"one": "exited", "two": "exited"}
    out(agent, "rename", "two", "three")
    assert out(agent, "rm", "-v", "one", "three") == "one\nthree\n"
    assert states(agent) == {}


def test_what_is_refused_does_not_keep_the_others_from_it(agent: AgentUnderTest) -> None:
    sleeper(agent, "one")
    done = hawse(agent.socket, "stop", "-t", "0", "missing", "one", "", code=1)
    assert done.stdout == "one\n"
    assert (
        done.stderr == "hawse: No such container: missing\nhawse: the name of a container cannot be empty\n"
    )
    out(agent, "restart", "one")
    assert "is running" in hawse(agent.socket, "rm", "one", "missing", code=1).stderr
    done = hawse(agent.socket, "rm", "-f", "one", "missing")
    assert (done.stdout, done.stderr) == ("one\n", "hawse: No such container: missing\n")
    assert "links is not supported" in hawse(agent.socket, "rm", "--link", "one", code=1).stderr
