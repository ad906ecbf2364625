"""A further process in a running container: exec, health check."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from hawse_agent.cgroups import Base, Cgroup, Tree
from hawse_agent.errors import StartFailed
from hawse_agent.linux import namespace, seccomp
from hawse_agent.runtime import handshake, identity, process, userns
from hawse_agent.runtime.create import Cloned
from hawse_agent.runtime.process import Stdio
from hawse_agent.spec import codec
from hawse_agent.spec.records import IdRange
from hawse_agent.spec.runtime import ProcessConfig, RuntimeConfig

_PATIENCE = 5.0
"""Seconds for one step: whoever enters holds up everything else that the shim does."""

_NAMESPACES = namespace.CLONE_NEWNS | namespace.CLONE_NEWNET | namespace.CLONE_NEWIPC | namespace.CLONE_NEWUTS
"""The process is born in these: a container that may trace (SYS_PTRACE) sees its root from the first moment,
which so is never the host's."""


@dataclass(frozen=True, kw_only=True)
class Entered:
    """A running process, a child of the caller. The fds are the caller's to close."""

    pid: int
    pidfd: int
    console: int | None
    """The terminal's master."""
    warnings: tuple[str, ...]


def enter(
    config: RuntimeConfig,
    pid: int,
    pidfd: int,
    wanted: ProcessConfig,
    stdio: Stdio,
    *,
    lifeline: int | None = None,
    cloned: Callable[[Cloned], None] = lambda cloned: None,
) -> Entered:
    """Run `wanted` beside the container's PID 1, which is `pid` here. Returns when the program runs.

    Only in a process of one thread. Raises StartFailed with Docker's exit code. With a `lifeline` the process
    is not the caller's child but its parent's, who holds the other end. `cloned` is called before the program
    may run.
    """
    program = seccomp.compile_filter(config.seccomp, wanted.capabilities)
    base = codec.loads(Base, config.cgroup_base)
    cgroup = Tree(base).open(config.cgroup)
    own_program = process.own_program()
    ours, theirs = handshake.pair()
    # On v2 it is born inside, by a descriptor of the cgroup's directory: nothing for who may look on.
    born_inside = base.version == 2 and "CAP_SYS_PTRACE" not in config.process.capabilities
    entrances = () if born_inside else cgroup.open_to_enter()
    try:
        flags = namespace.CLONE_PARENT if lifeline is not None else 0
        made = _clone_inside(flags, cgroup if born_inside else None, pidfd)
        if made.pid == 0:
            ours.close()
            _run(
                process.Child(
                    process=wanted,
                    stdio=stdio,
                    shim=handshake.ChildEnd(theirs, lifeline),
                    filter=program,
                    own_program=own_program,
                ),
                pidfd,
                entrances,
                config.ids,
            )
    except ProcessLookupError as error:
        ours.close()
        step = "enter the namespaces"
        raise StartFailed("the container has ended", step=step, container_exit=137) from error
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in entrances:
            os.close(fd)
    parent = handshake.ParentEnd(ours, _PATIENCE)
    console: int | None = None
    try:
        cloned(made)
        ready = parent.wait_until_ready()
        console = ready.console
        warnings = (*ready.warnings, *identity.set_limits(made.pid, wanted))
        parent.go()
    except BaseException:
        _kill(made)
        os.close(made.pidfd)
        if console is not None:
            os.close(console)
        raise
    finally:
        parent.close()
    return Entered(pid=made.pid, pidfd=made.pidfd, console=console, warnings=warnings)


def _clone_inside(flags: int, cgroup: Cgroup | None, container: int) -> Cloned:
    """All namespaces are entered before the clone, which alone may be seen from inside: this process sets its
    own aside for that moment, by descriptors that lead to no file of the host."""
    with contextlib.ExitStack() as opened:
        own = {kind: _open_own(name, opened) for kind, name in _KINDS.items()}
        directory = os.getcwd()
        cgroup_fd = cgroup.open_for_clone() if cgroup is not None else None
        if cgroup_fd is not None:
            opened.callback(os.close, cgroup_fd)
        pid = pidfd = -1
        try:
            namespace.setns(container, _NAMESPACES)
            namespace.setns(container, namespace.CLONE_NEWPID)
            pid, pidfd = namespace.clone(flags, cgroup_fd)
        finally:
            if pid != 0:
                for kind, fd in own.items():
                    namespace.setns(fd, kind)
                os.chdir(directory)
        return Cloned(pid=pid, pidfd=pidfd)


_KINDS = {
    namespace.CLONE_NEWNS: "mnt",
    namespace.CLONE_NEWNET: "net",
    namespace.CLONE_NEWIPC: "ipc",
    namespace.CLONE_NEWUTS: "uts",
    namespace.CLONE_NEWPID: "pid",
}


def _open_own(kind: str, opened: contextlib.ExitStack) -> int:
    fd = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, fd)
    return fd


def _kill(cloned: Cloned) -> None:
    """In a frozen container it dies when that is thawed, and is reaped by who reaps the shim's children."""
    with contextlib.suppress(ProcessLookupError):
        namespace.pidfd_send_signal(cloned.pidfd, signal.SIGKILL)
    select.select([cloned.pidfd], [], [], 0.5)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(cloned.pid, os.WNOHANG)


def _run(child: process.Child, container: int, cgroup: Sequence[int], ids: IdRange | None) -> NoReturn:
    try:
        child.step = "start a session"
        process.start_session(child)  # not dumpable before it can be seen from inside (CVE-2016-9962)
        child.step = "enter the cgroup"
        for fd in cgroup:
            os.write(fd, b"0")
        child.step = "enter the namespaces"
        if ids is None:
            namespace.setns(container, namespace.CLONE_NEWCGROUP)
        else:
            userns.give((child.stdio.stdin, child.stdio.stdout, child.stdio.stderr), ids)
            namespace.setns(container, namespace.CLONE_NEWCGROUP | namespace.CLONE_NEWUSER)
            userns.become_root()
        child.step = "find the user"
        process.find_user(child)
        child.step = "connect standard streams"
        process.connect(child)
        child.step = "make a keyring"
        process.new_keyring(child)
        child.step = "enter the working directory"
        process.enter_directory(child)
        child.step = "wait for the shim"
        child.shim.ready(child.master, child.warnings)
        if child.master is not None:
            os.close(child.master)
        child.shim.wait_for_go()
        child.step = "confine"
        process.confine(child)
        child.step = "exec"
        process.execute(child)
    except BaseException as error:
        process.report(child, error)
    os._exit(1)
