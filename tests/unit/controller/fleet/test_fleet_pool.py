import os
import signal
import threading
import time

from hawse.fleet import pool
from hawse_agent.errors import InputError, InternalError, Unreachable


def test_results_in_order_whoever_is_first() -> None:
    first = threading.Event()

    def work(host: str) -> str:
        if host == "a":
            first.wait(5)
        first.set()
        return host.upper()

    heard: list[str] = []
    outcomes = pool.run(["a", "b"], work, done=lambda outcome: heard.append(outcome.host))
    assert [outcome.value for outcome in outcomes.hosts] == ["A", "B"] and heard == ["b", "a"]
    assert outcomes.exit_code == 0


def test_a_failure_is_a_result() -> None:
    def work(host: str) -> str:
        match host:
            case "gone":
                raise Unreachable("gone: no answer", stage="tcp")
            case "bug":
                raise ZeroDivisionError("oops")
            case "wrong":
                raise InputError("wrong")
        return host

    outcomes = pool.run(["ok", "gone", "wrong"], work)
    assert [outcome.status for outcome in outcomes.hosts] == ["ok", "failed", "failed"]
    assert outcomes.exit_code == 4
    bug = pool.run(["bug"], work).hosts[0].error
    assert isinstance(bug, InternalError) and "ZeroDivisionError: oops" in str(bug)


def test_no_more_than_forks_at_a_time() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work(host: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    pool.run(range(12), work, forks=3)
    assert most == 3


def test_no_hosts() -> None:
    assert pool.run([], str).hosts == ()


def test_interrupt() -> None:
    cancelled = threading.Event()

    def work(host: str) -> None:
        if host == "a":
            return
        os.kill(os.getpid(), signal.SIGINT)
        cancelled.wait(5)
        raise Unreachable("cut", stage="tcp")

    def cancel(host: str) -> None:
        assert host == "b"
        cancelled.set()

    outcomes = pool.run(["a", "b", "c"], work, forks=1, cancel=cancel)
    assert outcomes.interrupted and outcomes.exit_code == 130
    assert [outcome.status for outcome in outcomes.hosts] == ["ok", "interrupted", "not started"]
