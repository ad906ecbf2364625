"""The zygote: a small single-threaded process that forks shims and the name server for the daemon.

    daemon ── SEQPACKET, a word and a descriptor ──► zygote ── fork ──► shim | name server

It is forked before the daemon has a thread and before heavy imports, so a shim costs a fork of little memory
(0.35 ms). Everything that a shim needs is imported here once. It dies with nothing of a container in its
hands: shims are in sessions of their own, and init inherits them. A dead one is replaced by executing the
agent again (`hawse-agent zygote --fd N`), never by forking the daemon, which has threads by then.

Imports neither asyncio, sqlite3, logging nor threading, which has work to do at each fork that costs a shim
half a megabyte. After a fork: no locks, no imports; `os._exit`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hawse_agent.errors import InternalError
from hawse_agent.linux import privilege

_MAX_MESSAGE = 8192
_ROOM = socket.CMSG_SPACE(4)
_SHIM, _NAMES, _DONE = b"shim ", b"names", b"done"
REPLY_TIMEOUT = 10.0

Run = Callable[[str, socket.socket], None]
"""What a forked shim runs: `supervise.shim.main(runtime, starter)`."""
Serve = Callable[[socket.socket], None]
"""What the forked name server runs: `network.dns.serve(listener)`."""


class Zygote:
    """The daemon's handle. Thread-safe; raises InternalError when no zygote can be had."""

    def __init__(self, connection: socket.socket, command: list[str], pid: int) -> None:
        self._connection = connection
        self._pid = pid
        self._command = command
        self._lock = allocate_lock()

    @classmethod
    def fork(cls, command: list[str], run: Run, serve: Serve, *, close: Sequence[int] = ()) -> Zygote:
        """Fork one from this process, which must have no threads yet.

        `command` starts another one later: it gets `--fd N` appended. `close` are descriptors of the daemon's
        own that must not outlive it: its lock.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                for fd in close:
                    os.close(fd)
                main(theirs, run, serve)
            finally:
                os._exit(0)
        theirs.close()
        return cls(ours, command, pid)

    def start_shim(self, runtime: Path) -> socket.socket:
        """Fork a shim for the container that `runtime` describes; returns the daemon's end of its
        starter socket."""
        ours, theirs = socket.socketpair()
        try:
            self._ask(_SHIM + os.fsencode(runtime), theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def start_dns(self, listener: socket.socket) -> None:
        """Fork a name server that serves on `listener`, which stays the caller's to close."""
        self._ask(_NAMES, listener)

    def close(self) -> None:
        """The zygote leaves when its socket closes; what it forked stays."""
        with self._lock:
            self._connection.close()

    def _ask(self, request: bytes, carried: socket.socket) -> None:
        with self._lock:
            try:
                self._exchange(request, carried)
            except (ConnectionError, EOFError):
                self._replace()
                try:
                    self._exchange(request, carried)
                except (ConnectionError, EOFError, TimeoutError) as error:
                    raise InternalError("the zygote does not answer, not even a new one") from error

    def _exchange(self, request: bytes, carried: socket.socket) -> None:
        self._connection.settimeout(REPLY_TIMEOUT)
        socket.send_fds(self._connection, [request], [carried.fileno()])
        answer = self._connection.recv(_MAX_MESSAGE)
        if not answer:
            raise EOFError
        if answer != _DONE:
            raise InternalError(f"the zygote could not fork: {answer.decode()}")

    def _replace(self) -> None:
        self._connection.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = theirs.fileno()
        with contextlib.suppress(ChildProcessError):  # an attempt before this one has reaped it
            os.waitpid(self._pid, 0)  # it has closed its socket, so it ends
        self._pid = os.posix_spawn(
            self._command[0],
            [*self._command, "--fd", "3"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, 3)],
        )
        theirs.close()
        self._connection = ours


def main(connection: socket.socket, run: Run, serve: Serve) -> None:
    """The zygote's loop; returns when the daemon is gone."""
    os.setsid()
    privilege.set_title("hawse-agent: zygote")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for shims: the kernel reaps them
    gc.collect()
    gc.freeze()  # or the collector would write to, and so copy, every page a shim shares
    while True:
        # What is written to between two forks is no longer shared with the shims that are there: bare calls.
        request, carried, _, _ = connection.recvmsg(_MAX_MESSAGE, _ROOM)
        if not request:
            return
        answer = _DONE
        try:
            if os.fork() == 0:
                _leave_home(connection, run, serve, request, carried[0][2])
        except OSError as error:
            answer = os.strerror(error.errno or 0).encode()
        os.close(int.from_bytes(carried[0][2], sys.byteorder))
        try:
            connection.send(answer)
        except OSError:
            pass  # the daemon is gone: the next read says so


def _leave_home(connection: socket.socket, run: Run, serve: Serve, request: bytes, fd: bytes) -> NoReturn:
    """In the child: a session of its own, which init inherits when the zygote dies."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.close()
        carried = socket.socket(fileno=int.from_bytes(fd, sys.byteorder))
        carried.set_inheritable(False)
        if request == _NAMES:
            privilege.set_title("hawse-agent: names")
            serve(carried)
        else:
            run(os.fsdecode(request.removeprefix(_SHIM)), carried)
    except BaseException as error:
        print(f"hawse-agent: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)
