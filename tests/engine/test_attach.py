"""Clients of a container's streams, on the socket itself: who hangs up, and who only stops talking."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

PATIENCE = 60.0


def attached(
    agent: AgentUnderTest, container: str, query: str = "stream=1&stdin=1&stdout=1&stderr=1"
) -> socket.socket:
    return upgraded(agent, f"/containers/{container}/attach?{query}")


def upgraded(agent: AgentUnderTest, path: str, body: bytes = b"") -> socket.socket:
    """A socket on which Docker's stream is spoken from now on."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(agent.socket))
    head = f"Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(f"POST /v1.44{path} HTTP/1.1\r\n{head}".encode() + body)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return client


def to_end(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(4096):
        data += piece
    return data


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_hangs_up_before_the_start_is_forgotten(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, ["cat"], stdin_open=True)

    def sockets() -> int:
        found = 0
        for fd in os.listdir(f"/proc/{agent.pid}/fd"):
            try:
                found += os.readlink(f"/proc/{agent.pid}/fd/{fd}").startswith("socket:")
            except FileNotFoundError:
                continue
        return found

    before = sockets()
    clients = [attached(agent, container.id) for _ in range(20)]
    until(lambda: sockets() >= before + 20)
    for client in clients:
        client.close()
    until(lambda: sockets() <= before)
    container.start()
    container.remove(force=True)


def test_who_only_stops_talking_before_the_start_listens(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, ["head", "-c", "11"], stdin_open=True)
    with attached(agent, container.id) as client, attached(agent, container.id) as gone:
        client.sendall(b"typed early")
        client.shutdown(socket.SHUT_WR)
        gone.close()
        container.start()
        assert to_end(client) == b"\x01\0\0\0\0\0\0\x0btyped early"
    container.wait()
    container.remove()


@pytest.mark.parametrize("options", ["-di", "-dit"])
def test_who_closes_his_side_is_let_go(agent: AgentUnderTest, options: str) -> None:
    """As by dockerd, of a container whose stdin that does not end; it goes on."""
    container = agent.docker("run", options, BUSYBOX, "sleep", "1000").stdout.strip()
    with attached(agent, container) as client:
        client.shutdown(socket.SHUT_WR)
        assert to_end(client) == b""
    assert agent.client.containers.get(container).status == "running"


def exec_attached(agent: AgentUnderTest, container: str, *command: str) -> socket.socket:
    exec_id = agent.client.api.exec_create(container, list(command), stdin=True)["Id"]
    return upgraded(agent, f"/exec/{exec_id}/start", b'{"Tty": false}')


@pytest.mark.parametrize("how", ["run", "exec"])
def test_what_is_not_read_costs_no_exit_code(agent: AgentUnderTest, how: str) -> None:
    """What ends without having read all that it was sent."""
    words = ["run", "-i", "--rm", BUSYBOX, "sh", "-c", "echo said; exit 3"]
    if how == "exec":
        container = agent.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True)
        words = ["exec", "-i", container.id, "sh", "-c", "echo said; exit 3"]
    done = agent.docker(*words, input="y\n" * 100_000, code=3)
    assert (done.stdout, done.stderr) == ("said\n", "")


@pytest.mark.parametrize("stdin", [True, False])
def test_who_is_still_talking_at_the_end_reads_all(agent: AgentUnderTest, stdin: bool) -> None:
    """And the end itself, which is no error."""
    container = agent.client.containers.create(BUSYBOX, ["echo", "said"], stdin_open=stdin)
    with attached(agent, container.id) as client:
        client.sendall(bytes(100_000))
        container.start()
        assert to_end(client) == b"\x01\0\0\0\0\0\0\x05said\n"
    container.wait()
    with attached(agent, container.id, "logs=1&stdout=1") as late:
        late.sendall(bytes(100_000))
        assert to_end(late).endswith(b"said\n")
    running = agent.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True)
    with exec_attached(agent, running.id, "nosuch") as failing:
        failing.sendall(bytes(100_000))
        assert b"executable file not found" in to_end(failing)


def test_who_never_hangs_up_keeps_no_supervisor(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, ["true"], stdin_open=True)
    with attached(agent, container.id) as client:
        container.start()
        assert to_end(client) == b""
        until(lambda: not supervised(container.id))


def supervised(container: str) -> bool:
    titles = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                titles.append(Path("/proc", entry, "cmdline").read_bytes())
    return any(title.startswith(f"hawse-shim: {container}".encode()) for title in titles)
