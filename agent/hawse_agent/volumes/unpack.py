"""Unpacks a backup into an empty directory that nobody else sees, each name once.

Every path is resolved below that directory, links included. A name that comes twice, that leads out or whose
directory did not come before it is refused: no backup of ours has such.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hawse_agent.errors import HostRefused, InputError
from hawse_agent.images.tar import Entry
from hawse_agent.linux import tree

_KINDS = {"character": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 64


def clean(name: str) -> str:
    """Without `./` and a last slash; the top is "". Raises InputError for a name that leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InputError(f"the backup has an entry that leads out of the volume: {name!r}")
    return "/".join(parts)


def content_digest(entry: Entry, data: Iterator[bytes]) -> str:
    """SHA-256 of a file's content; of a sparse file, of its stored parts with their places."""
    digest = hashlib.sha256()
    if entry.segments is not None:
        digest.update(repr((entry.size, entry.segments)).encode())
    for piece in data:
        digest.update(piece)
    return digest.hexdigest()


class Unpacker:
    def __init__(self, directory: Path) -> None:
        self._root = os.open(directory, _DIRECTORY)
        self._parents: dict[str, int] = {}
        self._times: dict[str, int] = {}

    def add(self, entry: Entry, data: Iterator[bytes]) -> str:
        """Make one entry; returns the digest of its content. Raises InputError, HostRefused, OSError."""
        path = clean(entry.name)
        parent_path, _, name = path.rpartition("/")
        try:
            if not name:
                self._directory(os.dup(self._root), "", entry)
                return ""
            parent = self._parent(parent_path)
            match entry.kind:
                case "file":
                    return self._file(parent, name, entry, data)
                case "directory":
                    os.mkdir(name, 0o700, dir_fd=parent)
                    self._directory(os.open(name, _DIRECTORY, dir_fd=parent), path, entry)
                case "hardlink":
                    self._hardlink(parent, name, entry)
                case "symlink":
                    os.symlink(entry.link, name, dir_fd=parent)
                    self._by_name(parent, name, entry)
                case "character" | "block" | "fifo":
                    os.mknod(name, _KINDS[entry.kind] | 0o600, entry.device, dir_fd=parent)
                    self._by_name(parent, name, entry)
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"the backup has an entry in a wrong place: {entry.name!r}: {error}") from error
        return ""

    def finish(self) -> None:
        """Directories get their times when everything is in them."""
        for path, mtime in self._times.items():
            fd = tree.open_in(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    def close(self) -> None:
        for fd in (*self._parents.values(), self._root):
            os.close(fd)

    def _parent(self, path: str) -> int:
        if not path:
            return self._root
        fd = self._parents.get(path)
        if fd is None:
            if len(self._parents) >= _OPEN_DIRECTORIES:
                os.close(self._parents.pop(next(iter(self._parents))))
            fd = self._parents[path] = tree.open_in(self._root, path, os.O_PATH | os.O_DIRECTORY)
        return fd

    def _file(self, parent: int, name: str, entry: Entry, data: Iterator[bytes]) -> str:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            if entry.segments is not None:
                os.ftruncate(fd, entry.size)
            digest = content_digest(entry, _written(fd, entry, data))
            _set(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        return digest

    def _directory(self, fd: int, path: str, entry: Entry) -> None:
        try:
            if entry.kind != "directory":
                raise InputError(f"the backup has an entry without a name: {entry.name!r}")
            _set(fd, entry)
        finally:
            os.close(fd)
        self._times[path] = entry.mtime_ns

    def _hardlink(self, parent: int, name: str, entry: Entry) -> None:
        above, _, target = clean(entry.link).rpartition("/")
        source = tree.open_in(self._root, above, os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _by_name(self, parent: int, name: str, entry: Entry) -> None:
        """For what cannot be opened without effect: links, devices, fifos."""
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != "symlink":
            os.chmod(name, entry.mode, dir_fd=parent)  # made just now: no link
        _set_xattrs(f"/proc/self/fd/{parent}/{name}", entry)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _written(fd: int, entry: Entry, data: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, once each is written to its place."""
    segments = iter(entry.segments or ())
    offset, left = (0, entry.size) if entry.segments is None else (0, 0)
    for piece in data:
        at = 0
        while at < len(piece):
            while not left:
                offset, left = next(segments)
            part = memoryview(piece)[at : at + left]
            count = os.pwrite(fd, part, offset)
            at, offset, left = at + count, offset + count, left - count
        yield piece


def _set(fd: int, entry: Entry) -> None:
    """Owner before mode, since a change of owner drops setuid; then attributes, which hold capabilities."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    _set_xattrs(fd, entry)


def _set_xattrs(target: int | str, entry: Entry) -> None:
    for name, value in entry.xattrs.items():
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            raise HostRefused(f"cannot set the attribute {name} of {entry.name}: {error.strerror}") from error
