"""Hears of ended children, and reaps them all: those that are waited for, and inherited orphans."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from hawse_agent.supervise.loop import READ, Loop

Ended = Callable[[int], None]
"""Gets the exit code: 128 and the signal's number for one that was killed."""


class Children:
    """One in a process: SIGCHLD is its."""

    def __init__(self, loop: Loop) -> None:
        self._waiting: dict[int, Ended] = {}
        self._announced = 0
        self._unclaimed: dict[int, int] = {}
        self._read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        loop.add(self._read, READ, lambda _: self._reap())

    def expect(self, pid: int, ended: Ended) -> None:
        """Before the loop runs again, so that no end is missed."""
        self._waiting[pid] = ended

    def announce(self) -> None:
        """A child is to be expected that somebody else makes, and that may end before we hear which it is."""
        self._announced += 1

    def arrived(self, pid: int = 0, ended: Ended | None = None) -> None:
        """The announced one is known; without a number it does not come."""
        code = self._unclaimed.pop(pid, None)
        self._announced -= 1
        if not self._announced:
            self._unclaimed.clear()
        if ended is not None and code is not None:
            ended(code)
        elif ended is not None:
            self.expect(pid, ended)

    def forget(self, pid: int) -> None:
        self._waiting.pop(pid, None)

    def _reap(self) -> None:
        os.read(self._read, 4096)
        ended: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            ended.append((pid, code if code >= 0 else 128 - code))
        # The youngest first: a container's PID 1 comes after what was executed beside it.
        order = list(self._waiting)
        ended.sort(key=lambda item: order.index(item[0]) if item[0] in self._waiting else -1, reverse=True)
        for pid, code in ended:
            callback = self._waiting.pop(pid, None)
            if callback is not None:
                callback(code)
            elif self._announced:
                self._unclaimed[pid] = code
