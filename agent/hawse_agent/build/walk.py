"""Files that are to be put into an image, as entries of a tar would be, and the digest of their content.

Of an opened directory that nobody else changes: the context as it was received, the root of a stage or an
image.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from hawse_agent.images.tar import Entry, Kind
from hawse_agent.images.tarball import data_of, segments_of, xattrs_of
from hawse_agent.linux import tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


@dataclass(frozen=True, kw_only=True)
class Found:
    entry: Entry
    data: Iterator[bytes]
    """Of a file: the stored parts, as `entry.segments` has them."""


def walk(root: int, path: str) -> Iterator[Found]:
    """What is in the directory at `path`, sorted, parents first, names relative to it; or the one entry of
    what is no directory, by its own name. Links in the path are followed inside the root. Sockets are left
    out."""
    fd = tree.open_in(root, path)
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            opened = os.open(".", _DIRECTORY, dir_fd=fd)
            try:
                yield from _inside(opened, "", {})
            finally:
                os.close(opened)
        elif not stat.S_ISSOCK(status.st_mode):
            name = tree.follow(root, path).rpartition("/")[2]
            yield from _found(fd, name, status, None)
    finally:
        os.close(fd)


def _inside(directory: int, prefix: str, links: dict[tuple[int, int], str]) -> Iterator[Found]:
    for name in sorted(os.listdir(directory)):
        path = f"{prefix}{name}"
        fd = os.open(name, tree.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        try:
            status = os.fstat(fd)
            if stat.S_ISSOCK(status.st_mode):
                continue
            link = None
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                link = links.setdefault((status.st_dev, status.st_ino), path)
            yield from _found(fd, path, status, None if link == path else link)
            if stat.S_ISDIR(status.st_mode):
                opened = os.open(".", _DIRECTORY, dir_fd=fd)
                try:
                    yield from _inside(opened, f"{path}/", links)
                finally:
                    os.close(opened)
        finally:
            os.close(fd)


def _found(fd: int, name: str, status: os.stat_result, link: str | None) -> Iterator[Found]:
    kind = "hardlink" if link is not None else _KINDS[stat.S_IFMT(status.st_mode)]
    itself = f"/proc/self/fd/{fd}"
    entry = Entry(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == "file" else 0,
        mtime_ns=status.st_mtime_ns,
        link=link or (os.readlink("", dir_fd=fd) if kind == "symlink" else ""),
        device=status.st_rdev if kind in ("character", "block") else 0,
        xattrs={} if kind == "hardlink" else xattrs_of(itself),
    )
    if kind != "file":
        yield Found(entry=entry, data=iter(()))
        return
    opened = os.open(itself, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [(0, status.st_size)]
        if (
            status.st_blocks * 512 < status.st_size
            and (stored := segments_of(opened, status.st_size)) != parts
        ):
            entry.segments = parts = stored
        yield Found(entry=entry, data=_read(opened, parts))
    finally:
        os.close(opened)


def _read(fd: int, parts: list[tuple[int, int]]) -> Iterator[bytes]:
    for offset, size in parts:
        yield from data_of(fd, offset, size)


def digest(
    found: Iterable[Found],
    *,
    owners: bool,
    known: Mapping[str, bytes] | None = None,
    below: str = "",
    check: Callable[[], None] = lambda: None,
) -> str:
    """Hex of a SHA-256 over names, kinds, modes, links, xattrs and data; not over times. `owners`:
    theirs, too. `known`: SHA-256 of the data of files, by path; `below` is put before names for it. `check`
    is called between, and may raise: a hole of some hundred gigabytes takes as long as data."""
    total = hashlib.sha256()
    for one in found:
        check()
        entry = one.entry
        head = [
            *(entry.name, entry.kind, entry.mode, entry.size, entry.link, entry.device),
            {name: value.hex() for name, value in sorted(entry.xattrs.items())},
            (entry.uid, entry.gid) if owners else None,
        ]
        total.update(json.dumps(head).encode())
        data = known.get(f"{below}{entry.name}") if known and entry.kind == "file" else None
        total.update(_data_digest(entry, one.data, check) if data is None else data)
    return total.hexdigest()


def _data_digest(entry: Entry, data: Iterator[bytes], check: Callable[[], None]) -> bytes:
    """The same whether holes are stored or not."""
    own = hashlib.sha256()
    if entry.segments is None:
        for piece in data:
            check()
            own.update(piece)
        return own.digest()
    at = 0
    for offset, size in entry.segments:
        _zeros(own, offset - at, check)
        left = size
        while left:
            check()
            piece = next(data)
            own.update(piece)
            left -= len(piece)
        at = offset + size
    _zeros(own, entry.size - at, check)
    return own.digest()


def _zeros(own: hashlib._Hash, count: int, check: Callable[[], None]) -> None:
    piece = bytes(min(count, 1 << 16))
    while count > 0:
        check()
        own.update(piece[:count])
        count -= len(piece)
