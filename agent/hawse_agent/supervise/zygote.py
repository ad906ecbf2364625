"""The zygote: a small single-threaded process that forks shims and the name server for the daemon.

    daemon ── SEQPACKET, JSON + descriptors ──► zygote ── fork, fork ──► shim | name server

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
import json
import os
import signal
import socket
import sys
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hawse_agent.errors import InternalError
from hawse_agent.linux import privilege

_MAX_MESSAGE = 1 << 16
REPLY_TIMEOUT = 10.0

Run = Callable[[Path, socket.socket], None]
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
            self._ask({"op": "shim", "runtime": str(runtime)}, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def start_dns(self, listener: socket.socket) -> None:
        """Fork a name server that serves on `listener`, which stays the caller's to close."""
        self._ask({"op": "dns"}, listener)

    def close(self) -> None:
        """The zygote leaves when its socket closes; what it forked stays."""
        with self._lock:
            self._connection.close()

    def _ask(self, request: dict[str, Any], carried: socket.socket) -> None:
        with self._lock:
            try:
                self._exchange(request, carried)
            except (ConnectionError, EOFError):
                self._replace()
                try:
                    self._exchange(request, carried)
                except (ConnectionError, EOFError, TimeoutError) as error:
                    raise InternalError("the zygote does not answer, not even a new one") from error

    def _exchange(self, request: dict[str, Any], carried: socket.socket) -> None:
        self._connection.settimeout(REPLY_TIMEOUT)
        socket.send_fds(self._connection, [json.dumps(request).encode()], [carried.fileno()])
        answer = self._connection.recv(_MAX_MESSAGE)
        if not answer:
            raise EOFError
        problem = json.loads(answer).get("error")
        if problem:
            raise InternalError(f"the zygote could not fork: {problem}")

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
        data, fds, _, _ = socket.recv_fds(connection, _MAX_MESSAGE, 1)
        if not data:
            return
        request = json.loads(data)
        carried = socket.socket(fileno=fds[0])
        try:
            if request["op"] == "shim":
                _fork_detached(connection, partial(run, Path(request["runtime"]), carried))
            else:
                _fork_detached(connection, partial(_serve_names, serve, carried))
            answer: dict[str, Any] = {}
        except OSError as error:
            answer = {"error": os.strerror(error.errno or 0)}
        carried.close()
        with contextlib.suppress(ConnectionError):  # the daemon is gone: the next read says so
            connection.send(json.dumps(answer).encode())


def _serve_names(serve: Serve, listener: socket.socket) -> None:
    privilege.set_title("hawse-agent: names")
    serve(listener)


def _fork_detached(connection: socket.socket, work: Callable[[], None]) -> None:
    """Run `work` in a child in a session of its own, which init inherits when the zygote dies."""
    if os.fork():
        return
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.close()
        work()
    except BaseException as error:
        print(f"hawse-agent: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)
