"""wait_for against sockets and files of the test's own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.errors import InputError, TaskFailed

Make = Callable[..., Any]

SOON = {"timeout": 0.3, "sleep": 0.05}


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


def test_a_port_that_answers(task: Make, server: socket.socket) -> None:
    result = task("wait_for", port=port(server), **SOON).apply()
    assert (result["changed"], result["port"]) == (False, port(server))


def test_a_port_that_does_not(task: Make, server: socket.socket) -> None:
    closed = port(server)
    server.close()
    with pytest.raises(TaskFailed, match=f"Timeout when waiting for 127.0.0.1:{closed}"):
        task("wait_for", port=closed, **SOON).apply()
    task("wait_for", port=closed, state="stopped", **SOON).apply()
    with pytest.raises(TaskFailed, match=r"^no web server$"):
        task("wait_for", port=closed, msg="no web server", **SOON).apply()


def test_a_port_that_opens_meanwhile(task: Make, server: socket.socket) -> None:
    later = port(server)
    server.close()
    opened: list[socket.socket] = []
    timer = threading.Timer(0.2, lambda: opened.append(socket.create_server(("127.0.0.1", later))))
    timer.start()
    task("wait_for", port=later, timeout=5, sleep=0.05).apply()
    timer.join()
    opened[0].close()


def test_what_a_port_says(task: Make, server: socket.socket) -> None:
    def greet() -> None:
        for _ in range(2):
            with server.accept()[0] as peer:
                peer.sendall(b"220 mail ESMTP\n")

    thread = threading.Thread(target=greet)
    thread.start()
    task("wait_for", port=port(server), search_regex="ESMTP", **SOON).apply()
    with pytest.raises(TaskFailed, match="search string"):
        task("wait_for", port=port(server), search_regex="HTTP", timeout=0, sleep=0.05).apply()
    thread.join()


def test_a_port_is_drained_when_nobody_is_connected(task: Make, server: socket.socket) -> None:
    drained = {"port": port(server), "state": "drained", **SOON}
    task("wait_for", **drained).apply()
    with socket.create_connection(("127.0.0.1", port(server))):
        with pytest.raises(TaskFailed, match="drained"):
            task("wait_for", **drained).apply()
        task("wait_for", host="127.0.0.9", **drained).apply()


def test_files_come_go_and_say_something(task: Make, tmp_path: Path) -> None:
    path = tmp_path / "log"
    task("wait_for", path=path, state="absent", **SOON).apply()
    with pytest.raises(TaskFailed):
        task("wait_for", path=path, **SOON).apply()
    path.write_text("starting\nready in 3 s\n")
    task("wait_for", path=path, search_regex=r"^ready in \d s$", **SOON).apply()
    with pytest.raises(TaskFailed):
        task("wait_for", path=path, search_regex="^in", **SOON).apply()


def test_a_plan_knows_nothing(task: Make) -> None:
    plan = task("wait_for", port=1).plan()
    assert (plan.changed, plan.unknown, plan.reason) == (False, True, "waits for 127.0.0.1:1")


@pytest.mark.parametrize(
    "args",
    [
        {"port": 1, "path": "/x"},
        {"port": 70000},
        {"state": "drained"},
        {"path": "/x", "search_regex": "("},
        {"search_regex": "x"},
        {"port": 1, "timeout": -1},
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_when_planned(task: Make, args: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        task("wait_for", **args).plan()


def test_a_fifo_is_not_waited_in(task: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(match="no regular file"):
        task("wait_for", path=tmp_path / "f", search_regex="x", **SOON).apply()
