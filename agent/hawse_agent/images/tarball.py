"""Writes an opened directory as a tar stream: pax headers with extended attributes (ACLs are such), hard
links, sparse files in GNU's format 1.0, numbers for owners; directories before what is in them.

The tree may be in use, by who is not trusted: no link is followed, nothing but a regular file is ever opened,
and what changes meanwhile becomes a warning. File systems of the kernel (/proc, /sys) are empty here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator

from hawse_agent.errors import HostRefused
from hawse_agent.linux import descent, files, tree
from hawse_agent.spec.records import IdRange

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_NAME = 1 << 16
"""Bytes of a directory's path: each of its files has them once more in the archive."""
_PIECE = 1 << 20
_MAX_OCTAL = 8**11
_MAX_ID = 8**7
_NO_XATTRS = (errno.ENOTSUP, errno.EOPNOTSUPP)
_CAPABILITY = "security.capability"
_LEFT_OUT = "security.selinux"
"""A label of this machine's policy."""
_LETTERS = {stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}


class TarWriter:
    """Entries of one archive, piece by piece; `END` is the caller's to write. OSError comes through."""

    def __init__(self, warnings: list[str], ids: IdRange | None = None) -> None:
        """`ids`: those of a container that counts its own; owners are written as it has them."""
        self._warnings = warnings
        self._ids = ids
        self._links: dict[tuple[int, int], bytes] = {}
        self.content_size = 0
        """Bytes of the files written so far, holes counted."""

    def directory(self, root: int, prefix: bytes) -> Generator[bytes, None, None]:
        """An opened directory with all that is in it. `prefix` is put before each name, and is the name of
        the directory itself, which has no entry when that is empty."""
        for place in descent.walk(root, lambda path: self._removed(os.fsdecode(prefix) + path)):
            below = os.fsencode(place.at.path)
            own = prefix + below if below else prefix
            if len(own) > MAX_NAME:
                shown = os.fsdecode(own[:60])
                raise HostRefused(f"{shown}…: a path of more than {MAX_NAME} bytes cannot be archived")
            if own:
                name = own if own.endswith(b"/") else own + b"/"
                status, xattrs = os.fstat(place.at.fd), self._xattrs(place.at.fd)
                yield header(name, status, b"5", xattrs=xattrs, ids=self._ids)
            place.below += yield from self._inside(place.at.fd, own + b"/" if below else own)

    def entry(self, fd: int, name: bytes) -> Generator[bytes, None, None]:
        """What an O_PATH fd stands for, and is no directory."""
        yield from self._entry(fd, name, os.fstat(fd))

    def _inside(self, directory: int, prefix: bytes) -> Generator[bytes, None, list[str]]:
        """Entries of a directory; returns the names of those below it that are directories themselves."""
        below: list[str] = []
        if files.is_of_the_kernel(directory):
            return below
        device = os.fstat(directory).st_dev
        for name in sorted(os.listdir(directory)):
            encoded = prefix + os.fsencode(name)
            fd = self._open(directory, name, os.fsdecode(encoded))
            if fd is None:
                continue
            try:
                status = os.fstat(fd)
                if stat.S_ISDIR(status.st_mode):
                    below.append(name)
                elif status.st_dev == device or not files.is_of_the_kernel(fd):
                    yield from self._entry(fd, encoded, status)
            finally:
                os.close(fd)
        return below

    def _open(self, directory: int, name: str, shown: str) -> int | None:
        """What the name stands for at this moment: it may be another thing at the next."""
        try:
            return os.open(name, tree.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            self._removed(shown)
            return None

    def _entry(self, fd: int, name: bytes, status: os.stat_result) -> Iterator[bytes]:
        kind = stat.S_IFMT(status.st_mode)
        itself = f"/proc/self/fd/{fd}"
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            # dockerd changes the owner of a link it makes, which costs the file its capabilities.
            kept = {_CAPABILITY: value} if (value := self._xattrs(itself).get(_CAPABILITY)) else None
            yield header(name, status, b"1", link=self._links[key], xattrs=kept, ids=self._ids)
            return
        if kind == stat.S_IFREG:
            opened = os.open(itself, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                yield from self._file(opened, name)
            finally:
                os.close(opened)
        elif kind == stat.S_IFSOCK:
            self._warnings.append(f"{os.fsdecode(name)}: socket ignored")
            return
        else:
            link = os.fsencode(os.readlink("", dir_fd=fd)) if kind == stat.S_IFLNK else b""
            yield header(name, status, _LETTERS[kind], link=link, xattrs=self._xattrs(itself), ids=self._ids)
        if status.st_nlink > 1:
            self._links[key] = name

    def _file(self, fd: int, name: bytes) -> Iterator[bytes]:
        status = os.fstat(fd)
        xattrs = self._xattrs(fd)
        self.content_size += status.st_size
        segments = [(0, status.st_size)]
        if self._may_be_sparse(status) and (found := segments_of(fd, status.st_size)) != segments:
            segments = found
            numbers = [len(segments), *(number for segment in segments for number in segment)]
            table = b"".join(b"%d\n" % number for number in numbers)
            table += bytes(-len(table) % BLOCK)
            stored = len(table) + sum(size for _, size in segments)
            yield header(name, status, b"0", size=stored, sparse=True, xattrs=xattrs, ids=self._ids)
            yield table
        else:
            yield header(name, status, b"0", size=status.st_size, xattrs=xattrs, ids=self._ids)
        stored = 0
        for offset, size in segments:
            yield from data_of(fd, offset, size)
            stored += size
        if stored % BLOCK:
            yield bytes(-stored % BLOCK)
        after = os.fstat(fd)
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            self._warnings.append(f"{os.fsdecode(name)}: file changed as we read it")

    def _xattrs(self, target: int | str) -> dict[str, bytes]:
        return xattrs_of(target)

    def _may_be_sparse(self, status: os.stat_result) -> bool:
        """Whether its holes are worth GNU's format."""
        return status.st_blocks * BLOCK < status.st_size

    def _removed(self, shown: str) -> None:
        self._warnings.append(f"{shown}: removed before it was read")


def gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """In pieces that are worth a write, with the end of the archive."""
    block, size = list[bytes](), 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join((*block, END))


def data_of(fd: int, offset: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes, since the header has promised them: zeros when the file became shorter."""
    end = offset + size
    while offset < end:
        data = os.pread(fd, min(_PIECE, end - offset), offset)
        if not data:
            data = bytes(min(_PIECE, end - offset))
        offset += len(data)
        yield data


def segments_of(fd: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of what is stored. The file may end in a hole: then an empty segment stands there."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < size:
            found.append((start, at - start))
    if at < size or not found:
        found.append((size, 0))
    return found


def xattrs_of(target: int | str) -> dict[str, bytes]:
    """Of an opened file, or of what a path in /proc/self/fd stands for, a link itself included."""
    found = {}
    try:
        for name in sorted(os.listxattr(target)):
            if name != _LEFT_OUT:
                found[name] = os.getxattr(target, name)
    except OSError as error:
        if error.errno not in (*_NO_XATTRS, errno.ENODATA):
            raise
    return found


def header(
    name: bytes,
    status: os.stat_result,
    letter: bytes,
    *,
    size: int = 0,
    link: bytes = b"",
    sparse: bool = False,
    xattrs: dict[str, bytes] | None = None,
    ids: IdRange | None = None,
) -> bytes:
    """One entry's header, with a pax header before it for what the old fields cannot hold."""
    records: list[tuple[bytes, bytes]] = []
    if sparse:
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % status.st_size),
        ]
        name = b"./GNUSparseFile.0/" + name.rpartition(b"/")[2]
    if len(name) > 100:
        records.append((b"path", name))
    if len(link) > 100:
        records.append((b"linkpath", link))
    seconds, fraction = divmod(status.st_mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds < _MAX_OCTAL:
        records.append((b"mtime", _decimal_time(status.st_mtime_ns)))
    uid, gid = status.st_uid, status.st_gid
    if ids is not None:
        uid, gid = ids.inside(uid), ids.inside(gid)
    for key, number, limit in (
        (b"uid", uid, _MAX_ID),
        (b"gid", gid, _MAX_ID),
        (b"size", size, _MAX_OCTAL),
    ):
        if number >= limit:
            records.append((key, b"%d" % number))
    for attribute, value in (xattrs or {}).items():
        records.append((b"SCHILY.xattr." + os.fsencode(attribute), value))
    device = status.st_rdev if letter in (b"3", b"4") else 0
    block = _block(
        name[:100],
        mode=stat.S_IMODE(status.st_mode),
        uid=uid if uid < _MAX_ID else 0,
        gid=gid if gid < _MAX_ID else 0,
        size=size if size < _MAX_OCTAL else 0,
        mtime=min(max(seconds, 0), _MAX_OCTAL - 1),
        letter=letter,
        link=link[:100],
        device=device,
    )
    if not records:
        return block
    data = b"".join(_record(key, value) for key, value in records)
    ahead = b"PaxHeaders/" + name.rstrip(b"/").rpartition(b"/")[2]
    pax = _block(ahead[:100], mode=0o644, uid=0, gid=0, size=len(data), mtime=0, letter=b"x")
    return pax + data + bytes(-len(data) % BLOCK) + block


def _block(
    name: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    letter: bytes,
    link: bytes = b"",
    device: int = 0,
) -> bytes:
    head = b"%-100b%07o\0%07o\0%07o\0%011o\0%011o\0" % (b"", mode, uid, gid, size, mtime)
    head = name.ljust(100, b"\0") + head[100:]
    tail = letter + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64)
    tail += b"%07o\0%07o\0" % (os.major(device), os.minor(device))
    tail = tail.ljust(BLOCK - 156, b"\0")
    total = sum(head) + 8 * 0x20 + sum(tail)
    return head + b"%06o\0 " % total + tail


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _decimal_time(ns: int) -> bytes:
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    return b"%b%d.%09d" % (sign, ns // 1_000_000_000, ns % 1_000_000_000)
