"""A session: one command, with all that it starts, in namespaces and cgroups of its own.

    keeper            outside; owns the session's directory and cgroups, removes them at the end
    └── init          PID 1 of the session: mounts /proc /sys /run and the cgroups, reaps orphans
        └── command   pytest, the demo, a shell

Whatever the command leaves behind (links, nft tables, mounts, daemons) is gone when it ends, even by
SIGKILL, and the machine's own network namespace is never touched. Root file system, HOME and /tmp are
the machine's. Run by hand: `python -m tests.support.isolation -- bash`.

Refuses to run without root. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import cgrouptree, linux

STATE = Path("/var/tmp/hawse-test")
SESSION_ENV = "HAWSE_TEST_SESSION"
PID_ENV = "HAWSE_TEST_PID"
OUTER_NETNS_ENV = "HAWSE_TEST_OUTER_NETNS"


@dataclass(frozen=True, kw_only=True)
class Session:
    """The session that this process runs in."""

    name: str
    directory: Path

    @property
    def pid(self) -> int:
        """Its PID 1 as the machine numbers it: what `nsenter --target` takes."""
        return int(os.environ[PID_ENV])


def current() -> Session | None:
    """The session that this process runs in; None on the machine itself."""
    name = os.environ.get(SESSION_ENV, "")
    # A variable can be inherited by mistake: what counts is that the network namespace is another one.
    if not name or os.environ.get(OUTER_NETNS_ENV) == os.readlink("/proc/self/ns/net"):
        return None
    return Session(name=name, directory=STATE / name)


def use_own_tmp(session: Session) -> None:
    """Gives the session a /tmp of its own, on a real file system, so that what tests leave there is seen."""
    directory = session.directory / "tmp"
    if not directory.exists():
        directory.mkdir()
        directory.chmod(0o1777)
        linux.mount(str(directory), "/tmp", None, linux.MS_BIND)


def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | Path | None = None) -> int:
    """Runs a command in a session of its own; returns its exit code (128 + signal when killed)."""
    sweep()
    with _session_directory() as session:
        where = cgrouptree.hierarchies()
        subtree = cgrouptree.make_subtree(f"hawse-test-{session.name}", where)
        try:
            init = _fork_init(argv, env=env, cwd=cwd, session=session, where=where, subtree=subtree)
            return _wait_forwarding(init)
        finally:
            subtree.remove()


def sweep() -> None:
    """Removes what sessions have left whose keeper was killed."""
    with _state_locked():
        for directory in STATE.iterdir():
            _remove_if_stale(directory)


def _remove_if_stale(directory: Path) -> None:
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return  # not a session, or one that is just being removed
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if directory.is_dir():  # else its keeper has removed it meanwhile
            name = f"hawse-test-{directory.name}"
            stale = [hierarchy.child(name) for hierarchy in cgrouptree.hierarchies()]
            cgrouptree.Subtree(directories=tuple(path for path in stale if path.is_dir())).remove()
            shutil.rmtree(directory)
    except BlockingIOError:
        return  # its keeper lives
    finally:
        os.close(fd)


@contextlib.contextmanager
def _state_locked() -> Iterator[None]:
    """So that nobody takes a session that is just being made for one left behind."""
    STATE.mkdir(parents=True, exist_ok=True)
    fd = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _session_directory() -> Iterator[Session]:
    name = f"s{os.getpid()}"
    directory = STATE / name
    with _state_locked():
        directory.mkdir()
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield Session(name=name, directory=directory)
    finally:
        shutil.rmtree(directory)
        os.close(fd)


def _fork_init(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | Path | None,
    session: Session,
    where: list[cgrouptree.Hierarchy],
    subtree: cgrouptree.Subtree,
) -> int:
    environment = {
        **(os.environ if env is None else env),
        SESSION_ENV: session.name,
        OUTER_NETNS_ENV: os.readlink("/proc/self/ns/net"),
    }
    sys.stdout.flush()
    sys.stderr.flush()
    linux.unshare(linux.CLONE_NEWPID)  # takes effect for the child
    pid = os.fork()
    if pid:
        return pid
    status = 125
    try:
        environment[PID_ENV] = os.readlink("/proc/self")  # still the machine's /proc
        linux.die_with_parent()
        if os.getppid() == 1:
            os._exit(status)
        subtree.enter()
        linux.unshare(
            linux.CLONE_NEWCGROUP
            | linux.CLONE_NEWNS
            | linux.CLONE_NEWNET
            | linux.CLONE_NEWUTS
            | linux.CLONE_NEWIPC
        )
        _set_up(where)
        status = _init(argv, environment, cwd)
    except BaseException as error:
        print(f"session: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _set_up(where: list[cgrouptree.Hierarchy]) -> None:
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    for hierarchy in where:
        linux.umount(hierarchy.mountpoint, linux.MNT_DETACH)
    linux.umount("/sys", linux.MNT_DETACH)  # a fresh one shows this network namespace's links
    linux.mount("sysfs", "/sys", "sysfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    cgrouptree.mount_view(where, Path("/sys/fs/cgroup"))
    cgrouptree.leave_root(where)
    linux.mount("tmpfs", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for directory, mode in (("lock", 0o1777), ("user", 0o755), ("sshd", 0o755)):
        Path("/run", directory).mkdir()
        Path("/run", directory).chmod(mode)
    socket.sethostname("hawse-test")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0\n")  # may be inherited from the machine


def _init(argv: Sequence[str], env: Mapping[str, str], cwd: str | Path | None) -> int:
    """Runs the command and reaps every orphan until it ends; then the kernel ends the rest."""
    command = os.fork()
    if command == 0:
        try:
            if cwd is not None:
                os.chdir(cwd)
            for number in (signal.SIGINT, signal.SIGQUIT):  # a shell ignores them in its background jobs
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(argv[0], list(argv), dict(env))
        except OSError as error:
            print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)
    linux.set_name("hawse-session")
    return _wait_forwarding(command)


def _wait_forwarding(child: int) -> int:
    """Waits for `child`, passes SIGTERM and SIGHUP on; the terminal sends SIGINT to all by itself."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main() -> int:
    argv = sys.argv[1:]
    if argv[:1] == ["--"]:
        argv = argv[1:]
    if os.geteuid() != 0:
        print("session: needs root", file=sys.stderr)
        return 125
    return run(argv or ["bash"])


if __name__ == "__main__":
    sys.exit(main())
