"""The child's side of a container's birth: one list of steps, from the clone to the program.

The order is the point; what each place is for stands beside it. See `handshake` for the two waits.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from hawse_agent.cgroups import Base, Tree
from hawse_agent.failpoints import reach
from hawse_agent.linux import mount, namespace, tree
from hawse_agent.runtime import console, devices, mounts, process, reaper, rootfs, userns
from hawse_agent.spec.runtime import RuntimeConfig

_ALL_SIGNALS = signal.valid_signals()
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


@dataclass(kw_only=True)
class Init(process.Child):
    config: RuntimeConfig
    base: Base
    netns_fd: int | None
    """A network namespace to join (a restart's own, or another container's); None: as cloned."""
    brother: bool
    """It is a child of the caller's parent."""
    joined: tuple[int, ...]
    """IPC and UTS namespace of other containers."""
    donor_mounts: int | None
    """Mount namespace of the container whose IPC namespace is shared, and so its /dev/shm."""
    reaper: int | None
    """The program that PID 1 becomes, where the container wants an init."""
    brought: userns.Brought | None = None
    """With ids of its own, or where others can look on: what was mounted outside."""
    outside: bool = False
    """A go-between has taken the steps of `OUTSIDE`."""
    targets: frozenset[str] = frozenset()
    root_fd: int = -1
    dev_fd: int = -1
    proc_fd: int = -1


def run(init: Init) -> NoReturn:
    """In the freshly cloned child. Leaves by execve or `os._exit`."""
    try:
        for step, do in STEPS:
            _next(init, step)
            if not (init.outside and step in OUTSIDE):
                do(init)
        _next(init, "wait for the shim")
        init.shim.ready(init.master, init.warnings)
        if init.master is not None:
            os.close(init.master)
        init.shim.wait_for_go()
        if init.reaper is not None:
            _next(init, "init")
            _start_program_beside(init, init.reaper)
        _next(init, "confine")
        process.confine(init)
        _next(init, "exec")
        process.execute(init)
    except BaseException as error:
        process.report(init, error)
    os._exit(1)


def prepare_outside(init: Init) -> tuple[int, ...]:
    """In a go-between with the namespaces of PID 1, which is to be born where others can look on: after this
    nothing of the host is within reach. Returns the descriptors that PID 1 needs."""
    init.own_program = process.own_program()
    for step, do in STEPS:
        if step == "pivot_root":
            _next(init, "mount volumes")
            init.brought = userns.Brought(root=init.root_fd, binds=mounts.open_sources(init.config, None))
        if step in OUTSIDE:
            _next(init, step)
            do(init)
    init.outside = True
    assert init.brought is not None
    stdio = (init.stdio.stdin, init.stdio.stdout, init.stdio.stderr)
    optional = (*stdio, init.reaper, init.dev_fd if init.dev_fd >= 0 else None)
    return (init.root_fd, *init.brought.binds.values(), *(fd for fd in optional if fd is not None))


def _next(init: Init, step: str) -> None:
    init.step = step
    reach(f"init: {step}")


def _start_session(init: Init) -> None:
    process.start_session(init)
    if not init.outside:
        init.own_program = process.own_program()
    if init.config.ids is not None:
        userns.become_root()


def _join_namespaces(init: Init) -> None:
    for fd in init.joined:
        namespace.setns(fd)
        os.close(fd)
    if init.netns_fd is not None:
        namespace.setns(init.netns_fd, namespace.CLONE_NEWNET)
    if init.config.network in ("new", "none"):
        _loopback_up()


def _separate_mounts(init: Init) -> None:
    mounts.keep_to_ourselves(init.config)


def _mount_root(init: Init) -> None:
    init.targets = mounts.user_targets(init.config)
    if init.brought is None:
        init.root_fd = rootfs.mount_overlay(init.config)
        return
    init.root_fd = init.brought.root
    here = os.open("/", os.O_PATH | os.O_CLOEXEC)  # other places may be closed to this user
    mount.attach(init.root_fd, here)
    os.close(here)


def _mount_proc(init: Init) -> None:
    init.proc_fd = mounts.mount_proc(init.root_fd)


def _mount_dev_and_sys(init: Init) -> None:
    if "/dev" not in init.targets:
        init.dev_fd = mounts.mount_dev(init.root_fd)
        mounts.mount_in_dev(init.dev_fd, init.config, init.targets, lambda: _shared_memory(init))
    if "/sys" not in init.targets:
        mounts.mount_sys(init.root_fd, read_only=not init.config.privileged)


def _shared_memory(init: Init) -> int:
    if init.brought is not None and init.brought.shared_memory is not None:
        return init.brought.shared_memory
    return mounts.shared_memory(init.config, init.donor_mounts)


