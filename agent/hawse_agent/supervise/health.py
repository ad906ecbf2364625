"""Health of a container: when to probe, and what a probe's result means. Pure but for the clock it is given.

Docker's rules: the first probe one interval after the start (the start interval, during the start period);
one success makes it healthy; `retries` failures in a row make it unhealthy; failures in the start period
do not count until a probe has succeeded. `now` is of a clock that nobody sets; a probe's own times are for
people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hawse_agent.spec.container import HealthCheck

KEPT_PROBES = 5
KEPT_OUTPUT = 4096
"""Bytes of a probe's output that are kept."""
TIMED_OUT = -1


def shown(output: bytes) -> str:
    """The beginning of a probe's output; a longer one ends with dots."""
    text = output[:KEPT_OUTPUT].decode(errors="replace")
    return f"{text}..." if len(output) > KEPT_OUTPUT else text


def duration(seconds: float) -> str:
    """As Docker writes it: 500ms, 1.5s, 1m30s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest:g}s"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Times are epoch seconds."""

    start: float
    end: float
    exit_code: int
    output: str


def command(check: HealthCheck) -> tuple[str, ...]:
    """What to execute."""
    kind, *rest = check.test
    return ("/bin/sh", "-c", rest[0]) if kind == "CMD-SHELL" else tuple(rest)


class Health:
    """`status` is starting, healthy or unhealthy."""

    def __init__(self, check: HealthCheck, now: float) -> None:
        self.check = check
        self.status = "starting"
        self.failing_streak = 0
        self.log: list[Probe] = []
        self._start = now

    def next_in(self, now: float) -> float:
        """Seconds until the next probe."""
        starting = self.status == "starting" and now - self._start < self.check.start_period
        return self.check.start_interval if starting else self.check.interval

    def result(self, probe: Probe, began: float) -> bool:
        """True when the status has changed. `began` is when the probe did, by the clock of `now`."""
        self.log = [*self.log, probe][-KEPT_PROBES:]
        before = self.status
        if probe.exit_code == 0:
            self.failing_streak, self.status = 0, "healthy"
        elif not (before == "starting" and began - self._start < self.check.start_period):
            self.failing_streak += 1
            if self.failing_streak >= self.check.retries:
                self.status = "unhealthy"
        return self.status != before

    def as_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "failing_streak": self.failing_streak,
            "log": [
                {"start": p.start, "end": p.end, "exit_code": p.exit_code, "output": p.output}
                for p in self.log
            ],
        }
