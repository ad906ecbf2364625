"""The pure rules of a shim: restarts, health, detach keys."""

from __future__ import annotations

import pytest

from hawse_agent.errors import InputError
from hawse_agent.spec import detach
from hawse_agent.spec.container import HealthCheck, RestartPolicy
from hawse_agent.supervise.health import Health, Probe, command, duration, shown
from hawse_agent.supervise.restart import Backoff, Stumbles, restarts


def test_the_delay_doubles_up_to_a_minute_and_begins_again_after_ten_seconds() -> None:
    backoff = Backoff()
    delays = [backoff.delay(0.1) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert backoff.delay(10.0) == 0.1


def test_what_fails_again_and_again_is_tried_less_often_and_said_less_often() -> None:
    stumbles = Stumbles()
    now, pauses, said = 100.0, [], []
    for count in range(1, 21):
        pause, told = stumbles.another(now)
        pauses.append(pause)
        said += [count] if told else []
        now += pause
    assert pauses[:4] == [0.0, 0.01, 0.02, 0.04] and pauses[-1] == 1.0
    assert said == [1, 2, 4, 8, 16]
    assert stumbles.another(now + 10.0) == (0.0, True)


@pytest.mark.parametrize(
    ("mode", "retries", "code", "count", "stopped", "again"),
    [
        ("no", 0, 1, 0, False, False),
        ("always", 0, 0, 9, False, True),
        ("always", 0, 0, 9, True, False),
        ("unless-stopped", 0, 1, 0, False, True),
        ("unless-stopped", 0, 1, 0, True, False),
        ("on-failure", 0, 1, 99, False, True),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 3, 1, 2, False, True),
        ("on-failure", 3, 1, 3, False, False),
    ],
)
def test_who_is_restarted(mode: str, retries: int, code: int, count: int, stopped: bool, again: bool) -> None:
    policy = RestartPolicy(mode=mode, max_retries=retries)  # type: ignore[arg-type]
    assert restarts(policy, code, count, stopped=stopped) is again


def probe(code: int, start: float) -> Probe:
    return Probe(start=start, end=start + 0.1, exit_code=code, output="")


def test_failures_in_the_start_period_do_not_count() -> None:
    health = Health(HealthCheck(test=("CMD", "x"), start_period=10, start_interval=1, retries=2), 100.0)
    assert health.next_in(101.0) == 1
    assert not health.result(probe(1, 101.0), 101.0)
    assert health.failing_streak == 0
    assert health.next_in(111.0) == 30.0
    assert not health.result(probe(1, 111.0), 111.0)
    assert health.result(probe(1, 112.0), 112.0)
    assert health.status == "unhealthy"
    assert health.result(probe(0, 113.0), 113.0)
    assert (health.status, health.failing_streak) == ("healthy", 0)


def test_a_healthy_one_is_judged_at_once_even_in_the_start_period() -> None:
    health = Health(HealthCheck(test=("CMD", "x"), start_period=100, retries=1), 0.0)
    health.result(probe(0, 1.0), 1.0)
    assert health.result(probe(1, 2.0), 2.0)
    assert health.status == "unhealthy"


def test_five_probes_are_kept() -> None:
    health = Health(HealthCheck(test=("CMD", "x")), 0.0)
    for number in range(9):
        health.result(probe(0, float(number)), float(number))
    assert [p.start for p in health.log] == [4.0, 5.0, 6.0, 7.0, 8.0]


def test_the_commands_of_both_forms() -> None:
    assert command(HealthCheck(test=("CMD", "a", "b"))) == ("a", "b")
    assert command(HealthCheck(test=("CMD-SHELL", "a | b"))) == ("/bin/sh", "-c", "a | b")


def test_detach_keys() -> None:
    assert detach.parse("") == b"\x10\x11"
    assert detach.parse("ctrl-@,a,ctrl-[") == b"\x00a\x1b"
    with pytest.raises(InputError, match="ctrl-é"):
        detach.parse("ctrl-é")


def test_the_sequence_is_found_across_pieces_and_given_back_when_it_was_another() -> None:
    detector = detach.Detector(b"\x10\x11")
    assert detector.feed(b"ab\x10") == (b"ab", False)
    assert detector.feed(b"c\x10") == (b"\x10c", False)
    assert detector.feed(b"\x10\x11rest") == (b"\x10", True)


def test_what_is_kept_of_a_probe() -> None:
    assert shown(b"x" * 4096) == "x" * 4096
    assert shown(b"x" * 4097) == "x" * 4096 + "..."
    assert shown(b"\xff") == "\ufffd"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "500ms"), (1, "1s"), (1.5, "1.5s"), (90, "1m30s"), (3600, "1h0m0s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
