"""Blobs that are read while they arrive: one download of each, however many want it.

Whoever asks first leads: it downloads into the store's partial file. Everybody, the leader too, reads that
file as far as it has come; the disk is the buffer, so a slow reader holds up nobody and no memory. What was
read counts only when `wait` returns: then the blob is whole and verified.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hawse_agent.distribution.cancel import Cancel
from hawse_agent.errors import HawseError

Heard = Callable[[int], None]
"""Is told how many bytes have come."""


class Abandoned(HawseError):
    """Who led the download has given up, for a reason of its own: the next one may lead."""


class Arriving:
    """One blob, from the first byte to the last."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._file: BinaryIO | None = None
        """What the leader writes to, until it is whole or given up."""
        self._blob: Callable[[], BinaryIO] | None = None
        """Opens it once it is whole."""
        self._here = 0
        self._error: BaseException | None = None
        self._listeners: list[Heard] = []

    # what the leader says

    def begun(self, file: BinaryIO, offset: int) -> None:
        """`file` is where it is written to, of which this much is there already. It is closed by the end."""
        with self._changed:
            self._close()
            self._file = file
        self.advance(offset)

    def advance(self, here: int) -> None:
        with self._changed:
            self._here = here
            listeners = list(self._listeners)
            self._changed.notify_all()
        for listener in listeners:
            listener(here)

    def finish(self, blob: Callable[[], BinaryIO]) -> None:
        """It is whole, verified, and opened by `blob`."""
        with self._changed:
            self._here, self._blob = self.size, blob
            self._close()
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._close()
            self._changed.notify_all()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # what readers do

    @property
    def whole(self) -> bool:
        with self._changed:
            return self._blob is not None

    @contextmanager
    def listening(self, heard: Heard) -> Iterator[None]:
        with self._changed:
            self._listeners.append(heard)
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(heard)

    def wait(self, cancel: Cancel) -> None:
        """Until it is whole and verified; raises what has gone wrong, Stopped."""
        with cancel.calling(self._wake), self._changed:
            self._changed.wait_for(lambda: self._blob is not None or self._error is not None or cancel.said)
            self._check(cancel)

    @contextmanager
    def reader(self, cancel: Cancel) -> Iterator[Reader]:
        """Raises what has gone wrong, here and in the middle of it; Stopped."""
        with cancel.calling(self._wake):
            fd = self._opened(cancel)
            try:
                yield Reader(self, fd, cancel)
            finally:
                os.close(fd)

    def _opened(self, cancel: Cancel) -> int:
        """A descriptor of the reader's own."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._file is not None or self._blob is not None or self._error is not None or cancel.said
                )
            )
            self._check(cancel)
            if self._file is not None:
                return os.dup(self._file.fileno())
            assert self._blob is not None
            with self._blob() as file:
                return os.dup(file.fileno())

    def reaches(self, position: int) -> bool:
        """Whether there is something to be read from there on, or nothing more to come."""
        with self._changed:
            return self._here > position or self._here >= self.size

    def available(self, position: int, cancel: Cancel) -> int:
        """Bytes that may be read from there, once there are some; 0 at the end."""
        with self._changed:
            if self._here <= position < self.size:
                self._changed.wait_for(
                    lambda: self._here > position or self._error is not None or cancel.said
                )
            self._check(cancel)
            return self._here - position

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _check(self, cancel: Cancel) -> None:
        cancel.check()
        if self._error is not None:
            raise self._error


class Reader:
    """A file that grows, up to its end."""

    def __init__(self, arriving: Arriving, fd: int, cancel: Cancel) -> None:
        self._arriving = arriving
        self._fd = fd
        self._cancel = cancel
        self.position = 0

    @property
    def ready(self) -> bool:
        """Whether `read` gives something at once."""
        return self._arriving.reaches(self.position)

    def wait(self) -> None:
        """Until it does."""
        self._arriving.available(self.position, self._cancel)

    def read(self, size: int, /) -> bytes:
        here = self._arriving.available(self.position, self._cancel)
        data = os.pread(self._fd, min(size, here), self.position)
        self.position += len(data)
        return data


class Arrivals:
    """All that is on its way to one store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, Arriving] = {}

    def join(self, digest: str, size: int) -> tuple[Arriving, bool]:
        """And whether the caller leads it, and so must have it end: by `leave`."""
        with self._lock:
            if (arriving := self._under_way.get(digest)) is not None:
                return arriving, False
            arriving = self._under_way[digest] = Arriving(size)
            return arriving, True

    def leave(self, digest: str) -> None:
        """Who asks from now on begins anew, or finds the blob."""
        with self._lock:
            del self._under_way[digest]
