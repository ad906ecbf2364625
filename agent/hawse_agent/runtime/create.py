"""The shim's side of a container's birth: clone PID 1, make its cgroup, release it.

`spawn` returns as soon as the namespaces exist; the child goes on mounting while the daemon sets up the
network, and waits before its exec for `Spawned.go`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from hawse_agent import failpoints
from hawse_agent.cgroups import Base, Cgroup, Tree, device_rules
from hawse_agent.failpoints import reach
from hawse_agent.linux import files, namespace, privilege, seccomp
from hawse_agent.runtime import handshake, identity, process, reaper, sysctls, userns
from hawse_agent.runtime.donors import Donors
from hawse_agent.runtime.handshake import ParentEnd
from hawse_agent.runtime.init import Init, prepare_outside, run
from hawse_agent.runtime.process import Stdio
from hawse_agent.spec import codec
from hawse_agent.spec.runtime import RuntimeConfig

__all__ = ["Spawned", "Stdio", "spawn"]


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
        """None until it is made; on v2 it is made first, so that PID 1 is born in it."""
        self._parent = parent
        self._prepared = False
        self._is_put_inside = _needs_go_between(config)
        """Into its cgroup, since it cannot go itself."""

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
            if self._is_put_inside:
                self._cgroup.add(self.pid)
            reach("shim: tell PID 1 of the cgroup")
            self._parent.cgroup()
            reach("shim: await readiness")
            ready = self._parent.wait_until_ready()
            self.console = ready.console
            reach("shim: set limits")
            limits = identity.set_limits(self.pid, self._config.process)
        except BaseException:
            self.abort()
            raise
        self.warnings = (*self._cgroup.warnings, *ready.warnings, *limits)
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
    own_ipc, own_network = config.ipc_namespace == "new", config.network in ("new", "none")
    sysctls.check(config.sysctls, own_ipc=own_ipc, own_network=own_network)
    base = codec.loads(Base, config.cgroup_base)
    program = seccomp.compile_filter(config.seccomp, config.process.capabilities)
    with contextlib.ExitStack() as opened:
        donors = Donors(config, opened)
        joined = {
            kind: fd
            for kind, wanted in (
                ("net", config.network),
                ("pid", config.pid_namespace),
                ("ipc", config.ipc_namespace),
                ("uts", config.uts_namespace),
                ("mnt", config.ipc_namespace),
                ("user", config.user_namespace),
            )
            if (fd := donors.open(wanted, kind)) is not None
        }
        tree = Tree(base)
        born_inside = base.version == 2 and not _needs_go_between(config)
        cgroup = _make_cgroup(tree, config) if born_inside else None
        ours, theirs = handshake.pair()
        opened.enter_context(theirs)
        init = Init(
            process=config.process,
            stdio=stdio,
            shim=handshake.ChildEnd(theirs, lifeline),
            filter=program,
            config=config,
            base=base,
            netns_fd=joined.get("net", netns_fd),
            brother=lifeline is not None,
            reaper=_open_reaper(config, opened),
            joined=tuple(joined[kind] for kind in ("ipc", "uts") if kind in joined),
            donor_mounts=joined.get("mnt"),
        )
        parent = ParentEnd(ours)
        try:
            if config.ids is not None:
                child = _clone_across(init, theirs, parent, joined)
            elif "pid" in joined:
                child = _clone_beside(init, theirs, parent, joined["pid"])
            else:
                child = _clone(init, cgroup, parent)
        except BaseException:
            parent.close()
            if cgroup is not None:
                cgroup.remove()
            raise
    own = netns_fd
    if own is None and config.network in ("new", "none"):
        try:
            own = os.open(f"/proc/{child.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            own = None  # it has ended already: `prepare` hears why
    return Spawned(config, tree, cgroup, child, own, parent)


def _make_cgroup(tree: Tree, config: RuntimeConfig) -> Cgroup:
    rules = device_rules(config.devices, config.privileged)
    return tree.create(config.cgroup, config.resources, rules)


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


def _flags(init: Init) -> int:
    config = init.config
    flags = namespace.CLONE_NEWNS | (namespace.CLONE_PARENT if init.brother else 0)
    for field, flag in _FLAGS.items():
        if getattr(config, field) == "new":
            flags |= flag
    if config.network in ("new", "none") and init.netns_fd is None:
        flags |= namespace.CLONE_NEWNET
    return flags


def _needs_go_between(config: RuntimeConfig) -> bool:
    """Whether PID 1 is born where it does not reach the host's files."""
    return config.ids is not None or config.pid_namespace.startswith("container:")


