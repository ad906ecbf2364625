"""Paths of an untrusted directory tree, opened without ever leaving it.

`openat2` resolves a path as if the tree's root were `/`; missing components are made one by one under opened
directories. Refuses magic links, and paths that climb out simply stop at the root.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat

from hawse_agent.errors import InputError
from hawse_agent.linux import libc

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10
O_PATH = os.O_PATH | os.O_CLOEXEC

_MAX_LINKS = 40
_TRIES = 100
_MAX_PATH = 4096
_MAX_OPEN = 512
"""Directories that are opened at once to make what is missing of a path."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in(root_fd: int, path: str, flags: int = O_PATH, *, links: bool = True) -> int:
    """Open `path` below `root_fd`; links are followed inside the tree only, or not at all (ELOOP); of a path
    that is longer than the kernel takes only in its beginning. Returns an owned fd."""
    first, *others = _openable(path)
    fd = _open(root_fd, first, O_PATH | os.O_DIRECTORY if others else flags, links=links)
    while others:
        part = others.pop(0)
        try:
            below = _open(fd, part, O_PATH | os.O_DIRECTORY if others else flags, links=False)
        finally:
            os.close(fd)
        fd = below
    return fd


def _openable(path: str) -> list[bytes]:
    """The parts of a path that the kernel takes; `..` in one of several would not stop at the root."""
    try:
        rest = os.fsencode(path) or b"."
    except UnicodeEncodeError:  # half a character, from JSON
        raise OSError(errno.EINVAL, f"{path!r}: {os.strerror(errno.EINVAL)}") from None
    parts = []
    while len(rest) >= _MAX_PATH:
        end = rest.rfind(b"/", 1, _MAX_PATH)
        if end < 0 or b".." in rest.split(b"/"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{path[:100]}…")
        parts.append(rest[:end])
        rest = rest[end:].lstrip(b"/")
    return [*parts, rest or b"."]


def _open(root_fd: int, name: bytes, flags: int, *, links: bool) -> int:
    resolve = RESOLVE_IN_ROOT | (RESOLVE_NO_MAGICLINKS if links else RESOLVE_NO_SYMLINKS)
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=resolve)
    shown = os.fsdecode(name)
    for _ in range(_TRIES):
        try:
            return libc.syscall("openat2", root_fd, name, how, ctypes.sizeof(how), what=shown)
        except OSError as error:
            # EAGAIN: a rename somewhere on the machine raced with a `..`; the kernel asks to try again.
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
    raise OSError(errno.EAGAIN, f"{shown}: keeps changing while it is opened")


def open_absolute(path: str, flags: int = O_PATH) -> int:
    """`open_in` this process's own root. Owned fd."""
    root = os.open("/", O_PATH | os.O_DIRECTORY)
    try:
        return open_in(root, path, flags)
    finally:
        os.close(root)


def open_file_in(root_fd: int, path: str, flags: int) -> int:
    """Open what must be a regular file (InputError): nothing else is opened, which could have an effect
    already. Returns an owned fd."""
    fd = open_in(root_fd, path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InputError(f"{path} is not a regular file")
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
    finally:
        os.close(fd)


def make_in(root_fd: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """Open `path` below `root_fd`, making what is missing: directories, and a file at the end unless
    `directory`. Returns an owned O_PATH fd."""
    try:
        return open_in(root_fd, path)
    except FileNotFoundError:
        return _walk(root_fd, path, directory=directory, mode=mode)


def follow(root_fd: int, path: str) -> str:
    """The absolute path that `path` stands for, its last link followed too; what is not there stays as it is
    written. Raises OSError (ELOOP)."""
    pending, done = _components(path), list[str]()
    links = 0
    while pending:
        name = pending.pop()
        if name == "..":
            del done[-1:]
            continue
        target = _link(root_fd, "/".join((*done, name)))
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, f"{path}: {os.strerror(errno.ELOOP)}")
        if target.startswith("/"):
            done.clear()
        pending += _components(target)
    return "/" + "/".join(done)


def _link(root_fd: int, path: str) -> str | None:
    """Where the link at `path` points; None when there is something else, or nothing."""
    try:
        fd = open_in(root_fd, path, O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _walk(root_fd: int, path: str, *, directory: bool, mode: int) -> int:
    pending = _components(path)
    above = [os.dup(root_fd)]  # the opened ancestors: `..` pops, so it can never climb above the root
    links = 0
    try:
        while pending:
            name = pending.pop()
            if name == "..":
                if len(above) > 1:
                    os.close(above.pop())
                continue
            try:
                fd = os.open(name, O_PATH | os.O_NOFOLLOW, dir_fd=above[-1])
            except FileNotFoundError:
                fd = _create(above[-1], name, directory=directory or bool(pending), mode=mode)
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                target = os.readlink("", dir_fd=fd)
                os.close(fd)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, f"{path}: {os.strerror(errno.ELOOP)}")
                if target.startswith("/"):
                    while len(above) > 1:
                        os.close(above.pop())
                pending += _components(target)
            else:
                above.append(fd)
                if len(above) > _MAX_OPEN:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path[:100])
        return above.pop()
    finally:
        for fd in above:
            os.close(fd)


def _components(path: str) -> list[str]:
    """The components of a path, last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _create(parent: int, name: str, *, directory: bool, mode: int) -> int:
    if directory:
        os.mkdir(name, mode, dir_fd=parent)
        return os.open(name, O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode & 0o666, dir_fd=parent))
    return os.open(name, O_PATH | os.O_NOFOLLOW, dir_fd=parent)


def remove(path: str | os.PathLike[str]) -> None:
    """A directory and all below it, however deep: each directory is moved up before it is emptied, where
    shutil.rmtree goes down and fails at a depth that any container can make.

    Interrupted, it leaves less than there was. Raises OSError, FileNotFoundError when there is none.
    """
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        unique, number = os.urandom(8).hex(), itertools.count()
        pending = _unlink_files(root)
        while pending:
            name = pending.pop()
            directory = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root
            )
            try:
                for child in _unlink_files(directory):
                    moved = f".{unique}-{next(number)}"
                    os.rename(child, moved, src_dir_fd=directory, dst_dir_fd=root)
                    pending.append(moved)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)
    os.rmdir(path)


def _unlink_files(directory: int) -> list[str]:
    """All but directories, whose names are returned."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in found if is_directory]
