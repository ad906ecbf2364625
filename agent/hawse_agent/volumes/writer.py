"""A directory as a tar stream: by GNU tar where the host has it, by our own writer elsewhere.

Both write pax headers, extended attributes (ACLs are such), hard links, sparse files in GNU's format 1.0 and
numbers for owners, names beginning with `./`, directories before what is in them. The directory may be in
use, by who is not trusted: no link is ever followed, and what changes meanwhile becomes a warning.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path

from hawse_agent.errors import HostRefused
from hawse_agent.images.compression import Readable
from hawse_agent.linux import tree
from hawse_agent.volumes.store import refused

BLOCK = 512
_PIECE = 1 << 20
_END = bytes(2 * BLOCK)
_MAX_OCTAL = 8**11
_MAX_ID = 8**7
_NO_XATTRS = (errno.ENOTSUP, errno.EOPNOTSUPP)
_LEFT_OUT = "security.selinux"
"""A label of this machine's policy."""


def open_tar(directory: Path, warnings: list[str]) -> AbstractContextManager[Readable]:
    """The tar of `directory`. `warnings` is complete when the context is left. Raises HostRefused."""
    program = gnu_tar()
    return _by_gnu_tar(program, directory, warnings) if program else _by_python(directory, warnings)


@cache
def gnu_tar() -> str:
    """Path of GNU tar; "" where the host has none (busybox and bsdtar are others)."""
    program = shutil.which("tar") or ""
    if not program:
        return ""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return program if answer.stdout.startswith("tar (GNU tar)") else ""


@contextmanager
def _by_gnu_tar(program: str, directory: Path, warnings: list[str]) -> Iterator[Readable]:
    argv = [
        program,
        *("--create", "--file=-", "--format=pax", "--numeric-owner", "--sort=name"),
        *("--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"),
        f"--xattrs-exclude={_LEFT_OUT}",
        # Times of access and change only fill headers: nothing can restore them.
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        *("--directory", str(directory), "."),
    ]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    told = threading.Thread(
        target=_collect, args=(process.stderr, f"{program}: ", lines), name="tar", daemon=True
    )
    told.start()
    try:
        yield process.stdout
    except BaseException:
        process.kill()
        raise
    finally:
        process.stdout.close()
        process.wait()
        told.join()
        process.stderr.close()
    if process.returncode not in (0, 1):  # 1: files changed while they were read
        raise HostRefused(f"tar: {'; '.join(lines[:3]) or f'ended with {process.returncode}'}")
    warnings += lines


def _collect(stream: Iterable[bytes], prefix: str, lines: list[str]) -> None:
    for line in stream:
        lines.append(os.fsdecode(line).strip().removeprefix(prefix))


@contextmanager
def _by_python(directory: Path, warnings: list[str]) -> Iterator[Readable]:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with closing(TarWriter(root, warnings).pieces()) as pieces:
            yield _Pieces(pieces)
    finally:
        os.close(root)


