"""The thread that reads what shims say goes on, whatever becomes of one message."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from hawse_agent.supervise.client import Watcher, first_answers


def test_a_failing_callback_is_said_and_leaves_the_others_alone(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher()
    heard: list[tuple[str, Any]] = []
    both = threading.Event()

    def callback(container: str, event: dict[str, Any] | None) -> None:
        heard.append((container, event))
        if len(heard) == 2:
            both.set()
        raise OSError("no space left")

    shims = []
    watcher.start()
    for name in ("one", "two"):
        ours, theirs = socket.socketpair()
        watcher.add(name, theirs, callback)
        shims.append(ours)
    for shim in shims:
        shim.sendall(json.dumps({"event": "gone"}).encode() + b"\n")
    assert both.wait(30)
    watcher.stop()
    assert sorted(name for name, _ in heard) == ["one", "two"]
    assert capsys.readouterr().err.count("OSError: no space left") == 2
    for shim in shims:
        shim.close()


def test_who_has_caught_up_knows_all_that_was_told() -> None:
    watcher = Watcher()
    heard: list[int] = []
    ours, theirs = socket.socketpair()
    watcher.start()
    watcher.add("one", theirs, lambda _, event: heard.append(event["number"]) if event else None)
    for number in range(200):
        ours.sendall(json.dumps({"event": "x", "number": number}).encode() + b"\n")
        watcher.catch_up()
        assert heard[-1:] == [number]
    watcher.stop()
    watcher.catch_up()
    ours.close()


def test_who_does_not_answer_is_not_waited_for() -> None:
    pairs = {name: socket.socketpair() for name in ("says", "leaves", "hangs")}
    pairs["says"][1].sendall(b'{"state": {"pid": 7}}\n{"event": "oom"}\n')
    pairs["leaves"][1].close()
    answers = first_answers({name: ours for name, (ours, _) in pairs.items()}, 0.05)
    assert answers == {"says": {"pid": 7}, "leaves": None}
    assert pairs["says"][0].recv(100) == b'{"event": "oom"}\n'
    assert pairs["leaves"][0].fileno() == -1
    for pair in pairs.values():
        for one in pair:
            one.close()
