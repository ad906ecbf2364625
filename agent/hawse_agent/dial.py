"""What SSH runs: joins stdin and stdout with the daemon's socket, and starts the daemon if need be.

Says first who answers, after a magic word, so that what a login shell prints before it can be skipped.
Imports next to nothing, because it runs once for every connection: `socket` and `threading` alone would take
as long as the rest.
"""

from __future__ import annotations

import _socket
import _thread
import fcntl
import os
import select
import sys

from hawse_agent import launch, locations

MAGIC = b"\0HAWSE\0"
PROTOCOL = 1
CHUNK = 1 << 16
UNIT = "/etc/systemd/system/hawse-agent.service"

Socket = _socket.socket


def main(root: str) -> int:
    """Returns when the daemon has closed the connection or the controller is gone."""
    root = os.path.abspath(root) if root else ""
    run = os.path.join(root, "run") if root else locations.RUN
    connected = _connect(run) or _start(run, root)
    if connected is None:
        return 1
    connection, preamble = connected
    _write(MAGIC + preamble + b"\n")
    _thread.start_new_thread(_upstream, (connection,))
    _downstream(connection)
    return 0


def _connect(run: str) -> tuple[Socket, bytes] | None:
    """With how the daemon presents itself; it may be older than this program. None where none serves, or
    only for as long as it takes to leave."""
    connection = Socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(os.path.join(run, "agent.sock"))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    with open(os.path.join(run, locations.DAEMON_LOCK)) as file:
        pid, version, *bundle = file.read().split()
    if version == locations.LEAVING:
        connection.close()
        return None
    name = bundle[0] if bundle else ""
    return connection, (
        f'{{"protocol":{PROTOCOL},"version":"{version}","bundle":"{name}","pid":{pid}}}'.encode()
    )


def _start(run: str, root: str) -> tuple[Socket, bytes] | None:
    """Start the daemon, one at a time, and connect; None when it does not start, which was said then."""
    os.makedirs(run, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(run, locations.START_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connected = _connect(run)  # somebody else may have started it in the meantime
        if connected is not None:
            return connected
        if root or not _by_systemd():
            problem = _spawn(root)
            if problem:
                print(f"hawse-agent: {problem}", file=sys.stderr)
                return None
        connected = _connect(run)
        if connected is None:
            print("hawse-agent: the daemon has started, and ended again", file=sys.stderr)
        return connected
    finally:
        os.close(lock)


def _by_systemd() -> bool:
    """The unit's own daemon, where there is the unit: in its cgroup, and restarted by systemd."""
    if not os.path.exists("/run/systemd/system") or not os.path.exists(UNIT):
        return False
    pid = os.posix_spawnp("systemctl", ["systemctl", "start", "hawse-agent.service"], os.environ)
    return os.waitpid(pid, 0)[1] == 0


def _spawn(root: str) -> str:
    """Fork the daemon off, wait until it serves; returns what is wrong with it, or nothing."""
    lib = os.path.join(root, "lib") if root else locations.LIB
    os.makedirs(lib, mode=0o700, exist_ok=True)
    path = os.path.join(lib, "daemon.log")
    _rotate(path)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    said_before = os.fstat(log).st_size
    ready, tell = os.pipe()
    os.set_inheritable(tell, True)
    command = launch.command("daemon", "--ready-fd", str(tell), *(["--root", root] if root else []))
    child = os.fork()
    if child == 0:
        _become(command, log)
    os.waitpid(child, 0)
    os.close(tell)
    serves = os.read(ready, 1)
    os.close(ready)
    os.close(log)
    if serves:
        return ""
    with open(path, "rb") as file:
        file.seek(said_before)
        lines = file.read().decode(errors="replace").splitlines()
    own = [line for line in lines if line.startswith("hawse-agent: ")]
    return (own or lines or ["the daemon ended without a word"])[-1].removeprefix("hawse-agent: ")


def _rotate(path: str) -> None:
    """Before a daemon writes to it. Shims of the one before go on with the old one, which is `.1` now."""
    try:
        if os.stat(path).st_size > locations.MAX_LOG:
            os.rename(path, f"{path}.1")
    except FileNotFoundError:
        pass  # the first daemon here


def _become(command: list[str], log: int) -> None:
    """In a forked child: execute the daemon in a grandchild, whose parent is init."""
    try:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            for fd, number in ((null, 0), (log, 1), (log, 2)):
                os.dup2(fd, number)
            os.execve(command[0], command, os.environ)
    finally:
        os._exit(1)


def _upstream(connection: Socket) -> None:
    try:
        while data := os.read(0, CHUNK):
            connection.sendall(data)
        connection.shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # the daemon has closed: the other direction ends, too


def _downstream(connection: Socket) -> None:
    """Also notices when nobody reads stdout any more, and then hangs up: the daemon is to know at once."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    poll.register(1, 0)  # only that it has broken
    try:
        while 1 not in (ready := dict(poll.poll())) or connection.fileno() in ready:
            data = connection.recv(CHUNK)
            if not data:
                return
            _write(data)
    except OSError:
        pass  # the controller is gone, or the daemon was killed


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
