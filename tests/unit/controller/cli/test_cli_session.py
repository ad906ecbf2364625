"""Signals that are meant for a container: who gets them, and when."""

from __future__ import annotations

import os
import queue
import signal

import pytest

from hawse.cli.session import Signals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    signal.sigtimedwait(set(), 0)  # whatever is pending is handled before this returns


def test_before_a_container_starts_they_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), Signals(proxied=True):
        send(signal.SIGTERM)


def test_they_wait_for_the_container_and_go_to_it() -> None:
    got: queue.Queue[str] = queue.Queue()
    with Signals(proxied=True) as signals:
        signals.hold()
        send(signal.SIGUSR1)
        signals.to(got.put)
        send(signal.SIGINT)
        assert [got.get(timeout=60) for _ in range(2)] == ["SIGUSR1", "SIGINT"]


def test_three_times_mean_us() -> None:
    got: queue.Queue[str] = queue.Queue()
    with pytest.raises(KeyboardInterrupt), Signals(proxied=True) as signals:
        signals.to(got.put)
        for _ in range(3):
            send(signal.SIGINT)
    assert [got.get(timeout=60) for _ in range(2)] == ["SIGINT", "SIGINT"]


def test_afterwards_all_is_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals(proxied=True):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    with Signals(proxied=False):
        assert signal.getsignal(signal.SIGTERM) == before
