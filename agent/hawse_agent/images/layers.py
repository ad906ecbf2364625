"""Unpacks a layer's tar into a directory that overlayfs can stack.

The entries are untrusted: see `extract`. Whiteouts become what overlayfs knows: `.wh.NAME` a character device
0:0, `.wh..wh..opq` the xattr trusted.overlay.opaque.

A layer is complete or absent: the caller unpacks into a temporary directory and renames it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hawse_agent.errors import InputError, ProtocolError
from hawse_agent.images.compression import Readable, plain
from hawse_agent.images.extract import Extractor
from hawse_agent.images.tar import Entry, TarError, TarReader

OPAQUE = "trusted.overlay.opaque"
WHITEOUT = ".wh."
WHITEOUT_OPAQUE = ".wh..wh..opq"
_WHITEOUT_META = ".wh..wh."
"""aufs kept its own files under such names; Docker skips them."""


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    diff_id: str
    tar_size: int
    """Bytes of the uncompressed tar."""
    content_size: int
    """Bytes of its files: what Docker calls the size of a layer."""


def unpack(blob: Readable, directory: Path) -> Unpacked:
    """Unpack a layer, compressed or not, into an empty `directory`.

    Raises ProtocolError for damaged data, InputError for an entry that no layer may have, OSError.
    """
    source = _Hashed(plain(blob))
    reader = TarReader(source)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    extractor = LayerExtractor(root)
    try:
        for entry in reader:
            extractor.extract(entry, reader.data())
        extractor.finish()
        reader.drain()
    except (TarError, EOFError) as error:
        raise ProtocolError(f"{error}") from error
    finally:
        extractor.close()
        os.close(root)
    return Unpacked(diff_id=source.digest, tar_size=source.size, content_size=extractor.content_size)


def digest_plain(blob: Readable) -> tuple[str, int]:
    """The diff_id and the size of what is inside a blob, without unpacking it."""
    source = _Hashed(plain(blob))
    while source.read(1 << 20):
        pass
    return source.digest, source.size


class _Hashed:
    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
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
