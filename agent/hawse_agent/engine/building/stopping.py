"""The end of a build that nobody wants any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hawse_agent.errors import HawseError


class BuildStopped(HawseError):
    """Nobody waits for the build, or it was cancelled."""

    status = 499


class Stopping:
    """`stop` may be called from any thread, and ends what is under way; the build asks by `check` between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._ends: list[Callable[[], None]] = []

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            ends = list(self._ends)
        for end in ends:
            end()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def check(self) -> None:
        """Raises BuildStopped."""
        if self._stopped:
            raise BuildStopped("the build was cancelled")

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called by a stop while the block runs, which then raises BuildStopped."""
        with self._lock:
            self._ends.append(end)
        try:
            self.check()
            yield
        except Exception:
            self.check()  # that it was stopped says more than what came of it
            raise
        finally:
            with self._lock:
                self._ends.remove(end)
        self.check()
