"""Namespaces: clone3, unshare, setns, pidfds.

`clone` is a fork that creates the child inside new namespaces. It may only be used by a process of one thread
(the shim): a lock that another thread holds would stay locked in the child for ever.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal

from hawse_agent.linux import libc, syscalls

CLONE_FS = 0x00000200
CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

_NS_GET_USERNS = 0xB701

# ctypes.pythonapi and PyDLL keep the GIL, as os.fork does.
_held = ctypes.PyDLL(None, use_errno=True)
_held.syscall.restype = ctypes.c_long
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _hook in (_before_fork, _after_fork_parent, _after_fork_child):
    _hook.restype = None


class _CloneArgs(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
    )


def clone(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces, and into a v2 cgroup when its directory is given. The parent gets
    (pid, pidfd), the child (0, -1). With CLONE_PARENT the child is a brother, and its pidfd the caller's."""
    pidfd = ctypes.c_int(-1)
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD,
        pidfd=ctypes.addressof(pidfd),
        exit_signal=0 if flags & CLONE_PARENT else int(signal.SIGCHLD),  # a brother has the caller's own
        cgroup=cgroup_fd or 0,
    )
    call = ctypes.c_long(syscalls.number("clone3"))
    pointer, size = ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))
    _before_fork()
    pid = int(_held.syscall(call, pointer, size))
    if pid == 0:
        _after_fork_child()
        return 0, -1
    errno = ctypes.get_errno()
    _after_fork_parent()
    if pid < 0:
        raise OSError(errno, f"clone3({flags:#x}): {os.strerror(errno)}")
    return pid, pidfd.value


def unshare(flags: int) -> None:
    libc.syscall("unshare", flags, what=f"unshare({flags:#x})")


def setns(fd: int, nstype: int = 0) -> None:
    """Join the namespace of an ns fd, or those that `nstype` lists of a pidfd's process."""
    libc.syscall("setns", fd, nstype, what=f"setns({nstype:#x})")


def owner(fd: int) -> int:
    """The user namespace that a namespace belongs to, as an owned fd."""
    return fcntl.ioctl(fd, _NS_GET_USERNS)


def setdomainname(name: str) -> None:
    data = name.encode()
    libc.syscall("setdomainname", data, len(data))


def pidfd_open(pid: int) -> int:
    return libc.syscall("pidfd_open", pid, 0, what=f"pidfd_open({pid})")


def has_ended(pidfd: int) -> bool:
    """Whether the process has, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def pidfd_send_signal(pidfd: int, number: int) -> None:
    libc.syscall("pidfd_send_signal", pidfd, number, None, 0, what=f"pidfd_send_signal({number})")
