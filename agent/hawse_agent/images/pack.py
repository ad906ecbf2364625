"""Writes an overlay's upper directory as a layer's tar: the other way of `layers`.

A character device 0:0 becomes `.wh.NAME`, an opaque directory has `.wh..wh..opq` in it, before all else. The
same tree gives the same bytes: entries are sorted, owners are numbers, nothing of overlayfs's own attributes
is in it. The root has an entry as well, since a container may change its owner and mode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

from hawse_agent.errors import HostRefused
from hawse_agent.images.layers import OPAQUE, WHITEOUT, WHITEOUT_OPAQUE
from hawse_agent.images.tarball import END, TarWriter, header, xattrs_of

_PIECE = 1 << 20
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_LARGE_HOLES = 64 << 20
"""Below that holes are written as zeros, and unpacking makes holes again: what dockerd has loaded in GNU's
format it cannot save any more."""
_EMPTY = os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0))
"""A whiteout says one thing only. Its inode is shared and its time is of no meaning."""


class Packed:
    """Iterate over it for the tar, in pieces that are worth a write; the rest is known then.

    Raises HostRefused for a file whose name would be a whiteout, OSError.
    """

    def __init__(self, upper: Path) -> None:
        self._upper = upper
        self.content_size = 0
        """Bytes of the files in it."""
        self.left_out: list[str] = []
        """Why something is not in it as it was there: sockets, and what changed meanwhile."""

    def __iter__(self) -> Iterator[bytes]:
        writer = _LayerWriter(self.left_out)
        root = os.open(self._upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        gathered, size = list[bytes](), 0
        try:
            for piece in writer.layer(root):
                gathered.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    yield b"".join(gathered)
                    gathered, size = [], 0
        finally:
            os.close(root)
        self.content_size = writer.content_size
        yield b"".join((*gathered, END))


class _LayerWriter(TarWriter):
    def layer(self, root: int) -> Generator[bytes, None, None]:
        yield header(b"./", os.fstat(root), b"5", xattrs=self._xattrs(root))
        yield from self.directory(root, b"")

    def _inside(self, directory: int, prefix: bytes) -> Generator[bytes, None, list[str]]:
        if _is_opaque(directory):
            yield header(prefix + os.fsencode(WHITEOUT_OPAQUE), _EMPTY, b"0")
        return (yield from super()._inside(directory, prefix))

    def _open(self, directory: int, name: str, shown: str) -> int | None:
        if name.startswith(WHITEOUT):
            raise HostRefused(
                f"/{shown} cannot be in a layer: there, names with {WHITEOUT} say what was removed",
                hint="rename or remove the file",
            )
        return super()._open(directory, name, shown)

    def _entry(self, fd: int, name: bytes, status: os.stat_result) -> Iterator[bytes]:
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            above, slash, own = name.rpartition(b"/")
            yield header(above + slash + os.fsencode(WHITEOUT) + own, _EMPTY, b"0")
        else:
            yield from super()._entry(fd, name, status)

    def _xattrs(self, target: int | str) -> dict[str, bytes]:
        return {name: value for name, value in xattrs_of(target).items() if not name.startswith(_OVERLAY)}

    def _may_be_sparse(self, status: os.stat_result) -> bool:
        return status.st_size - status.st_blocks * 512 > _LARGE_HOLES


def _is_opaque(directory: int) -> bool:
    return xattrs_of(directory).get(OPAQUE) == b"y"
