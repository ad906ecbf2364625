"""What a process may do (capabilities, no_new_privs), its names, and how it dies."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Iterator, Sequence
from functools import cache

from hawse_agent.linux import libc

CAPABILITIES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""By number."""

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    """Two structs of three words each; the first holds capabilities 0 to 31, the second the rest."""

    _fields_ = tuple(
        (f"{name}{half}", ctypes.c_uint32)
        for half in (0, 1)
        for name in ("effective", "permitted", "inheritable")
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Sets of capabilities as bit masks, bit N for CAPABILITIES[N]."""
    low = 0xFFFFFFFF
    data = _CapData(
        effective0=effective & low,
        permitted0=permitted & low,
        inheritable0=inheritable & low,
        effective1=effective >> 32,
        permitted1=permitted >> 32,
        inheritable1=inheritable >> 32,
    )
    libc.syscall("capset", _CapHeader(version=_LINUX_CAPABILITY_VERSION_3, pid=0), data)


def permitted() -> int:
    """The permitted set as a bit mask."""
    data = _CapData()
    libc.syscall("capget", _CapHeader(version=_LINUX_CAPABILITY_VERSION_3, pid=0), data)
    return int(data.permitted0) | int(data.permitted1) << 32


def bounding() -> int:
    """The bounding set as a bit mask; a capability that the kernel does not know is not in it."""
    mask = 0
    for number in range(len(CAPABILITIES)):
        try:
            if libc.prctl(_PR_CAPBSET_READ, number, what="read the bounding set"):
                mask |= 1 << number
        except OSError:  # EINVAL: older kernel, which ends here
            break
    return mask


@cache
def available() -> int:
    """The bounding set that this process began with: what can be given to a container."""
    return bounding()


def drop_bounding(number: int) -> None:
    libc.prctl(_PR_CAPBSET_DROP, number, what=f"drop {CAPABILITIES[number]} from the bounding set")


def clear_ambient() -> None:
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, what="clear the ambient set")


def keep_capabilities(keep: bool) -> None:
    """Whether the permitted set survives the change from root to another user."""
    libc.prctl(_PR_SET_KEEPCAPS, int(keep), what="PR_SET_KEEPCAPS")


def no_new_privileges() -> None:
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, what="PR_SET_NO_NEW_PRIVS")


def set_dumpable(dumpable: bool) -> None:
    """False hides memory, fds and executable of this process from all but the host's root."""
    libc.prctl(_PR_SET_DUMPABLE, int(dumpable), what="PR_SET_DUMPABLE")


def get_dumpable() -> int:
    return libc.prctl(_PR_GET_DUMPABLE, what="PR_GET_DUMPABLE")


def die_with_parent() -> None:
    """SIGKILL when the thread that made this process ends. The kernel forgets it when credentials change."""
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), what="PR_SET_PDEATHSIG")


def set_child_subreaper() -> None:
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, what="PR_SET_CHILD_SUBREAPER")


def set_file_identity(uid: int, gid: int, groups: Sequence[int]) -> None:
    """From now on this thread, and it alone, reaches files as that user: no capability is left to it.

    Real, effective and saved ids stay, so the user can neither signal nor trace the process. As long as the
    thread lives, the process must not use os.setgroups, os.setuid and their like: libc has every thread do
    those and aborts when one is refused. In a child, after a fork, they are safe.
    """
    libc.syscall("setgroups", len(groups), (ctypes.c_uint32 * len(groups))(*groups), what="setgroups")
    libc.syscall("setfsgid", gid)
    libc.syscall("setfsuid", uid)
    capset(0, 0, 0)
    for name, wanted in (("setfsgid", gid), ("setfsuid", uid)):
        if libc.syscall(name, -1) != wanted:  # the only way to learn that the call above was refused
            raise PermissionError(errno.EPERM, f"{name} {wanted}: {os.strerror(errno.EPERM)}")


@contextlib.contextmanager
def making_files_as(uid: int, gid: int) -> Iterator[None]:
    """What this thread makes meanwhile belongs to that user; what it may do stays as it is."""
    libc.syscall("setfsgid", gid)
    libc.syscall("setfsuid", uid)
    try:
        _raise_effective()  # setfsuid has lowered those that are about files
        yield
    finally:
        libc.syscall("setfsuid", 0)
        libc.syscall("setfsgid", 0)
        _raise_effective()


def _raise_effective() -> None:
    mask = permitted()
    capset(mask, mask, 0)


def set_name(name: str) -> None:
    """The name in /proc/PID/comm; the kernel keeps 15 bytes."""
    fd = os.open("/proc/thread-self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, os.fsencode(name)[:15])
    finally:
        os.close(fd)


def set_title(title: str) -> None:
    """The command line that `ps` shows, written over argv and, when it is longer, over the environment.

    Only for a process that never hands its C environment on: a shim, not one that starts programs.
    """
    start, arg_end, env_end = _argv_area()
    text = os.fsencode(title)[: env_end - start - 1]
    ctypes.memmove(start, text.ljust(arg_end - start, b"\0") + b"\0", max(arg_end - start, len(text) + 1))
    set_name(title)


def new_session_keyring() -> None:
    libc.syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0, what="new session keyring")


@cache
def _argv_area() -> tuple[int, int, int]:
    """Addresses of argv's begin and end and of the environment's end, which lies behind it; a fork's, too."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46]), int(fields[48])  # fields 48, 49, 51 of proc(5)
