"""Somebody does not want it any more: said once, heard by everything that goes on for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hawse_agent.errors import HostRefused


class Stopped(HostRefused):
    """Whoever wanted it does not want it any more."""


class Cancel:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def __call__(self) -> None:
        """From any thread."""
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @property
    def said(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        if self.said:
            raise Stopped("stopped: nobody waits for it any more")

    def pause(self, seconds: float) -> None:
        """Raises Stopped as soon as it is cancelled."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """While the block runs this is called when it is cancelled; at once when it has been already."""
        with self._lock:
            self._callbacks.append(callback)
        try:
            if self.said:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)
