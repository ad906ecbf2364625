"""Mounts by file descriptor: make one detached, set its attributes, attach it to an opened directory or file.

A path of a container is never given to the kernel as text: targets are opened with RESOLVE_IN_ROOT first
(`linux.tree`), so a link in an image cannot lead a mount out of it. Linux 5.12 is the oldest kernel.
"""

from __future__ import annotations

import ctypes
import os

from hawse_agent.linux import libc

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 0x2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_ATIME = 0x70
"""All of the two above, and neither: relatime."""
MOUNT_ATTR_NODIRATIME = 0x80
_MOUNT_ATTR_IDMAP = 0x00100000

OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, target: str, fstype: str | None, flags: int = 0, data: str = "") -> None:
    """The classic call, for what is not below a container's root."""
    libc.syscall(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        flags,
        os.fsencode(data) if data else None,
        what=f"mount {fstype or ''} {source} on {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    libc.syscall("umount2", os.fsencode(target), flags, what=f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    libc.syscall("pivot_root", new_root.encode(), put_old.encode())


def new(fstype: str, attributes: int = 0, *, source: str = "", options: tuple[str, ...] = ()) -> int:
    """A detached mount of a new file system; `options` are `key` or `key=value`. Returns an owned fd."""
    what = f"mount {fstype}"
    context = libc.syscall("fsopen", fstype.encode(), _FSOPEN_CLOEXEC, what=what)
    try:
        for option in ((f"source={source}",) if source else ()) + options:
            key, given, value = option.partition("=")
            command = _FSCONFIG_SET_STRING if given else _FSCONFIG_SET_FLAG
            text = os.fsencode(value) if given else None
            libc.syscall("fsconfig", context, command, key.encode(), text, 0, what=f"{what}: {option}")
        libc.syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0, what=what)
        return libc.syscall("fsmount", context, _FSMOUNT_CLOEXEC, attributes, what=what)
    finally:
        os.close(context)


def require(fstype: str) -> None:
    """Raises OSError (ENODEV) when this kernel has no such file system; one that is a module gets loaded."""
    os.close(libc.syscall("fsopen", fstype.encode(), _FSOPEN_CLOEXEC, what=f"mount {fstype}"))


def clone(path: str, *, dir_fd: int = libc.AT_FDCWD, recursive: bool = False) -> int:
    """A detached bind of `path` (follows links), or of `dir_fd` itself when it is empty. Owned fd."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    if recursive:
        flags |= libc.AT_RECURSIVE
    if not path:
        flags |= libc.AT_EMPTY_PATH
    return libc.syscall("open_tree", dir_fd, os.fsencode(path), flags, what=f"bind {path or dir_fd}")


def set_attributes(
    fd: int, set_: int = 0, clear: int = 0, *, propagation: int = 0, recursive: bool = False
) -> None:
    attributes = _MountAttr(attr_set=set_, attr_clr=clear, propagation=propagation)
    flags = libc.AT_EMPTY_PATH | (libc.AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attributes)
    libc.syscall("mount_setattr", fd, b"", flags, attributes, size, what=f"mount_setattr({set_:#x})")


def map_ids(fd: int, userns_fd: int, *, recursive: bool = False) -> None:
    """Through a detached mount, files of user N belong to whom the user namespace calls N."""
    attributes = _MountAttr(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    flags = libc.AT_EMPTY_PATH | (libc.AT_RECURSIVE if recursive else 0)
    libc.syscall("mount_setattr", fd, b"", flags, attributes, ctypes.sizeof(attributes), what="map ids")


def attach(fd: int, target_fd: int) -> None:
    """Attach a detached mount to an opened directory or file; both fds stay the caller's."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    libc.syscall("move_mount", fd, b"", target_fd, b"", flags, what="move_mount")
