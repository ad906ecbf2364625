"""From a prepared child to the program: what PID 1 and an exec'd process have in common.

Everything here runs between clone and execve, in a process of one thread that leaves by execve or `os._exit`.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from hawse_agent.errors import HawseError, NotFound
from hawse_agent.linux import libc, privilege, seccomp, tree
from hawse_agent.runtime import console, identity
from hawse_agent.runtime.handshake import ChildEnd
from hawse_agent.spec.runtime import ProcessConfig

NOT_FOUND, NOT_EXECUTABLE, ENGINE = 127, 126, 125

_CLOSE_RANGE_CLOEXEC = 4
_MAX_INTERPRETERS, _FIRST_LINE = 5, 256  # as the kernel has them
_CATCHABLE = tuple(number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP))


@dataclass(frozen=True, kw_only=True)
class Stdio:
    """Fds for 0, 1 and 2; None is /dev/null. Not used with a tty. They stay the caller's."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


class ExecFailed(Exception):
    """With Docker's exit code: 126 it cannot be executed, 127 it is not there."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(kw_only=True)
class Child:
    """What the steps share. `step` is the one that is being done, for the report of a failure."""

    process: ProcessConfig
    stdio: Stdio
    shim: ChildEnd
    filter: seccomp.Filter | None
    step: str = "start"
    warnings: list[str] = field(default_factory=list)
    user: identity.User = identity.User(uid=0, gid=0, groups=(0,), home="/")
    env: dict[str, str] = field(default_factory=dict)
    master: int | None = None
    in_directory: bool = True
    own_program: tuple[int, int] = (0, 0)
    """See `own_program`."""


def report(child: Child, error: BaseException) -> None:
    """Tell the shim what failed, and leave."""
    if isinstance(error, ExecFailed):
        message, code = str(error), error.exit_code
    elif isinstance(error, HawseError):
        message, code = f"{child.step}: {error.message}", ENGINE
    elif isinstance(error, OSError):
        named = f" {error.filename}" if error.filename else ""
        message, code = f"{child.step}:{named} {error.strerror}", ENGINE
    else:
        message, code = f"{child.step}: {type(error).__name__}: {error}", ENGINE
    child.shim.failed(child.step, f"unable to start container process: {message}", code)
    os._exit(1)


def own_program() -> tuple[int, int]:
    """Device and inode of what this process runs from. By the host's /proc: a container's may be forged."""
    program = os.stat("/proc/self/exe")
    return program.st_dev, program.st_ino


def start_session(child: Child) -> None:
    """Out of the shim's session and signal handling; memory and fds hidden from who shares the namespaces."""
    privilege.set_dumpable(False)
    signal.set_wakeup_fd(-1)
    for (
        number
    ) in _CATCHABLE:  # an ignored signal would stay so in the program; Python ignores SIGPIPE, SIGXFSZ
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.umask(0)


def new_keyring(child: Child) -> None:
    """Keys of the host's session are not the container's."""
    try:
        privilege.new_session_keyring()
    except OSError as error:  # no keyrings in this kernel, forbidden to us, or root's quota is used up
        child.warnings.append(f"no session keyring of its own: {error.strerror}")


def find_user(child: Child) -> None:
    child.user = identity.resolve_user(child.process.user, child.process.group_add)
    child.env = identity.with_home(child.process.env, child.user.home)


def connect(child: Child) -> None:
    """0, 1 and 2: a terminal of the container's own, or what the shim gave."""
    if child.process.tty:
        opened = console.open_console(
            child.user.uid, child.process.console_height, child.process.console_width
        )
        child.master = opened.master
        console.control(opened.slave)
        for number in (0, 1, 2):
            os.dup2(opened.slave, number)
        os.close(opened.slave)
        return
    # Copies above 2 first: what is meant for 1 may lie on 0.
    copies = [_copy(fd) for fd in (child.stdio.stdin, child.stdio.stdout, child.stdio.stderr)]
    for number, fd in enumerate(copies):
        os.dup2(fd, number)
        os.close(fd)
        _give_to(number, child.user.uid)


def enter_directory(child: Child) -> None:
    """Tried again as the user, who may be able to where a root without capabilities is not."""
    try:
        _change_directory(child.process.cwd)
    except PermissionError:
        child.in_directory = False
    except OSError as error:
        raise ExecFailed(
            f'chdir to cwd ("{child.process.cwd}") set in config.json failed: {_reason(error)}',
            NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE,
        ) from error


