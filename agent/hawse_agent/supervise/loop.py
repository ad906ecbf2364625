"""A shim's event loop: descriptors and timers in one thread, small enough to be forked by the hundred."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ, WRITE, PRIORITY = select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI
HANGUP, ERROR = select.EPOLLHUP, select.EPOLLERR

_LONGEST_WAIT = 86_400.0
"""Seconds; epoll takes no more than 24 days. Waking up early does nothing."""


class Timer:
    """A call that is due at some moment; `cancel` makes it never happen."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work

    def cancel(self) -> None:
        self._work = None

    def fire(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()

    @property
    def pending(self) -> bool:
        return self._work is not None


class Loop:
    def __init__(self) -> None:
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """`callback(events)` when `fd` is ready; hang-ups and errors are always told."""
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        self._poll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, work: Callable[[], None]) -> Timer:
        timer = Timer(work)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def pause(self, seconds: float) -> None:
        """Do nothing, whatever is ready."""
        if seconds > 0:
            time.sleep(seconds)

    def run_once(self) -> None:
        """Wait for something and do it."""
        for fd, events in self._poll.poll(self._wait()):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier one of this round may have removed it
                callback(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].fire()

    def _wait(self) -> float | None:
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return min(_LONGEST_WAIT, max(0.0, self._timers[0][0] - time.monotonic()))
