"""What SSH runs: joins stdin and stdout with the daemon's socket, and starts the daemon if need be.

Says first who answers, after a magic word, so that what a login shell prints before it can be skipped.
Imports next to nothing: it runs once for every connection.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading

from hawse_agent import launch, locations

MAGIC = b"\0HAWSE\0"
PROTOCOL = 1
CHUNK = 1 << 16


def main(root: str) -> int:
    """Returns when the daemon has closed the connection or the controller is gone."""
    run = os.path.join(os.path.abspath(root), "run") if root else locations.RUN
    connection = _connect(run) or _start(run, root)
    if connection is None:
        return 1
    os.write(1, MAGIC + _preamble(run) + b"\n")
    threading.Thread(target=_upstream, args=(connection,), daemon=True).start()
    _downstream(connection)
    return 0


def _connect(run: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.path.join(run, "agent.sock"))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def _start(run: str, root: str) -> socket.socket | None:
    """Start the daemon, one at a time, and connect; None when it does not start, which was said then."""
    os.makedirs(run, mode=0o711, exist_ok=True)
    lock = os.open(os.path.join(run, locations.START_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = _connect(run)  # somebody else may have started it in the meantime
        if connection is not None:
            return connection
        if not root and os.path.exists("/run/systemd/system") and _by_systemd():
            return _connect(run)
        problem = _spawn(root)
        if problem:
            print(f"hawse-agent: {problem}", file=sys.stderr)
            return None
        return _connect(run)
    finally:
        os.close(lock)


def _by_systemd() -> bool:
    """The unit's own daemon, where there is the unit: in its cgroup, and restarted by systemd."""
    if not os.path.exists("/etc/systemd/system/hawse-agent.service"):
        return False
    pid = os.posix_spawnp("systemctl", ["systemctl", "start", "hawse-agent.service"], os.environ)
    return os.waitpid(pid, 0)[1] == 0


def _spawn(root: str) -> str:
    """Fork the daemon off, wait until it serves; returns what is wrong with it, or nothing."""
    lib = os.path.join(os.path.abspath(root), "lib") if root else locations.LIB
    os.makedirs(lib, mode=0o711, exist_ok=True)
    path = os.path.join(lib, "daemon.log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    said_before = os.fstat(log).st_size
    ready, tell = os.pipe()
    os.set_inheritable(tell, True)
    arguments = ["daemon", "--ready-fd", str(tell), *(["--root", root] if root else [])]
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            null = os.open("/dev/null", os.O_RDONLY)
            for fd, number in ((null, 0), (log, 1), (log, 2)):
                os.dup2(fd, number)
            command = launch.command(*arguments)
            os.execve(command[0], command, os.environ)
        os._exit(0)
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


def _preamble(run: str) -> bytes:
    """Of the daemon that answers, which may be older than this program."""
    with open(os.path.join(run, locations.DAEMON_LOCK)) as file:
        pid, version, *bundle = file.read().split()
    name = bundle[0] if bundle else ""
    return f'{{"protocol":{PROTOCOL},"version":"{version}","bundle":"{name}","pid":{pid}}}'.encode()


def _upstream(connection: socket.socket) -> None:
    try:
        while data := os.read(0, CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the daemon has closed: the other direction ends, too


def _downstream(connection: socket.socket) -> None:
    try:
        while data := connection.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    except OSError:
        pass  # the controller is gone, or the daemon was killed
