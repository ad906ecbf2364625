"""One at a time for each key: who comes second to the same layer waits, and then finds it done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        with self._lock:
            lock, waiting = self._waiting.get(key, (threading.Lock(), 0))
            self._waiting[key] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._waiting[key]
                if waiting == 1:
                    del self._waiting[key]
                else:
                    self._waiting[key] = (lock, waiting - 1)
