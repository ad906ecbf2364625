"""The thread that reads what shims say goes on, whatever becomes of one message."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from hawse_agent.supervise.client import Watcher


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
