"""Makers: short-lived forks of a shim that make its container's processes, so that the shim stays small.

    shim ── fork ──► maker ── clone ──► process: the shim's child, not the maker's
      │◀─ spawned ─────┤                  │ waits
      ├── go ─────────▶│── go ───────────▶│ executes its program
      │◀─ running ─────┘                  │

Whatever Python code runs writes to the pages that it lies on (reference counts), and a shim keeps its copies
of them for as long as its container lives. Those of cgroups, clones and handshakes end with the maker. Nor
does the shim's loop wait for a process that is slow to get ready.

A maker that fails undoes what it did, says why and leaves. It dies with its shim; a process that it was at
then sees the other end of its handshake, or of the lifeline, close.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hawse_agent import failpoints
from hawse_agent.cgroups import OomNotifier
from hawse_agent.errors import HawseError, StartFailed, from_wire
from hawse_agent.linux import files, privilege
from hawse_agent.supervise.children import Children
from hawse_agent.supervise.loop import READ, Loop

_MAX_MESSAGE = 1 << 16
_MAX_DESCRIPTORS = 4


@dataclass(frozen=True, kw_only=True)
class Spawned:
    """A process that waits before its program. The descriptors are the receiver's."""

    pid: int
    pidfd: int
    netns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Running:
    """Its program runs. The descriptors are the receiver's."""

    console: int | None = None
    """The terminal's master."""
    oom: int | None = None
    oom_events: int = 0
    """With which of poll's events `oom` tells that memory has run out."""


class MakerEnd:
    """What a job talks to in the maker. Leaves when the shim has given the job up."""

    def __init__(self, sock: socket.socket, lifeline: int) -> None:
        self._sock = sock
        self.lifeline = lifeline
        """Its other end is the shim's alone: closed when that is dead."""

    def spawned(self, pid: int, fds: Sequence[int]) -> None:
        """`fds`: its pidfd, and its network namespace when it has one of its own."""
        self._send({"spawned": pid}, fds)

    def wait_for_go(self) -> None:
        if not self._sock.recv(16):
            raise StartFailed("the start was given up", step="start")

    def running(self, console: int | None, oom: OomNotifier | None = None) -> None:
        fds = [fd for fd in (console, None if oom is None else oom.fd) if fd is not None]
        events = 0 if oom is None else oom.events
        self._send({"running": True, "console": console is not None, "oom": events}, fds)

    def failed(self, error: HawseError) -> None:
        self._send({"failed": error.to_wire()}, ())

    def _send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        socket.send_fds(self._sock, [json.dumps(message).encode()], list(fds))


Job = Callable[[MakerEnd], None]
"""Makes one process: tells `spawned`, waits for go, tells `running`. Raises HawseError or OSError after it
has undone everything."""


class Maker:
    """The shim's end of one job. `spawned` and then `running` are called, and `ended` with the exit code when
    the process has ended after that; or `failed`, once the maker has left."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        job: Job,
        *,
        running: Callable[[Running], None],
        failed: Callable[[HawseError], None],
        ended: Callable[[int], None],
        spawned: Callable[[Spawned], None],
        keep: Sequence[int],
        go: bool = True,
    ) -> None:
        """`keep`: the descriptors that the job uses; a client whose stream ends shall not wait for a maker
        that has a copy. `go`: at once; else when `go()` is called."""
        self._loop, self._children = loop, children
        self._running, self._failed, self._ended, self._spawned = running, failed, ended, spawned
        self._may_go = go
        self._error: HawseError | None = None
        self._child = 0
        self._runs = False
        self._early: int | None = None
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline, self._alive = os.pipe2(os.O_CLOEXEC)
        shim = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._sock.close()
            os.close(self._alive)
            _run(job, MakerEnd(theirs, lifeline), shim, (theirs.fileno(), lifeline, *keep))
        theirs.close()
        os.close(lifeline)
        self._sock.setblocking(False)
        children.expect(pid, self._maker_left)
        children.announce()
        loop.add(self._sock.fileno(), READ, lambda _: self._receive())

    def go(self) -> None:
        self._may_go = True
        if self._child and not self._closed:
            try:
                self._sock.send(b"go")
            except OSError:
                pass  # it has failed, and says why

    def give_up(self) -> None:
        """`failed` follows when all is undone, unless the process runs already."""
        if not self._runs:
            self._close()

    @property
    def _closed(self) -> bool:
        return self._sock.fileno() < 0

    def _receive(self) -> None:
        """All that has come."""
        while not self._closed:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, _MAX_MESSAGE, _MAX_DESCRIPTORS)
            except BlockingIOError:
                return
            except ConnectionResetError:  # told once when it has left without reading all: its words follow
                continue
            if not data:
                self._close()
                return
            for fd in fds:
                os.set_inheritable(fd, False)
            self._take(json.loads(data), fds)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        if "spawned" in message:
            self._child = int(message["spawned"])
            self._spawned(Spawned(pid=self._child, pidfd=fds[0], netns=fds[1] if len(fds) > 1 else None))
            self._children.arrived(self._child, self._child_ended)
            if self._may_go:
                self.go()
        elif "running" in message:
            self._runs = True
            console = fds.pop(0) if message["console"] else None
            oom = fds.pop(0) if fds else None
            self._running(Running(console=console, oom=oom, oom_events=message["oom"]))
            if self._early is not None:
                self._ended(self._early)
        else:
            self._error = from_wire(message["failed"])

    def _child_ended(self, code: int) -> None:
        """Perhaps before it is known here that it has run."""
        self._receive()
        if self._runs:
            self._ended(code)
        else:
            self._early = code

    def _maker_left(self, _: int) -> None:
        self._receive()
        self._close()
        if not self._child:
            self._children.arrived()
        if not self._runs:
            self._children.forget(self._child)
            self._failed(self._error or StartFailed("the start was given up", step="start"))

    def _close(self) -> None:
        if not self._closed:
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            os.close(self._alive)


def _run(job: Job, end: MakerEnd, shim: int, keep: Sequence[int]) -> NoReturn:
    try:
        files.close_all_but((*keep, *failpoints.descriptors()))
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        privilege.die_with_parent()
        if os.getppid() == shim:
            try:
                job(end)
            except HawseError as error:
                end.failed(error)
            except OSError as error:
                end.failed(StartFailed(str(error), step="start"))
    except BaseException:  # a bug of ours: the shim hears that it has failed, the daemon's log why
        traceback.print_exc()
    finally:
        os._exit(0)
