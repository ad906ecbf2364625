"""Blobs that have come in part: `partial/<hex>` holds what came until the rest follows, or a day has passed.

    offset   how much of a blob is here, once nobody is sending it any more
    writer   the rest of it; whole and verified it becomes a blob

One sender at a time for each blob. Others wait for it, as long as bytes come; when none has come for a while
its connection counts as dead, and the next one goes on from where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hawse_agent.errors import Conflict, OutOfSpace, ProtocolError
from hawse_agent.images.blobs import Blobs, damaged, disk
from hawse_agent.linux import files
from hawse_agent.paths import Paths

STALL = 15.0
"""Seconds without a byte after which a sender is no longer waited for."""
_KEPT_SECONDS = 24 * 3600.0
_PIECE = 1 << 20


class PartialWriter:
    """The end of a blob. `write` raises Conflict once another sender has taken over."""

    def __init__(self, file: BinaryIO, hash: hashlib._Hash, size: int, clock: Callable[[], float]) -> None:
        self.size = size
        self._file = file
        self._hash = hash
        self._clock = clock
        self._lock = threading.Lock()
        self._superseded = False
        self.heard = clock()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> None:
        with self._lock:
            if self._superseded:
                raise Conflict("another sender has taken over this blob")
            with disk("write a blob"):
                files.write_all(self._file.fileno(), data)
            self.heard = self._clock()
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> None:
        """All has come: nobody takes over any more, however long the disk may take."""
        with self._lock:
            if self._superseded:
                raise Conflict("another sender has taken over this blob")
            self.heard = float("inf")

    def supersede(self) -> bool:
        """From now on it writes nothing; False for one that has finished."""
        with self._lock:
            self._superseded = self.heard != float("inf")
            return self._superseded


class Partials:
    """One per daemon."""

    def __init__(self, paths: Paths, blobs: Blobs, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = paths.partial
        self._blobs = blobs
        self._clock = clock
        self._changed = threading.Condition()
        self._active: dict[str, PartialWriter | None] = {}
        """None while a sender is just beginning."""
        with disk(f"clear {self._directory}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            limit = time.time() - _KEPT_SECONDS
            for path in self._directory.iterdir():
                if path.stat().st_mtime < limit:
                    path.unlink()

    def offset(self, digest: str) -> int | None:
        """Bytes of the blob that are here; None when it is whole. Waits while somebody sends it."""
        path = self._directory / self._blobs.path(digest).name
        with self._changed:
            self._wait_for(digest)
        if self._blobs.has(digest):
            return None
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def open(self, digest: str) -> BinaryIO:
        """What is here of a blob, for whoever has begun to write it: to be read meanwhile."""
        with disk("read a blob"):
            return (self._directory / self._blobs.path(digest).name).open("rb", buffering=0)

    @contextmanager
    def writer(self, digest: str, offset: int = 0, size: int | None = None) -> Iterator[PartialWriter]:
        """What follows after `offset` bytes; when the block ends well the blob must be whole.

        `size` is the blob's. What came is kept when the block fails, unless the disk is full or the bytes are
        wrong. Raises Conflict when less than `offset` is here or another sender is at it, ProtocolError for
        wrong bytes, OutOfSpace.
        """
        path = self._directory / self._blobs.path(digest).name
        self._claim(digest)
        writer: PartialWriter | None = None
        try:
            with disk("write a blob"):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "r+b", buffering=0) as file:
                writer = PartialWriter(file, _begun(file, offset, digest), offset, self._clock)
                with self._changed:
                    self._active[digest] = writer
                yield writer
                if size is not None and writer.size < size:
                    raise ProtocolError(f"{digest} came with {writer.size} bytes, not {size}")
                writer.finish()
                if writer.digest != digest:
                    path.unlink()
                    raise damaged(digest, writer.digest)
                self._blobs.keep(file, path, digest)
        except OutOfSpace:
            path.unlink(missing_ok=True)
            raise
        finally:
            with self._changed:
                if self._active.get(digest) is writer:
                    del self._active[digest]
                    self._changed.notify_all()

    def _claim(self, digest: str) -> None:
        with self._changed:
            if digest in self._active:
                raise Conflict(f"{digest} is being sent by another", hint="ask for its offset, which waits")
            self._active[digest] = None

    def _wait_for(self, digest: str) -> None:
        while digest in self._active:
            writer = self._active[digest]
            left = STALL if writer is None else writer.heard + STALL - self._clock()
            if left > 0:
                self._changed.wait(min(left, STALL))
                continue
            if writer is not None and writer.supersede():
                del self._active[digest]


def _begun(file: BinaryIO, offset: int, digest: str) -> hashlib._Hash:
    """The digest of the first `offset` bytes; the file goes on from there."""
    seen, left = hashlib.sha256(), offset
    with disk("write a blob"):
        if os.fstat(file.fileno()).st_size < offset:
            raise Conflict(f"less than {offset} bytes of {digest} are here", hint="ask for its offset")
        os.ftruncate(file.fileno(), offset)
        while left and (piece := file.read(min(_PIECE, left))):
            seen.update(piece)
            left -= len(piece)
    return seen
