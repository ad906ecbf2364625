"""Unpacks a layer's tar into a directory that overlayfs can stack.

The entries are untrusted: see `extract`. Whiteouts become what overlayfs knows: `.wh.NAME` a character device
0:0, `.wh..wh..opq` the xattr trusted.overlay.opaque.

A layer is complete or absent: the caller unpacks into a temporary directory and renames it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hawse_agent.errors import InputError, OutOfSpace, ProtocolError
from hawse_agent.images.compression import Ahead, Readable, plain
from hawse_agent.images.extract import Extractor
from hawse_agent.images.image import Layer
from hawse_agent.images.tar import Entry, TarError, TarReader

OPAQUE = "trusted.overlay.opaque"
WHITEOUT = ".wh."
WHITEOUT_OPAQUE = ".wh..wh..opq"
_WHITEOUT_META = ".wh..wh."
"""aufs kept its own files under such names; Docker skips them."""

_PIECE = 1 << 20
_SHOWN = 200
_LEFT_FREE = 256 << 20
_ENTRIES_BETWEEN_LOOKS = 4096
_OF_THE_ENTRY = frozenset(
    {
        *(errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.ENOTDIR),
        *(errno.EISDIR, errno.EEXIST, errno.EMLINK, errno.EOVERFLOW, errno.EOPNOTSUPP, errno.E2BIG),
        *(errno.ERANGE, errno.ENODATA, errno.ENOENT, errno.ENOTEMPTY, errno.EXDEV, errno.ENXIO),
    }
)
"""What the kernel says to what is asked for, and not of the state that the disk is in."""


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    diff_id: str
    tar_size: int
    """Bytes of the uncompressed tar."""
    content_size: int
    """Bytes of its files: what Docker calls the size of a layer."""


def unpack(
    blob: Readable, directory: Path, *, digest: Callable[[], str] | None = None, room: Room | None = None
) -> Unpacked:
    """Unpack a layer, compressed or not, into an empty `directory`.

    `digest` says the blob's own, once it has been read, when somebody computes that anyhow: then what is not
    compressed is not hashed again. Raises ProtocolError for damaged data, InputError for an entry that no
    layer may have, OutOfSpace before the disk is full, OSError.
    """
    inside = plain(blob)
    source = _Hashed(inside, known=digest if isinstance(inside, Ahead) else None)
    reader = TarReader(source)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    extractor = LayerExtractor(root)
    room = room or Room(root)
    try:
        for entry in reader:
            room.check(source.size)
            with _naming(entry):
                extractor.extract(entry, room.checked(reader.data(), source))
        extractor.finish()
        reader.drain()
    except (TarError, EOFError) as error:
        raise ProtocolError(f"{error}") from error
    finally:
        extractor.close()
        os.close(root)
    return Unpacked(diff_id=source.digest, tar_size=source.size, content_size=extractor.content_size)


@contextmanager
def _naming(entry: Entry) -> Iterator[None]:
    """What cannot be made of an entry, with its name."""
    try:
        yield
    except (OverflowError, ValueError) as error:
        shown = repr(entry.name[:_SHOWN])
        raise InputError(f"the entry {shown} has a number or text that no file has") from error
    except OSError as error:
        if error.errno not in _OF_THE_ENTRY:
            raise
        reason = os.strerror(error.errno or 0)
        raise InputError(f"the entry {entry.name[:_SHOWN]!r} cannot be made: {reason}") from error


class Room:
    """Looks now and then whether the disk has room, so that no layer fills it up for everybody else."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstatvfs(fd)
        self._every = min(64 << 20, max(1 << 20, status.f_bavail * status.f_frsize // 16))
        self._entries = 0
        self._next = self._every

    def check(self, size: int) -> None:
        """One more entry, and `size` bytes in all. Raises OutOfSpace."""
        self._entries += 1
        if size < self._next and self._entries % _ENTRIES_BETWEEN_LOOKS:
            return
        self._next = size + self._every
        status = os.fstatvfs(self._fd)
        left = status.f_bavail * status.f_frsize
        if left < min(_LEFT_FREE, status.f_blocks * status.f_frsize // 50) or (
            status.f_files and status.f_favail < status.f_files // 50
        ):
            raise OutOfSpace(
                f"the layer does not fit on the disk: after {size >> 20} MB and {self._entries} entries "
                f"{left >> 20} MB are left",
                hint="remove containers, images or volumes, then run again",
            )

    def checked(self, data: Iterator[bytes], source: _Hashed) -> Iterator[bytes]:
        for piece in data:
            if source.size >= self._next:
                self.check(source.size)
            yield piece


def inflate(blob: Readable, *, known: Layer) -> Unpacked:
    """What unpacking the blob of a layer would tell that is here already. Raises ProtocolError as soon as
    there is more inside than the layer has."""
    source = _Hashed(plain(blob))
    while source.read(_PIECE):
        if source.size > known.tar_size:
            raise ProtocolError(f"it holds more than the {known.tar_size} bytes of {known.diff_id}")
    return Unpacked(diff_id=source.digest, tar_size=source.size, content_size=known.content_size)


def digest_plain(blob: Readable) -> tuple[str, int]:
    """The diff_id and the size of what is inside a blob, without unpacking it."""
    source = _Hashed(plain(blob))
    while source.read(_PIECE):
        pass
    return source.digest, source.size


class _Hashed:
    def __init__(self, stream: Readable, *, known: Callable[[], str] | None = None) -> None:
        self._stream = stream
        self._known = known
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return self._known() if self._known else f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        if self._known is None:
            self._hash.update(data)
        self.size += len(data)
        return data


class LayerExtractor(Extractor):
    """With whiteouts, and the root's own attributes."""

    def __init__(self, root: int) -> None:
        super().__init__(root, what="the layer")

    def _top(self, entry: Entry) -> None:
        super()._top(entry)
        self._set(self._root, entry)
        self._times[""] = entry.mtime_ns

    def _took_place(self, directory: int, of: os.stat_result) -> None:
        """`.wh.x` before `x/`: the directory hides the lower one whole."""
        if stat.S_ISCHR(of.st_mode) and of.st_rdev == 0:
            os.setxattr(directory, OPAQUE, b"y")

    def _is_special(self, parent: int, name: str, entry: Entry) -> bool:
        if not name.startswith(WHITEOUT):
            return False
        if name == WHITEOUT_OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent}", OPAQUE, b"y")  # an O_PATH fd itself is not taken
        elif not name.startswith(_WHITEOUT_META):
            self._whiteout(parent, name.removeprefix(WHITEOUT), entry)
        return True

    def _whiteout(self, parent: int, hidden: str, entry: Entry) -> None:
        if hidden in ("", ".", ".."):
            raise InputError(f"the layer has an invalid whiteout: {entry.name!r}")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # A whiteout hides what lower layers have, never what this layer has, whichever comes first.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                os.setxattr(f"/proc/self/fd/{parent}/{hidden}", OPAQUE, b"y", follow_symlinks=False)