def confine(child: Child) -> None:
    """The order matters: the filter needs CAP_SYS_ADMIN (unless no_new_privs), the bounding set CAP_SETPCAP,
    both are gone once the user has changed; the death signal is forgotten when credentials change."""
    if child.filter is not None and not child.process.no_new_privileges:
        seccomp.load(child.filter)
    identity.drop_bounding_set(child.process.capabilities)
    identity.become(child.user, child.process.capabilities)
    if not child.in_directory:
        _change_directory(child.process.cwd)
    if not os.getcwd().startswith("/"):  # "(unreachable)": a leaked fd of the host (CVE-2024-21626)
        raise ExecFailed("current working directory is outside of container mount namespace root", ENGINE)
    os.umask(0o022)
    if child.process.no_new_privileges:
        privilege.no_new_privileges()


def execute(child: Child) -> None:
    """Never returns: the program runs, or ExecFailed."""
    argv0 = child.process.argv[0]
    try:
        path = find_program(argv0, child.env)
    except ValueError as error:  # a NUL in it
        raise ExecFailed(f"exec: {error}", NOT_EXECUTABLE) from error
    if _leads_to(path, child.own_program):
        raise ExecFailed(f'exec: "{argv0}": permission denied: it supervises the container', NOT_EXECUTABLE)
    let_go(child, keep=3)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execve(path, child.process.argv, child.env)
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise ExecFailed(f"exec {path}: {_reason(error)}", code) from error
    except ValueError as error:  # an argument or a variable with a NUL, or without a name
        raise ExecFailed(f"exec {path}: {error}", NOT_EXECUTABLE) from error


def let_go(child: Child, *, keep: int) -> None:
    """The last thing before an exec: die with the parent, and take no descriptor along but the first ones."""
    privilege.die_with_parent()
    if not child.shim.parent_lives():
        os._exit(ENGINE)
    if child.filter is not None and child.process.no_new_privileges:
        seccomp.load(child.filter)
    libc.syscall("close_range", keep, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def find_program(argv0: str, env: Mapping[str, str]) -> str:
    """As execvp does, in the container's own PATH and as its user; with Docker's messages."""
    if "/" in argv0:
        _check_program(argv0, argv0)
        return argv0
    denied = None
    for directory in env.get("PATH", "").split(":"):
        path = os.path.join(directory or ".", argv0)
        try:
            _check_program(argv0, path)
        except NotFound:
            continue
        except ExecFailed as error:
            denied = denied or error
            continue
        return path
    if denied is not None:
        raise denied
    raise ExecFailed(f'exec: "{argv0}": executable file not found in $PATH', NOT_FOUND)


def _check_program(argv0: str, path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if argv0 != path and isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise NotFound(path) from error
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise ExecFailed(f'exec: "{argv0}": stat {path}: {_reason(error)}', code) from error
    if stat.S_ISDIR(mode):
        if argv0 != path:
            raise NotFound(path)
        raise ExecFailed(f'exec: "{argv0}": is a directory', NOT_EXECUTABLE)
    if not os.access(path, os.X_OK, effective_ids=True):
        raise ExecFailed(f'exec: "{argv0}": permission denied', NOT_EXECUTABLE)


def _leads_to(path: str, program: tuple[int, int]) -> bool:
    """Whether `path`, or the interpreter that it names, is that file: /proc/self/exe is ours until the exec
    (CVE-2019-5736). What cannot be read here is left to the exec: `linux.sealed` protects the file itself."""
    for _ in range(_MAX_INTERPRETERS):
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) == program:
                return True
            if not stat.S_ISREG(status.st_mode):
                return False
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            first = os.read(fd, _FIRST_LINE)
            os.close(fd)
        except OSError:
            return False
        words = first.partition(b"\n")[0][2:].split(maxsplit=1)
        if not first.startswith(b"#!") or not words:
            return False
        path = os.fsdecode(words[0])
    return False


def _change_directory(path: str) -> None:
    """No link to a descriptor is followed: one of ours might be a directory of the host (CVE-2024-21626)."""
    try:
        fd = tree.open_absolute(path, tree.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)


def _copy(fd: int | None) -> int:
    if fd is None:
        return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    return os.dup(fd)


def _give_to(fd: int, uid: int) -> None:
    """So that the user can open /dev/stdout again; a device or a terminal stays whose it is."""
    status = os.fstat(fd)
    if status.st_uid == uid or stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return
    try:
        os.fchown(fd, uid, -1)
    except OSError:
        pass  # a read-only file system, or none that knows owners: it works without


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
