"""Whether and when a container that has ended is started again, and what has failed is tried again. Pure.

Docker's rules: 100 ms, doubled at each restart up to a minute, and from the beginning again once a run has
lasted ten seconds.
"""

from __future__ import annotations

from hawse_agent.spec.container import RestartPolicy

FIRST_DELAY, LONGEST_DELAY = 0.1, 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds after a failure of the supervisor's own."""
SETTLED = 10.0
"""Seconds of running after which the next restart is the first of a new series."""


class Backoff:
    def __init__(self) -> None:
        self._next = FIRST_DELAY

    def delay(self, ran_for: float) -> float:
        """Seconds to wait, after a run that lasted `ran_for` seconds."""
        if ran_for >= SETTLED:
            self._next = FIRST_DELAY
        delay = self._next
        self._next = min(self._next * 2, LONGEST_DELAY)
        return delay


class Stumbles:
    """Of a loop that goes on after failures: how long it pauses after each, so that one that comes again and
    again does not keep a processor busy, and whether it is worth a word."""

    def __init__(self) -> None:
        self.count = 0
        """In a row, with less than `SETTLED` seconds in between."""
        self._last = -SETTLED

    def another(self, now: float) -> tuple[float, bool]:
        """Seconds to pause; and whether it is said: the first, second, fourth, eighth… of a row."""
        self.count = self.count + 1 if now - self._last < SETTLED else 1
        self._last = now
        pause = 0.0 if self.count == 1 else min(FIRST_PAUSE * 2 ** min(self.count - 2, 10), LONGEST_PAUSE)
        return pause, self.count & (self.count - 1) == 0


def restarts(policy: RestartPolicy, exit_code: int, restart_count: int, *, stopped: bool) -> bool:
    """`stopped`: somebody asked for the end."""
    if stopped or policy.mode == "no":
        return False
    if policy.mode == "on-failure":
        return exit_code != 0 and (policy.max_retries == 0 or restart_count < policy.max_retries)
    return True