def _clone(init: Init, cgroup: Cgroup | None, parent: ParentEnd) -> Cloned:
    child = clone_into(_flags(init), cgroup)
    if child.pid == 0:
        parent.close()
        run(init)
    return child


def _clone_across(init: Init, theirs: socket.socket, parent: ParentEnd, joined: Mapping[str, int]) -> Cloned:
    """Into a user namespace (see `userns`). Raises StartFailed."""
    userns_fd = userns.find(init.config, init.netns_fd if "net" not in joined else None, joined.get("user"))

    def prepare(tell: socket.socket) -> None:
        assert init.config.ids is not None
        init.step = "mount what is on the host"
        init.brought = userns.bring(init.config, userns_fd, init.donor_mounts)
        userns.give((init.stdio.stdin, init.stdio.stdout, init.stdio.stderr), init.config.ids)
        init.step = "enter the user namespace"
        namespace.setns(userns_fd, namespace.CLONE_NEWUSER)
        if "pid" in joined:
            namespace.setns(joined["pid"], namespace.CLONE_NEWPID)

    try:
        return _clone_by_go_between(init, theirs, parent, prepare, _flags(init))
    finally:
        os.close(userns_fd)


def _clone_beside(init: Init, theirs: socket.socket, parent: ParentEnd, pid_namespace: int) -> Cloned:
    """Into another container's PID namespace: whoever may trace there could look into PID 1, and sees nothing
    of the host in it. Raises StartFailed."""

    def prepare(tell: socket.socket) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        init.step = "make namespaces"
        namespace.unshare(_flags(init) & ~namespace.CLONE_PARENT)
        needed = prepare_outside(init)
        for number in {0, 1, 2}.difference(needed):  # the agent's log
            os.dup2(null, number)
        init.step = "enter the PID namespace"
        namespace.setns(pid_namespace, namespace.CLONE_NEWPID)
        files.close_all_but((*needed, tell.fileno(), *init.shim.descriptors, *failpoints.descriptors()))

    return _clone_by_go_between(init, theirs, parent, prepare, 0)


def _clone_by_go_between(
    init: Init, theirs: socket.socket, parent: ParentEnd, prepare: Callable[[socket.socket], None], flags: int
) -> Cloned:
    hear, tell = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with hear, tell:
        # Outside of the cgroup: it is not one of the container's processes.
        between = clone_into(namespace.CLONE_PARENT if init.brother else 0, None)
        if between.pid == 0:
            parent.close()
            hear.close()
            _go_between(init, prepare, flags, tell)
        os.close(between.pidfd)
        tell.close()
        theirs.close()
        message, fds, _, _ = socket.recv_fds(hear, 32, 1)
    with contextlib.suppress(ChildProcessError):  # a brother: its parent reaps it
        os.waitpid(between.pid, 0)
    if not message:
        parent.wait_until_ready()  # raises what it has said
    return Cloned(pid=int(message), pidfd=fds[0])


def _go_between(
    init: Init, prepare: Callable[[socket.socket], None], flags: int, tell: socket.socket
) -> NoReturn:
    try:
        privilege.set_dumpable(False)
        prepare(tell)
        pid, pidfd = namespace.clone(flags | namespace.CLONE_PARENT)
        if pid == 0:
            tell.close()
            run(init)
        socket.send_fds(tell, [str(pid).encode()], [pidfd])
    except BaseException as error:
        process.report(init, error)
    os._exit(0)


def clone_into(flags: int, cgroup: Cgroup | None) -> Cloned:
    """Clone into new namespaces, and a v2 cgroup."""
    cgroup_fd = cgroup.open_for_clone() if cgroup is not None else None
    try:
        pid, pidfd = namespace.clone(flags, cgroup_fd)
    finally:
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    return Cloned(pid=pid, pidfd=pidfd)


def _open_reaper(config: RuntimeConfig, opened: contextlib.ExitStack) -> int | None:
    if not config.init:
        return None
    fd = reaper.seal()
    opened.callback(os.close, fd)
    return fd


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
