"""Files: what Python's os module does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from hawse_agent.linux import descent, libc

MAX_SOCKET_PATH = 107
_RENAME_EXCHANGE = 2
_STATX_ATTR_MOUNT_ROOT = 0x2000
_OF_THE_KERNEL = frozenset(
    {
        *(0x9FA0, 0x62656572),  # proc, sysfs
        *(0x27E0EB, 0x63677270),  # cgroup, cgroup2
        *(0x1CD1, 0x19800202),  # devpts, mqueue
        *(0x64626720, 0x74726163, 0x73636673),  # debugfs, tracefs, securityfs
        *(0x62656570, 0x65735543, 0x6165676C),  # configfs, fusectl, pstore
        *(0xCAFE4A11, 0x42494E4D, 0x6E736673),  # bpf, binfmt_misc, nsfs
        *(0xDE5E81E4, 0xF97CFF8C, 0x43415D53),  # efivarfs, selinuxfs, smackfs
        0x67596969,  # rpc_pipefs
    }
)


def close_all_but(keep: Iterable[int]) -> None:
    """Of this process's descriptors above 2."""
    first = 3
    for fd in (*sorted(keep), 1 << 31):
        if fd > first:
            libc.syscall("close_range", first, fd - 1, 0)
        first = max(first, fd + 1)


def write_private(path: Path, data: bytes) -> None:
    """Make it anew; root alone may read it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


_EXT = 0xEF53
"""ext2, ext3, ext4."""
_GET_FLAGS = 0x80006601 | struct.calcsize("l") << 16
_SET_FLAGS = 0x40006602 | struct.calcsize("l") << 16
_TOP_OF_HIERARCHIES = 0x20000
_IN_MEMORY = frozenset((0x01021994, 0x858458F6))
"""tmpfs, ramfs."""


def exchange(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Swap two entries of one file system in a single step: at no moment is either of them missing."""
    libc.syscall(
        "renameat2",
        libc.AT_FDCWD,
        os.fsencode(one),
        libc.AT_FDCWD,
        os.fsencode(other),
        _RENAME_EXCHANGE,
        what=f"exchange {os.fspath(one)} and {os.fspath(other)}",
    )


def syncfs(fd: int) -> None:
    """Bring everything on the file system of `fd` to the disk."""
    libc.syscall("syncfs", fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of it: on a disk that is almost full write(2) takes a part, and only the next one fails."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def open_regular(path: str | os.PathLike[str], *, follow: bool = False) -> BufferedReader:
    """A file that somebody else may own, for reading: never waits, as for a FIFO, and keeps no device
    open. Raises OSError for what is no regular file."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = open(os.open(path, flags), "rb")  # noqa: SIM115 the caller's to close
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
    return file


def is_of_the_kernel(fd: int) -> bool:
    """Whether it lies on a file system that holds no files but shows the kernel: /proc, /sys and the like."""
    status = (ctypes.c_ulong * 32)()
    libc.syscall("fstatfs", fd, status)
    return status[0] & 0xFFFFFFFF in _OF_THE_KERNEL


def is_in_memory(path: Path) -> bool:
    """Whether what is written there lies on no disk (but swap): tmpfs, ramfs."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = (ctypes.c_ulong * 32)()
        libc.syscall("fstatfs", fd, status)
    finally:
        os.close(fd)
    return status[0] & 0xFFFFFFFF in _IN_MEMORY


def spread(directory: int) -> None:
    """Directories that are made in this one from now on get places of their own on the disk, told by their
    names (`chattr +T`). On ext4 a new inode goes where its directory's are, past all that were freed there in
    the last minutes, each looked at again for every file; other file systems do without."""
    status = (ctypes.c_ulong * 32)()
    libc.syscall("fstatfs", directory, status)
    if status[0] & 0xFFFFFFFF == _EXT:
        flags = bytearray(struct.calcsize("l"))
        fcntl.ioctl(directory, _GET_FLAGS, flags)
        wanted = struct.unpack_from("i", flags)[0] | _TOP_OF_HIERARCHIES
        struct.pack_into("i", flags, 0, wanted)
        fcntl.ioctl(directory, _SET_FLAGS, flags)


def is_mount_root(fd: int) -> bool:
    """Whether something is mounted where `fd` (O_PATH will do) was opened, in whatever mount namespace: the
    kernel itself only keeps a caller from removing a mount point of its own namespace."""
    status = (ctypes.c_ulong * 32)()
    libc.syscall("statx", fd, b"", libc.AT_EMPTY_PATH | libc.AT_SYMLINK_NOFOLLOW, 0, status)
    return bool(status[1] & _STATX_ATTR_MOUNT_ROOT)


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """What to bind or connect a unix socket at `path` to, which may be longer than an address can be."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def bind(sock: socket.socket, path: str) -> None:
    """Bind a unix socket to `path`, however long."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        sock.bind(path)
    else:
        with socket_address(Path(path)) as address:
            sock.bind(address)


def disk_usage(path: Path, *, directories: bool = True) -> int:
    """Bytes that a tree takes on the disk, the `directories` themselves included; a file with several links
    counts once."""
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        total = os.fstat(top).st_blocks * 512 if directories else 0
        seen: set[tuple[int, int]] = set()
        for place in descent.walk(top):
            with os.scandir(place.at.fd) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # removed meanwhile
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        place.below.append(entry.name)
                        if not directories:
                            continue
                    elif status.st_nlink > 1:
                        if (status.st_dev, status.st_ino) in seen:
                            continue
                        seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
        return total
    finally:
        os.close(top)
