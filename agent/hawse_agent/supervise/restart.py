"""Whether and when a container that has ended is started again. Pure.

Docker's rules: 100 ms, doubled at each restart up to a minute, and from the beginning again once a run has
lasted ten seconds.
"""

from __future__ import annotations

from hawse_agent.spec.container import RestartPolicy

FIRST_DELAY, LONGEST_DELAY = 0.1, 60.0
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


def restarts(policy: RestartPolicy, exit_code: int, restart_count: int, *, stopped: bool) -> bool:
    """`stopped`: somebody asked for the end."""
    if stopped or policy.mode == "no":
        return False
    if policy.mode == "on-failure":
        return exit_code != 0 and (policy.max_retries == 0 or restart_count < policy.max_retries)
    return True
