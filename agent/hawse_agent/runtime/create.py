"""The shim's side of a container's birth: clone PID 1, make its cgroup, release it.

`spawn` returns as soon as the namespaces exist; the child goes on mounting while the daemon sets up the
network, and waits before its exec for `Spawned.go`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import NoReturn

from hawse_agent.cgroups import Base, Cgroup, Tree, device_rules
from hawse_agent.errors import InputError
from hawse_agent.linux import namespace, seccomp
from hawse_agent.runtime import handshake
from hawse_agent.runtime.init import Init, run
from hawse_agent.runtime.process import Stdio
from hawse_agent.spec import codec
from hawse_agent.spec.runtime import RuntimeConfig

__all__ = ["Spawned", "Stdio", "check_sysctls", "kill_and_reap", "spawn"]

_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


class Spawned:
    """A container's PID 1 before its exec. All fds are the caller's to close."""

    def __init__(
        self, pid: int, pidfd: int, netns_fd: int | None, cgroup: Cgroup, parent: handshake.ParentEnd
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.netns_fd = netns_fd
        """Own network namespace (network `new` and `none`); keep it for a restart. None: shared."""
        self.cgroup = cgroup
        self.console: int | None = None
        """The terminal's master, once `go` has returned."""
        self.warnings: tuple[str, ...] = cgroup.warnings
        self._parent = parent

    def go(self) -> None:
        """Let it execute its program; returns when it runs. Raises StartFailed, and then all is undone."""
        try:
            ready = self._parent.wait_until_ready()
            self.console = ready.console
            self.warnings += ready.warnings
            self._parent.go()
        except BaseException:
            self.abort()
            raise
        self._parent.close()

    def abort(self) -> None:
        """Kill and reap it, remove its cgroup. `netns_fd` and `pidfd` stay open."""
        self._parent.close()
        kill_and_reap(self.pid, self.pidfd)
        self.cgroup.kill()
        self.cgroup.remove()
        if self.console is not None:
            os.close(self.console)
            self.console = None


def spawn(config: RuntimeConfig, stdio: Stdio, netns_fd: int | None = None) -> Spawned:
    """Only in a process of one thread. `netns_fd`: the network namespace of an earlier run to use again;
    it stays the caller's and is handed back as `Spawned.netns_fd`."""
    check_sysctls(config)
    base = codec.loads(Base, config.cgroup_base)
    rules = device_rules(config.devices, config.privileged)
    program = seccomp.compile_filter(config.seccomp, config.process.capabilities)
    joined = netns_fd
    if config.network.startswith("pid:"):
        joined = _open_namespace(config.network, "net")
    ours, theirs = handshake.pair()
    try:
        pid, pidfd = _clone(config, joined)
        if pid == 0:
            ours.close()
            _child(config, stdio, base, joined, program, handshake.ChildEnd(theirs))
    finally:
        theirs.close()
        if joined is not None and joined != netns_fd:
            os.close(joined)
    parent = handshake.ParentEnd(ours)
    own_netns = netns_fd
    try:
        if config.network in ("new", "none") and own_netns is None:
            own_netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        cgroup = Tree(base).create(config.cgroup, config.resources, rules)
        try:
            cgroup.add(pid)
        except BaseException:
            kill_and_reap(pid, pidfd)
            cgroup.remove()
            raise
    except BaseException:
        parent.close()
        kill_and_reap(pid, pidfd)
        os.close(pidfd)
        if own_netns is not None and own_netns != netns_fd:
            os.close(own_netns)
        raise
    parent.cgroup()
    return Spawned(pid, pidfd, own_netns, cgroup, parent)


def check_sysctls(config: RuntimeConfig) -> None:
    """Only those of a namespace that is the container's own."""
    for key in config.sysctls:
        own_ipc, own_net = config.ipc_namespace == "new", config.network in ("new", "none")
        if key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
            allowed, needs = own_ipc, "IPC"
        elif key.startswith("net."):
            allowed, needs = own_net, "network"
        else:
            raise InputError(
                f"sysctl '{key}' is not allowed: it is not of a namespace, but of the whole host"
            )
        if not allowed:
            raise InputError(f"sysctl '{key}' is not allowed without an own {needs} namespace")
        if ".." in key or "/" in key:
            raise InputError(f"sysctl '{key}' is not a name")


def _child(
    config: RuntimeConfig,
    stdio: Stdio,
    base: Base,
    netns_fd: int | None,
    program: bytes | None,
    shim: handshake.ChildEnd,
) -> NoReturn:
    init = Init(
        process=config.process,
        stdio=stdio,
        shim=shim,
        filter=program,
        config=config,
        base=base,
        netns_fd=netns_fd,
    )
    run(init)


_FLAGS: Mapping[str, int] = {
    "pid_namespace": namespace.CLONE_NEWPID,
    "ipc_namespace": namespace.CLONE_NEWIPC,
    "uts_namespace": namespace.CLONE_NEWUTS,
}


def _clone(config: RuntimeConfig, joined_netns: int | None) -> tuple[int, int]:
    flags = namespace.CLONE_NEWNS
    for field, flag in _FLAGS.items():
        if getattr(config, field) == "new":
            flags |= flag
    if config.network in ("new", "none") and joined_netns is None:
        flags |= namespace.CLONE_NEWNET
    if not config.pid_namespace.startswith("pid:"):
        return namespace.clone(flags)
    # A PID namespace is joined by the children: set ours aside for the moment of the clone.
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    other = _open_namespace(config.pid_namespace, "pid")
    try:
        namespace.setns(other, namespace.CLONE_NEWPID)
        result = namespace.clone(flags)
        if result[0]:
            namespace.setns(own, namespace.CLONE_NEWPID)
    finally:
        os.close(own)
        os.close(other)
    return result


def _open_namespace(of: str, kind: str) -> int:
    pid = of.removeprefix("pid:")
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"cannot join the {kind} namespace of process {pid}: it has ended") from None


def kill_and_reap(pid: int, pidfd: int) -> None:
    try:
        namespace.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass  # ended by itself
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # reaped already
