"""Blobs by digest: `blobs/sha256/<hex>`, complete and verified or absent.

They are written to `incoming/` and appear by rename, so neither a crash nor a full disk leaves half of one
under its name. Nobody waits for the disk for each of them: `sync` does, before a record names them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from hawse_agent.distribution.documents import MAX_JSON, parse_json, sha256
from hawse_agent.errors import HostRefused, InputError, NotFound, OutOfSpace, ProtocolError
from hawse_agent.linux import files
from hawse_agent.paths import Paths

_PIECE = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@contextmanager
def disk(doing: str) -> Iterator[None]:
    """Errors of the disk, as what the caller does about them."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(
                f"{doing}: the disk is full", hint="remove containers, images or volumes, then run again"
            ) from error
        raise HostRefused(f"{doing}: {error.strerror or error}") from error


class BlobWriter:
    """Hashes what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def reopen(self) -> BinaryIO:
        """What was written so far and will be, to read meanwhile."""
        return open(f"/proc/self/fd/{self._file.fileno()}", "rb", buffering=0)

    def write(self, data: bytes) -> int:
        with disk("write a blob"):
            files.write_all(self._file.fileno(), data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)


class Blobs:
    def __init__(self, paths: Paths) -> None:
        self._directory = paths.blobs
        self._incoming = paths.incoming
        self._boot = paths.blobs.parent / "boot"
        self._lock = threading.Lock()
        self._unsynced: set[str] = set()

    def path(self, digest: str) -> Path:
        """Where the blob is or would be; raises InputError for anything but a sha256 digest."""
        if not _DIGEST.fullmatch(digest):
            raise InputError(f"not a digest (sha256:…): {digest!r}")
        return self._directory / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def missing(self, digests: Iterable[str]) -> list[str]:
        return [digest for digest in digests if not self.has(digest)]

    def size(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _no_blob(digest) from None

    def disk_usage(self, digest: str) -> int:
        """Bytes on the disk; 0 when it is not here."""
        try:
            return self.path(digest).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def open(self, digest: str) -> BinaryIO:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise _no_blob(digest) from None

    def read(self, digest: str) -> bytes:
        """A small blob: a manifest, a configuration. Verified again."""
        with self.open(digest) as file:
            data = file.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise InputError(f"{digest} is larger than any manifest or configuration: not an image")
        if (got := sha256(data)) != digest:
            self.delete(digest)
            raise damaged(digest, got)
        return data

    def read_json(self, digest: str) -> dict[str, Any]:
        return parse_json(self.read(digest), digest)

    @contextmanager
    def writer(self, digest: str | None = None, size: int | None = None) -> Iterator[BlobWriter]:
        """A blob to be written, kept under its digest when the block ends well.

        Raises ProtocolError when another `digest` or `size` came than was announced, OutOfSpace.
        """
        if digest is not None:
            self.path(digest)
        with disk("write a blob"):
            fd, name = tempfile.mkstemp(dir=self._incoming, prefix="blob-")
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                writer = BlobWriter(file)
                yield writer
                if size is not None and writer.size != size:
                    raise ProtocolError(f"{digest or 'a blob'} came with {writer.size} bytes, not {size}")
                if digest is not None and writer.digest != digest:
                    raise damaged(digest, writer.digest)
                self.keep(file, Path(name), writer.digest)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def keep(self, file: BinaryIO, path: Path, digest: str) -> None:
        """A whole and verified file becomes the blob. It survives a power cut from the next `sync` on."""
        with disk(f"keep {digest}"):
            os.fchmod(file.fileno(), 0o644)
            path.rename(self.path(digest))
            with self._lock:
                self._unsynced.add(digest)

    def sync(self, *, by: Callable[[], bool] = lambda: False) -> None:
        """Those that came before survive a power cut. `by` may bring everything to the disk, and says so."""
        with self._lock:
            fresh, self._unsynced = self._unsynced, set()
        try:
            with disk("keep blobs"):
                if not by() and fresh:
                    for path in map(self.path, fresh):
                        with suppress(FileNotFoundError):  # nobody named it, and it has gone
                            _sync(path, os.O_RDONLY)
                    _sync(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            with self._lock:
                self._unsynced |= fresh
            raise

    def sweep(self, wanted: Collection[str], limit: float) -> None:
        """Delete what nobody names and came before `limit`. What is younger may be waited for, but if the
        machine was started since, a power cut may have left its name without its bytes."""
        boot = _BOOT_ID.read_text()
        started = not self._boot.exists() or self._boot.read_text() != boot
        for digest, arrived in list(self.digests()):
            if digest in wanted:
                continue
            if arrived < limit or (started and not self._is_whole(digest)):
                self.delete(digest)
        if started:
            self._boot.write_text(boot)

    def _is_whole(self, digest: str) -> bool:
        try:
            self.verify(digest)
        except ProtocolError:
            return False
        return True

    def put(self, data: bytes) -> str:
        digest = sha256(data)
        if not self.has(digest):
            with self.writer(digest) as writer:
                writer.write(data)
        return digest

    def delete(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)

    def verify(self, digest: str) -> None:
        """Read it whole; a damaged blob is removed, and raises ProtocolError."""
        seen = hashlib.sha256()
        with self.open(digest) as file:
            while piece := file.read(_PIECE):
                seen.update(piece)
        if (got := f"sha256:{seen.hexdigest()}") != digest:
            self.delete(digest)
            raise damaged(digest, got)

    def digests(self) -> Iterator[tuple[str, float]]:
        """All of them, with the time of their arrival."""
        for entry in os.scandir(self._directory):
            yield f"sha256:{entry.name}", entry.stat().st_mtime


def _no_blob(digest: str) -> NotFound:
    return NotFound(f"no such blob on this host: {digest}", hint="send it, then commit the image again")


def damaged(digest: str, got: str) -> ProtocolError:
    return ProtocolError(
        f"blob {digest} is damaged: its digest is {got}; it was removed", hint="send or pull it again"
    )


def _sync(path: Path, flags: int) -> None:
    """Of a directory, too: only then a rename in it survives a power cut."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
