"""`hawse` verbs on containers of this machine's agent: what they do, say and refuse, as docker's do."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import hawse, same

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
    said = json.loads(out(agent, "--json", "wait", "one"))
    assert said == {"host": "localhost", "container": "one", "exit_code": 137}
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


def test_update(agent: AgentUnderTest) -> None:
    sleeper(agent, "web")
    words = "-m 64m --memory-swap 128m --cpus 0.5 --pids-limit=30 web --restart on-failure:3 -c512"
    assert out(agent, "update", *words.split()) == "web\n"
    shown = "{{.Memory}} {{.MemorySwap}} {{.NanoCpus}} {{.PidsLimit}} {{.RestartPolicy}} {{.CpuShares}}"
    form = shown.replace("{{.", "{{.HostConfig.")
    assert out(agent, "inspect", "-f", f"{form} {{{{len .Id}}}}", "web") == (
        "67108864 134217728 500000000 30 map[MaximumRetryCount:3 Name:on-failure] 512 64\n"
    )
    done = hawse(agent.socket, "update", "-m", "32m", "missing", "web", code=1)
    assert (done.stdout, done.stderr) == ("web\n", "hawse: No such container: missing\n")
    assert "unknown policy" in hawse(agent.socket, "update", "--restart", "maybe", "web", code=1).stderr
    for words in ("web", "--blkio-weight 5 web", "-m 1m", "-m x web"):
        hawse(agent.socket, "update", *words.split(), code=2)


def test_prune(agent: AgentUnderTest) -> None:
    docker = agent.docker
    for name, label in (("kept", "keep=1"), ("gone", "drop=1")):
        docker("create", "--name", name, "--label", label, "-v", "/anonymous", BUSYBOX, "true")
        docker("network", "create", "--label", label, name)
    done = hawse(agent.socket, "prune", "--volumes", input=b"n\n", code=1)
    assert "all anonymous volumes" in done.stdout and done.stderr == "hawse: the prune has been cancelled\n"
    assert "Total reclaimed space: 0B" in out(agent, "prune", "-f", "--filter", "until=1h")
    assert set(states(agent)) == {"kept", "gone"}
    removed = out(agent, "prune", "--volumes", "--filter", "label!=keep", input=b"y\n")
    titles = ("Deleted Containers:", "Deleted Networks:\ngone\n", "Deleted Volumes:")
    assert all(title in removed for title in titles)
    assert set(states(agent)) == {"kept"}
    assert out(agent, "network", "ls", "-f", "type=custom", "--format", "{{.Name}}") == "kept\n"
    assert len(out(agent, "volume", "ls", "-q").split()) == 1
    assert "invalid filter 'x'" in hawse(agent.socket, "prune", "-f", "--filter", "x=1", code=2).stderr


@contextlib.contextmanager
def _screen(socket: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """hawse with a terminal, and our end of that."""
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "rows", "24", "cols", "60"], stdin=theirs, check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "hawse", *words],
        env={**os.environ, "HAWSE_SOCKET": str(socket)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _until(terminal: int, wanted: Callable[[str], bool]) -> str:
    seen = ""
    deadline = time.monotonic() + 60
    while not wanted(seen):
        left = deadline - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], seen
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


def test_live_stats_are_drawn_again_until_ctrl_c(agent: AgentUnderTest) -> None:
    sleeper(agent, "one")
    with _screen(agent.socket, "stats") as (process, terminal):
        seen = _until(terminal, lambda seen: seen.count("one") >= 2)
        assert seen.count("\x1b[H") >= 2 and "CPU %" in seen
        assert all(len(re.sub(r"\x1b\[\w+", "", line)) <= 60 for line in seen.split("\r\n"))
        sleeper(agent, "another")
        _until(terminal, lambda seen: "another" in seen)
        os.killpg(process.pid, signal.SIGINT)
        _until(terminal, lambda seen: "interrupted" in seen)
        assert process.wait(30) == 130


def test_events_come_as_they_happen(agent: AgentUnderTest) -> None:
    words = ("events", "-f", "type=container", "--format", "{{.Action}}!")
    rename = agent.client.api.rename
    with _screen(agent.socket, *words) as (process, terminal):
        agent.client.containers.create(BUSYBOX, name="early")
        while not select.select([terminal], [], [], 0.2)[0]:  # until it listens
            rename("early", "early2")
            rename("early2", "early")
        sleeper(agent, "one")
        _until(terminal, lambda seen: "create!" in seen and "start!" in seen)
        os.killpg(process.pid, signal.SIGINT)
        _until(terminal, lambda seen: "interrupted" in seen)
        assert process.wait(30) == 130


def test_ports_processes_and_logs(agent: AgentUnderTest) -> None:
    script = "echo said; echo aside >&2; exec sleep 1000"
    ports = {"80/tcp": ("127.0.0.1", 18085), "9000/tcp": None, "443/udp": ("127.0.0.1", 18443)}
    web = agent.client.containers.run(BUSYBOX, ["sh", "-c", script], name="web", detach=True, ports=ports)
    for line in web.logs(stream=True, follow=True):
        if line == b"aside\n":
            break
    for words in (
        *("port web", "port web 80", "port web 443/udp", "port web 81", "port missing"),
        *("top web", "top web -o pid,comm", "top missing"),
        *("logs web", "logs -t web", "logs -n 1 web", "logs -t --details web", "logs --until 1h web"),
        *("logs --since 2000-01-01 web", "logs missing"),
    ):
        same(agent, *words.split())
    done = hawse(agent.socket, "logs", "web")
    assert (done.stdout, done.stderr) == ("said\n", "aside\n")
    (top,) = json.loads(out(agent, "--json", "top", "web")).values()
    assert top["Processes"][0][-1] == "sleep 1000"


def test_a_reader_that_has_gone_is_no_failure(agent: AgentUnderTest) -> None:
    sleeper(agent, "one")
    command = f"{sys.executable} -m hawse export one | head -c 1000 | wc -c; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "HAWSE_SOCKET": str(agent.socket)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split(), done.stderr) == (["1000", "141"], "")
