"""Clients of a container's streams, on the socket itself: who hangs up, and who only stops talking."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

PATIENCE = 60.0


def attached(agent: AgentUnderTest, container: str) -> socket.socket:
    """A socket on which Docker's stream is spoken from now on."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(agent.socket))
    path = f"/v1.44/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
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
