"""The shim's side of a container's birth: clone PID 1, make its cgroup, release it.

`spawn` returns as soon as the namespaces exist; the child goes on mounting while the daemon sets up the
network, and waits before its exec for `Spawned.go`.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from hawse_agent.cgroups import Base, Cgroup, Tree, device_rules
from hawse_agent.errors import InputError
from hawse_agent.failpoints import reach
from hawse_agent.linux import namespace, seccomp
from hawse_agent.runtime import handshake
from hawse_agent.runtime.handshake import ParentEnd
from hawse_agent.runtime.init import Init, run
from hawse_agent.runtime.process import Stdio
from hawse_agent.spec import codec
from hawse_agent.spec.runtime import RuntimeConfig

__all__ = ["Spawned", "Stdio", "check_sysctls", "spawn"]

_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


class Spawned:
    """A container's PID 1 before its exec. All fds are the caller's to close."""

    def __init__(
        self,
        config: RuntimeConfig,
        tree: Tree,
        cgroup: Cgroup | None,
        child: Cloned,
        netns_fd: int | None,
        parent: ParentEnd,
    ) -> None:
        self.pid = child.pid
        self.pidfd = child.pidfd
        self.netns_fd = netns_fd
        """Own network namespace (network `new` and `none`); keep it for a restart. None: shared."""
        self.console: int | None = None
        """The terminal's master, once prepared."""
        self.warnings: tuple[str, ...] = ()
        self._config = config
        self._tree = tree
        self._cgroup = cgroup
        """None until it is made; on v2 it is made first, and PID 1 is born in it."""
        self._parent = parent
        self._prepared = False

    @property
    def cgroup(self) -> Cgroup:
        """The container's, once prepared."""
        return self._cgroup if self._cgroup is not None else self._tree.open(self._config.cgroup)

    def prepare(self) -> None:
        """Make the cgroup with its limits and hear that PID 1 is in it and has made all its mounts: call this
        before waiting for the network. Raises StartFailed and what `Tree.create` raises, and then all is
        undone."""
        try:
            reach("shim: make the cgroup")
            if self._cgroup is None:
                self._cgroup = _make_cgroup(self._tree, self._config)
            reach("shim: enter the cgroup")
            self._parent.cgroup()
            reach("shim: await readiness")
            ready = self._parent.wait_until_ready()
        except BaseException:
            self.abort()
            raise
        self.console = ready.console
        self.warnings = (*self._cgroup.warnings, *ready.warnings)
        self._prepared = True

    def go(self) -> None:
        """Let it execute its program; returns when it runs. Raises StartFailed, and then all is undone."""
        if not self._prepared:
            self.prepare()
        try:
            self._parent.go()
        except BaseException:
            self.abort()
            raise
        self._parent.close()

    def abort(self) -> None:
        """Kill and reap it, remove its cgroup. `netns_fd` and `pidfd` stay open."""
        self._parent.close()
        kill_and_reap(self.pid, self.pidfd)
        if self._cgroup is not None:
            self._cgroup.kill()
            self._cgroup.remove()
            self._cgroup = None
        if self.console is not None:
            os.close(self.console)
            self.console = None


def spawn(
    config: RuntimeConfig, stdio: Stdio, netns_fd: int | None = None, *, lifeline: int | None = None
) -> Spawned:
    """Only in a process of one thread. `netns_fd`: the network namespace of an earlier run to use again;
    it stays the caller's and is handed back as `Spawned.netns_fd`. With a `lifeline` PID 1 is not the
    caller's child but its parent's, who holds the other end."""
    check_sysctls(config)
    base = codec.loads(Base, config.cgroup_base)
    program = seccomp.compile_filter(config.seccomp, config.process.capabilities)
    joined = netns_fd
    if config.network.startswith("pid:"):
        joined = _open_namespace(config.network, "net")
    tree = Tree(base)
    cgroup = _make_cgroup(tree, config) if base.version == 2 else None
    ours, theirs = handshake.pair()
    try:
        child = _clone(config, joined, cgroup, brother=lifeline is not None)
        if child.pid == 0:
            ours.close()
            run(
                Init(
                    process=config.process,
                    stdio=stdio,
                    shim=handshake.ChildEnd(theirs, lifeline),
                    filter=program,
                    config=config,
                    base=base,
                    netns_fd=joined,
                )
            )
    except BaseException:
        ours.close()
        if cgroup is not None:
            cgroup.remove()
        raise
    finally:
        theirs.close()
        if joined is not None and joined != netns_fd:
            os.close(joined)
    own = netns_fd
    if own is None and config.network in ("new", "none"):
        own = os.open(f"/proc/{child.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return Spawned(config, tree, cgroup, child, own, ParentEnd(ours))


def _make_cgroup(tree: Tree, config: RuntimeConfig) -> Cgroup:
    rules = device_rules(config.devices, config.privileged)
    return tree.create(config.cgroup, config.resources, rules)


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


_FLAGS: Mapping[str, int] = {
    "pid_namespace": namespace.CLONE_NEWPID,
    "ipc_namespace": namespace.CLONE_NEWIPC,
    "uts_namespace": namespace.CLONE_NEWUTS,
}


@dataclass(frozen=True, kw_only=True)
class Cloned:
    """In the child `pid` is 0."""

    pid: int
    pidfd: int


def _clone(
    config: RuntimeConfig, joined_netns: int | None, cgroup: Cgroup | None, *, brother: bool
) -> Cloned:
    flags = namespace.CLONE_NEWNS | (namespace.CLONE_PARENT if brother else 0)
    for field, flag in _FLAGS.items():
        if getattr(config, field) == "new":
            flags |= flag
    if config.network in ("new", "none") and joined_netns is None:
        flags |= namespace.CLONE_NEWNET
    if not config.pid_namespace.startswith("pid:"):
        return clone_into(flags, cgroup)
    other = _open_namespace(config.pid_namespace, "pid")
    try:
        return clone_into(flags, cgroup, pid_namespace=other)
    finally:
        os.close(other)


def clone_into(flags: int, cgroup: Cgroup | None, *, pid_namespace: int | None = None) -> Cloned:
    """Clone into new namespaces, a v2 cgroup, and an existing PID namespace (an fd of it, or a pidfd).

    A PID namespace is joined by the children of who calls setns: this process sets its own aside for the
    moment of the clone.
    """
    cgroup_fd = cgroup.open_for_clone() if cgroup is not None else None
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if pid_namespace is not None:
            namespace.setns(pid_namespace, namespace.CLONE_NEWPID)
        pid, pidfd = -1, -1
        try:
            pid, pidfd = namespace.clone(flags, cgroup_fd)
        finally:
            if pid_namespace is not None and pid != 0:
                namespace.setns(own, namespace.CLONE_NEWPID)
        return Cloned(pid=pid, pidfd=pidfd)
    finally:
        os.close(own)
        if cgroup_fd is not None:
            os.close(cgroup_fd)


def _open_namespace(of: str, kind: str) -> int:
    pid = of.removeprefix("pid:")
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"cannot join the {kind} namespace of process {pid}: it has ended") from None


KILL_TIMEOUT = 10.0


def kill_and_reap(pid: int, pidfd: int) -> None:
    try:
        namespace.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass  # ended by itself
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # others reap it, or have done so already
        select.select([pidfd], [], [], KILL_TIMEOUT)
