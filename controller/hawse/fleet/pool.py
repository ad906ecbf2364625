"""Runs one function over many hosts, so many at a time, and brings the results back in order.

A host that fails is a result like another. Ctrl-C starts no further host, tells the ones at work to stop by
`cancel`, waits a little, and says of each host how far it came. The threads are daemons: a host that hangs
cannot keep the program from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from hawse_agent.errors import HawseError, InternalError

H = TypeVar("H")
R = TypeVar("R")

Status = Literal["ok", "failed", "interrupted", "not started"]
_GRACE = 10.0
_LOOK = 0.5
"""Python may see a Ctrl-C that comes just before it waits for a lock only after that: so waits are short."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[H, R]):
    """What became of one host: a value when ok, an error otherwise."""

    host: H
    status: Status
    value: R | None = None
    error: HawseError | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcomes(Generic[H, R]):
    hosts: tuple[Outcome[H, R], ...]
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """The worst of all hosts; 130 after Ctrl-C."""
        if self.interrupted:
            return 130
        return max((outcome.error.exit_code for outcome in self.hosts if outcome.error), default=0)


def run(
    hosts: Sequence[H],
    work: Callable[[H], R],
    *,
    forks: int = 32,
    cancel: Callable[[H], None] = lambda host: None,
    done: Callable[[Outcome[H, R]], None] = lambda outcome: None,
) -> Outcomes[H, R]:
    """Calls `work` for every host; `done` hears of each as it ends, from that host's thread."""
    pool = _Pool(hosts, work, done)
    interrupted = False
    try:
        for _ in range(min(forks, len(hosts))):
            threading.Thread(target=pool.worker, name="fleet", daemon=True).start()
        while not pool.wait(_LOOK):
            pass
    except KeyboardInterrupt:
        interrupted = True
        for host in pool.stop():
            cancel(host)
        pool.wait(_GRACE)
    return Outcomes(hosts=pool.outcomes(), interrupted=interrupted)


class _Pool(Generic[H, R]):
    def __init__(
        self, hosts: Sequence[H], work: Callable[[H], R], done: Callable[[Outcome[H, R]], None]
    ) -> None:
        self._hosts = hosts
        self._work = work
        self._done = done
        self._changed = threading.Condition()
        self._next = 0
        self._stopped = False
        self._running: set[int] = set()
        self._outcomes: dict[int, Outcome[H, R]] = {}

    def worker(self) -> None:
        while (number := self._take()) is not None:
            outcome = self._one(self._hosts[number])
            self._done(outcome)
            with self._changed:
                self._running.discard(number)
                self._outcomes[number] = outcome
                self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Until nothing runs and nothing is left to start; whether that is so."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout)

    def stop(self) -> list[H]:
        """Starts nothing more; gives the hosts that are at work."""
        with self._changed:
            self._stopped = True
            return [self._hosts[number] for number in sorted(self._running)]

    def outcomes(self) -> tuple[Outcome[H, R], ...]:
        with self._changed:
            return tuple(
                self._outcomes.get(number)
                or Outcome(host=host, status="interrupted" if number in self._running else "not started")
                for number, host in enumerate(self._hosts)
            )

    def _idle(self) -> bool:
        return not self._running and (self._stopped or self._next >= len(self._hosts))

    def _take(self) -> int | None:
        with self._changed:
            if self._stopped or self._next >= len(self._hosts):
                return None
            self._running.add(self._next)
            self._next += 1
            return self._next - 1

    def _one(self, host: H) -> Outcome[H, R]:
        start = time.monotonic()
        error: HawseError
        try:
            value = self._work(host)
            return Outcome(host=host, status="ok", value=value, seconds=time.monotonic() - start)
        except HawseError as failure:
            error = failure
        except Exception as failure:
            error = InternalError(f"{type(failure).__name__}: {failure}", hint="this is a bug of hawse")
            error.__cause__ = failure
        seconds = time.monotonic() - start
        status: Status = "interrupted" if self._stopped else "failed"
        return Outcome(host=host, status=status, error=error, seconds=seconds)
