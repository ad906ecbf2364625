"""A test host from inside: makes its namespaces, then is its PID 1.

    starter            python -m tests.support.hostinit; configuration as one JSON line on stdin
    └── PID 1          mounts, network, sshd; reaps orphans; runs commands asked for on `control`
        ├── sshd
        └── …

Talks to `tests.support.testhost` by lines on stdout (`pid N`, `ready`, `failed TEXT`) and one line on
stdin (`go`, once the host's end of the cable is in its network namespace). When stdin closes, or PID 1 is
killed, everything in the host ends at once, like a power cut. Standard library only; all imports happen
before the root is changed, since the interpreter may not exist in the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from tests.support import cgrouptree, linux

_OPTIONS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun", "loop-control", "loop0")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "TERM": "xterm"}


def main() -> int:
    """The starter: stays outside, so that PID 1 has a parent that waits for it and can end it."""
    config: dict[str, Any] = json.loads(sys.stdin.readline())
    os.setsid()  # a Ctrl-C in the tests' terminal is not for the host
    linux.unshare(linux.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        try:
            _become_init(config)
        except BaseException as error:
            print(f"failed {type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(1)
    pidfd = os.pidfd_open(pid)
    _say(f"pid {pid}")
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLHUP)
    if any(fd != pidfd for fd, _ in poll.poll()):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _become_init(config: dict[str, Any]) -> None:
    linux.die_with_parent()
    linux.set_name("hawse-host-init")
    where = cgrouptree.hierarchies()
    cgrouptree.Subtree(directories=tuple(Path(path) for path in config["cgroups"])).enter()
    linux.unshare(
        linux.CLONE_NEWCGROUP
        | linux.CLONE_NEWNS
        | linux.CLONE_NEWNET
        | linux.CLONE_NEWUTS
        | linux.CLONE_NEWIPC
    )
    _say("unshared")
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.bind(config["control"])
    control.listen(64)
    _mount_root(config, where)
    socket.sethostname(config["hostname"])
    if sys.stdin.readline() != "go\n":
        os._exit(1)
    _set_up_network(config)
    sshd = _start_sshd()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    _say("ready")
    os.dup2(null, 1)
    _Init(control, sshd).run()


def _mount_root(config: dict[str, Any], where: list[cgrouptree.Hierarchy]) -> None:
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    root = Path(config["root"])
    layers = f"lowerdir=/,upperdir={config['upper']},workdir={config['work']}"
    linux.mount("overlay", root, "overlay", 0, layers)
    linux.mount("proc", root / "proc", "proc", _OPTIONS)
    linux.mount("sysfs", root / "sys", "sysfs", _OPTIONS)
    cgrouptree.mount_view(where, root / "sys/fs/cgroup")
    for target, mode in (("run", "755"), ("tmp", "1777")):
        linux.mount("tmpfs", root / target, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"mode={mode}")
    for directory, mode_bits in (
        ("run/sshd", 0o755),
        ("run/mount", 0o755),
        ("run/lock", 0o1777),
        ("run/user", 0o755),
    ):
        (root / directory).mkdir()
        (root / directory).chmod(mode_bits)
    _mount_dev(root / "dev")
    # An overlay's upper directory cannot lie on an overlay: containers need a real file system here.
    linux.mount(config["lib"], root / "var/lib/hawse", None, linux.MS_BIND)
    # Every boot of a real host has another boot id; the kernel's would be the machine's.
    (root / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
    linux.mount(str(root / "run/boot_id"), root / "proc/sys/kernel/random/boot_id", None, linux.MS_BIND)
    os.chdir(root)
    linux.pivot_root(".", ".")
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")


def _mount_dev(dev: Path) -> None:
    linux.mount("tmpfs", dev, "tmpfs", linux.MS_NOSUID, "mode=755")
    for name in _DEVICES:
        source = Path("/dev", name)
        try:
            status = source.stat()
        except FileNotFoundError:
            continue  # this kernel does not have it
        (dev / name).parent.mkdir(exist_ok=True)
        os.mknod(dev / name, status.st_mode, status.st_rdev)
        (dev / name).chmod(stat.S_IMODE(status.st_mode))
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    options = "newinstance,ptmxmode=0666,mode=620,gid=5"
    linux.mount("devpts", dev / "pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)
    linux.mount("tmpfs", dev / "shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    linux.mount("mqueue", dev / "mqueue", "mqueue", _OPTIONS)


def _set_up_network(config: dict[str, Any]) -> None:
    batch = "\n".join(
        (
            "link set lo up",
            f"addr add {config['address']} dev eth0",
            f"addr add {config['address6']} dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {config['gateway']}",
        )
    )
    subprocess.run(["/usr/sbin/ip", "-batch", "-"], input=batch.encode(), env=ENVIRONMENT, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0\n")  # may be inherited from the machine


def _start_sshd() -> subprocess.Popen[bytes]:
    """sshd in the foreground; returns when it listens, which it says on stderr."""
    sshd = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": PATH, "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    assert sshd.stderr is not None
    said = b""
    while said.count(b"Server listening on") < 2:
        chunk = os.read(sshd.stderr.fileno(), 4096)
        if not chunk:
            raise RuntimeError(f"sshd ended: {said.decode(errors='replace')}")
        said += chunk
    return sshd


class _Init:
    """PID 1's loop. One connection on `control` is one command: closing it early kills the command."""

    def __init__(self, control: socket.socket, sshd: subprocess.Popen[bytes]) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._commands: dict[int, socket.socket] = {}
        self._log = os.open("/var/log/sshd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        assert sshd.stderr is not None
        self._sshd_stderr = sshd.stderr.fileno()
        self._wakeup, wakeup_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wakeup_in)

    def run(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)
        self._selector.register(self._sshd_stderr, selectors.EVENT_READ, self._copy_log)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._reap)
        self._reap()
        while True:
            for key, _ in self._selector.select():
                if key.fd in self._selector.get_map():  # not unregistered by an earlier one
                    key.data()

    def _copy_log(self) -> None:
        chunk = os.read(self._sshd_stderr, 65536)
        if chunk:
            os.write(self._log, chunk)
        else:
            self._selector.unregister(self._sshd_stderr)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            connection = self._commands.pop(pid, None)
            if connection is not None:
                self._answer(connection, {"status": os.waitstatus_to_exitcode(status)})
                self._selector.unregister(connection)
                connection.close()

    def _answer(self, connection: socket.socket, answer: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody waits for it any more
            connection.send(json.dumps(answer).encode())

    def _accept(self) -> None:
        connection, _ = self._control.accept()
        message, fds, _, _ = socket.recv_fds(connection, 1 << 20, 3, socket.MSG_CMSG_CLOEXEC)
        if not message:
            connection.close()
            return
        try:
            pid = _spawn(json.loads(message), fds)
        except OSError as error:
            self._answer(connection, {"errno": error.errno})
            connection.close()
            return
        finally:
            for fd in fds:
                os.close(fd)
        self._commands[pid] = connection
        self._answer(connection, {"pid": pid})
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._cancel(pid))

    def _cancel(self, pid: int) -> None:
        """The caller is gone (a timeout): its command goes too, with its whole session."""
        connection = self._commands.pop(pid)
        self._selector.unregister(connection)
        connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _spawn(request: dict[str, Any], fds: list[int]) -> int:
    """Forks a command into a session of its own; raises the OSError of a failed exec."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            # Received descriptors are above 2: 0 to 2 are taken since the start.
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            os.chdir(request["cwd"])
            os.execvpe(request["argv"][0], request["argv"], request["env"])
        except OSError as error:
            os.write(write, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(write)
    with open(read, "rb") as pipe:
        errno = pipe.read()
    if errno:
        os.waitpid(pid, 0)
        raise OSError(int(errno), os.strerror(int(errno)))
    return pid


if __name__ == "__main__":
    sys.exit(main())