class _Pieces:
    """What an iterator gives, to be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    def read(self, size: int, /) -> bytes:
        if not self._buffer:
            parts, length = [], 0
            with refused("read the volume"):
                for piece in self._pieces:
                    parts.append(piece)
                    length += len(piece)
                    if length >= size:
                        break
            self._buffer = b"".join(parts)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


class TarWriter:
    """The tar of an opened directory, piece by piece."""

    def __init__(self, root: int, warnings: list[str]) -> None:
        self._root = root
        self._warnings = warnings
        self._links: dict[tuple[int, int], bytes] = {}

    def pieces(self) -> Generator[bytes, None, None]:
        pending = [""]
        while pending:
            path = pending.pop()
            try:
                fd = tree.open_in(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                self._warnings.append(f".{path}: removed before it was read")
                continue
            try:
                yield _header(
                    f".{path}/".encode(errors="surrogateescape"), os.fstat(fd), b"5", xattrs=_xattrs(fd)
                )
                below = []
                for name in sorted(os.listdir(fd)):
                    status = self._status(fd, name, f"{path}/{name}")
                    if status is None:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        below.append(f"{path}/{name}")
                    else:
                        yield from self._entry(fd, name, f".{path}/{name}", status)
            finally:
                os.close(fd)
            pending += reversed(below)
        yield _END

    def _status(self, fd: int, name: str, path: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            self._warnings.append(f".{path}: removed before it was read")
            return None

    def _entry(self, fd: int, name: str, path: str, status: os.stat_result) -> Iterator[bytes]:
        encoded = os.fsencode(path)
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            yield _header(encoded, status, b"1", link=self._links[key])
            return
        mode = status.st_mode
        xattrs: dict[str, bytes] = {}
        try:
            if stat.S_ISREG(mode):
                opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
                try:
                    yield from self._file(opened, encoded, path)
                finally:
                    os.close(opened)
            elif stat.S_ISSOCK(mode):
                self._warnings.append(f"{path}: socket ignored")
                return
            else:
                link = os.fsencode(os.readlink(name, dir_fd=fd)) if stat.S_ISLNK(mode) else b""
                xattrs = _xattrs(f"/proc/self/fd/{fd}/{name}")
                letter = {stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}
                yield _header(encoded, status, letter[stat.S_IFMT(mode)], link=link, xattrs=xattrs)
        except FileNotFoundError:
            self._warnings.append(f"{path}: removed before it was read")
            return
        if status.st_nlink > 1:
            self._links[key] = encoded

    def _file(self, fd: int, encoded: bytes, path: str) -> Iterator[bytes]:
        status = os.fstat(fd)
        xattrs = _xattrs(fd)
        segments = [(0, status.st_size)]
        if status.st_blocks * BLOCK < status.st_size and (found := _segments(fd, status.st_size)) != segments:
            segments = found
            numbers = [len(segments), *(number for segment in segments for number in segment)]
            table = b"".join(b"%d\n" % number for number in numbers)
            table += bytes(-len(table) % BLOCK)
            stored = len(table) + sum(size for _, size in segments)
            yield _header(encoded, status, b"0", size=stored, sparse=True, xattrs=xattrs)
            yield table
        else:
            yield _header(encoded, status, b"0", size=status.st_size, xattrs=xattrs)
        stored = 0
        for offset, size in segments:
            yield from self._data(fd, offset, size, path)
            stored += size
        if stored % BLOCK:
            yield bytes(-stored % BLOCK)
        after = os.fstat(fd)
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            self._warnings.append(f"{path}: file changed as we read it")

    def _data(self, fd: int, offset: int, size: int, path: str) -> Iterator[bytes]:
        """Exactly `size` bytes, since the header has promised them: zeros when the file became shorter."""
        end = offset + size
        while offset < end:
            data = os.pread(fd, min(_PIECE, end - offset), offset)
            if not data:
                data = bytes(min(_PIECE, end - offset))
            offset += len(data)
            yield data


def _segments(fd: int, size: int) -> list[tuple[int, int]]:
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


def _xattrs(target: int | str) -> dict[str, bytes]:
    follow = isinstance(target, int)
    found = {}
    try:
        for name in sorted(os.listxattr(target, follow_symlinks=follow)):
            if name != _LEFT_OUT:
                found[name] = os.getxattr(target, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (*_NO_XATTRS, errno.ENODATA):
            raise
    return found


def _header(
    name: bytes,
    status: os.stat_result,
    letter: bytes,
    *,
    size: int = 0,
    link: bytes = b"",
    sparse: bool = False,
    xattrs: dict[str, bytes] | None = None,
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
    for key, number, limit in (
        (b"uid", status.st_uid, _MAX_ID),
        (b"gid", status.st_gid, _MAX_ID),
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
        uid=status.st_uid if status.st_uid < _MAX_ID else 0,
        gid=status.st_gid if status.st_gid < _MAX_ID else 0,
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
