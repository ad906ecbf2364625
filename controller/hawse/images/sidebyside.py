"""Blobs that go from or to a registry some at a time, and what is told of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.distribution.registry import Repository
from hawse_agent.errors import HostRefused

Progress = Callable[[dict[str, Any]], None]
"""Hears what Docker's clients show."""

_PROGRESS_SECONDS = 0.2


class Transfer:
    """Of many blobs, between which nothing is shared but the listener and the wish to stop."""

    def __init__(self, repository: Repository, progress: Progress) -> None:
        self._repository = repository
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = False
        self._told: dict[str, float] = {}

    def tell(self, blob: Descriptor, status: str, **detail: int) -> None:
        with self._lock:
            self._progress({"status": status, "progressDetail": detail, "id": blob.digest[7:19]})

    def moved(self, blob: Descriptor, status: str, current: int) -> None:
        """Some more of it, which is told now and then. Raises HostRefused once all shall stop."""
        if self._stopped:
            raise HostRefused("the transfer was stopped")
        now = time.monotonic()
        if now - self._told.get(blob.digest, 0.0) > _PROGRESS_SECONDS:
            self._told[blob.digest] = now
            self.tell(blob, status, current=current, total=blob.size)

    def run(self, move: Callable[[Descriptor], None], blobs: Sequence[Descriptor], parallel: int) -> None:
        """The first failure stops all, and is raised."""
        with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="blob") as pool:
            futures = [pool.submit(move, blob) for blob in blobs]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:  # Ctrl-C, too
                self._stopped = True
                self._repository.stop()
                pool.shutdown(cancel_futures=True)
                raise