def _make_devices(init: Init) -> None:
    if init.dev_fd >= 0:
        devices.make_default_nodes(init.dev_fd)
        devices.make_wanted_nodes(init.root_fd, init.config)


def _enter_cgroup_namespace(init: Init) -> None:
    init.shim.wait_for_cgroup()
    if init.base.version == 1 and init.brought is None:  # else it is inside already
        Tree(init.base).open(init.config.cgroup).enter()
    namespace.unshare(namespace.CLONE_NEWCGROUP)
    if not init.targets & {"/sys", "/sys/fs/cgroup"}:
        mounts.mount_cgroups(
            init.root_fd,
            init.base.hierarchies,
            init.base.version,
            read_only=not init.config.privileged,
        )


def _mount_user_mounts(init: Init) -> None:
    opened = init.brought.binds if init.brought is not None else {}
    mounts.mount_user_mounts(init.root_fd, init.config, init.proc_fd, opened)


def _set_sysctls(init: Init) -> None:
    """Through a procfs of our own, that no mount of the container can stand in for (CVE-2025-52881)."""
    for key, value in init.config.sysctls.items():
        path = "sys/" + key.replace(".", "/")
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=init.proc_fd)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


def _set_names(init: Init) -> None:
    if init.config.uts_namespace == "new":
        socket.sethostname(init.config.hostname)
        if init.config.domainname:
            namespace.setdomainname(init.config.domainname)


def _hide_paths(init: Init) -> None:
    mounts.make_read_only(init.root_fd, init.config.readonly_paths)
    mounts.hide(init.root_fd, init.config.masked_paths)


def _make_working_directory(init: Init) -> None:
    os.close(tree.make_in(init.root_fd, init.config.process.cwd, directory=True))


def _pivot(init: Init) -> None:
    rootfs.pivot(init.root_fd)


def _find_user(init: Init) -> None:
    process.find_user(init)


def _connect(init: Init) -> None:
    process.connect(init)
    if init.process.tty and init.dev_fd >= 0:
        console.mount_on_dev_console(0)


def _make_root_read_only(init: Init) -> None:
    if init.config.read_only:
        mount.set_attributes(init.root_fd, mount.MOUNT_ATTR_RDONLY)


def _new_keyring(init: Init) -> None:
    process.new_keyring(init)


def _enter_directory(init: Init) -> None:
    process.enter_directory(init)


STEPS: tuple[tuple[str, Callable[[Init], None]], ...] = (
    ("start a session", _start_session),  # first: from here on nobody inside can look into this process
    (
        "join namespaces",
        _join_namespaces,
    ),  # /sys shows the namespace it is mounted in
    ("separate mounts", _separate_mounts),  # before any mount, or the host would see it
    ("mount the root", _mount_root),
    ("mount /proc", _mount_proc),  # before binds, which may lie in these
    ("mount /dev and /sys", _mount_dev_and_sys),
    ("make device nodes", _make_devices),
    ("enter the cgroup namespace", _enter_cgroup_namespace),  # as late as it can be: the shim works meanwhile
    ("mount volumes", _mount_user_mounts),
    ("make the working directory", _make_working_directory),  # before the root may become read-only
    ("set sysctls", _set_sysctls),  # before /proc/sys is read-only
    ("set the host name", _set_names),
    ("mask paths", _hide_paths),  # after binds: a bind must not bring a masked path back
    ("pivot_root", _pivot),  # from here on `/` is the container's
    ("find the user", _find_user),  # in the container's own /etc
    ("connect standard streams", _connect),
    ("make the root read-only", _make_root_read_only),
    ("make a keyring", _new_keyring),
    ("enter the working directory", _enter_directory),
)


OUTSIDE = frozenset(
    (
        "join namespaces",
        "separate mounts",
        "mount the root",
        "mount /dev and /sys",
        "make device nodes",
        "pivot_root",
    )
)
"""What a go-between does for a PID 1 that is born in another container's PID namespace, so that who may trace
there sees the root of the host in nobody. /proc shows the PID namespace of who mounts it."""


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _start_program_beside(init: Init, program: int) -> None:
    """The program becomes PID 2, and this process, PID 1, our init. Returns in the program only."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)  # before there is an end that can be missed
    main = os.fork()
    if main == 0:
        os.setpgid(0, 0)
        if init.process.tty:
            _to_foreground()
        return
    process.confine(init)
    process.let_go(init, keep=0)
    reaper.execute(program, main)


def _to_foreground() -> None:
    """The program's group gets the terminal's signals. SIGTTOU would stop a background process that asks."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
