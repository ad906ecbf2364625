"""A process's standard streams: to the log, to whoever is attached, and back into its stdin.

    container ──pipe or terminal──► ProcessStreams ──► LogWriter
                                         │  ▲
                                  frames ▼  │ what is typed
                                       Client … Client

Clients' sockets are handed over by the daemon, and Docker's stream is spoken on them: raw bytes of a
terminal, else frames of an 8-byte header and payload. A client that does not read holds the container's
output up, as a pipe would, but only for so long: then it is dropped.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Protocol

from hawse_agent.errors import Conflict
from hawse_agent.runtime import console as terminal
from hawse_agent.runtime.create import Stdio
from hawse_agent.spec.detach import Detector
from hawse_agent.supervise.logs import LogRecord, Stream
from hawse_agent.supervise.loop import ERROR, HANGUP, READ, WRITE, Loop, Timer

CHUNK = 1 << 16
BUFFERED = 1 << 20
"""Bytes waiting for a client above which the container's output is not read."""
PATIENCE = 30.0
"""Seconds without progress after which a client that holds output up is dropped."""
FAREWELL = 2.0
"""Seconds that a client has to close its side once it has been sent all."""
LINGER = 2.0
"""Seconds after a process's end in which others may still hold its streams open."""

_NUMBER = {"stdout": 1, "stderr": 2}


class Sink(Protocol):
    """What keeps the output: a log, or the memory of a health check."""

    def write(self, stream: Stream, data: bytes) -> None: ...

    @property
    def full(self) -> bool:
        """Whether output had better wait until `ProcessStreams.drained` is called."""


class Client:
    """One attached socket, owned. `ended` is called once, when it is closed."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        tty: bool,
        framed: bool,
        stdin: bool,
        streams: frozenset[Stream],
        detach: bytes,
        replay: Iterator[LogRecord] | None,
        unwritten: Callable[[], list[LogRecord]],
        live: bool,
        owner: ProcessStreams,
    ) -> None:
        self._loop, self._sock, self._owner = loop, sock, owner
        self._framed, self._streams = framed, streams
        self._replay, self._unwritten = replay, unwritten
        self._live = live
        self._detector = Detector(detach) if tty else None
        self._out = bytearray()
        self._reads = stdin
        self._paused = False
        self._ending = False
        self._leaving = False
        """All is sent; what it still says is thrown away."""
        self._said_all = False
        """It has closed its side."""
        self._closed = False
        self._timer: Timer | None = None
        sock.setblocking(False)
        loop.add(sock.fileno(), 0, self._ready)

    def begin(self, head: bytes) -> None:
        """`head` is what it had sent before it was handed over."""
        if head and self._reads:
            self._typed(head)
        self._flush()

    @property
    def waiting(self) -> int:
        return len(self._out)

    def deliver(self, stream: Stream, data: bytes) -> None:
        if self._replay is None and not self._ending and stream in self._streams:
            self._queue(stream, data)
            self._flush()

    def finish(self) -> None:
        """Close it when all has been sent."""
        self._ending = True
        self._flush()

    def resume(self) -> None:
        """The container takes input again."""
        if self._paused:
            self._paused = False
            self._watch()

    def _queue(self, stream: Stream, data: bytes) -> None:
        if self._framed:
            self._out += struct.pack(">BxxxL", _NUMBER[stream], len(data))
        self._out += data

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._closed:
            return
        if events & READ and self._leaving:
            self._throw_away()
        elif events & READ and self._reads:
            self._receive()
        elif events & (HANGUP | ERROR):
            self.close()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self._typed(data)
            return
        self._reads, self._said_all = False, True
        if not self._owner.input_ended():
            self.finish()
        if not self._closed:
            self._watch()

    def _typed(self, data: bytes) -> None:
        detached = False
        if self._detector is not None:
            data, detached = self._detector.feed(data)
        if data and not self._owner.input(data):
            self._paused = True
            self._watch()
        if detached:
            self._reads = False
            self._owner.detached()
            self.finish()

    def _flush(self) -> None:
        while not self._closed:
            self._fill()
            if not self._out:
                break
            try:
                sent = self._sock.send(self._out)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            del self._out[:sent]
            self._forget_timer()
        if self._closed:
            return
        if self._out and self._timer is None:
            self._timer = self._loop.after(PATIENCE, self._give_up)
        if self._ending and not self._out and self._replay is None:
            self._take_leave()
            return
        self._watch()
        self._owner.drained()

    def _take_leave(self) -> None:
        """To close it with something unread would cut the client off (ECONNRESET) before it has read all."""
        if self._leaving:
            return
        if self._said_all:
            self.close()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._leaving = True
        self._forget_timer()
        self._timer = self._loop.after(FAREWELL, self.close)
        self._watch()

    def _throw_away(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()

    def _fill(self) -> None:
        """Old log records first; live output begins where the log ends, with what is not written yet."""
        while self._replay is not None and len(self._out) < CHUNK:
            record = next(self._replay, None)
            if record is not None:
                self._fill_with(record)
                continue
            self._replay = None
            for record in self._unwritten():
                self._fill_with(record)
            if not self._live:
                self._ending = True

    def _fill_with(self, record: LogRecord) -> None:
        if record.stream in self._streams:
            self._queue(record.stream, record.data)

    def _give_up(self) -> None:
        """Nothing was taken for too long. Only those who hold others up are dropped."""
        self._timer = None
        if self._ending or len(self._out) >= BUFFERED:
            self.close()
        elif self._out:
            self._timer = self._loop.after(PATIENCE, self._give_up)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        events = WRITE if self._out else 0
        if self._leaving or (self._reads and not self._paused):
            events |= READ
        self._loop.change(self._sock.fileno(), events)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._forget_timer()
        self._loop.remove(self._sock.fileno())
        self._sock.close()
        self._owner.left(self)


class ProcessStreams:
    """Of one run of one process. `when_quiet` is called whenever the last client has left, `detached` when
    one has typed the keys that let go."""

    def __init__(
        self,
        loop: Loop,
        *,
        tty: bool,
        stdin: bool,
        stdin_once: bool,
        log: Sink | None,
        when_quiet: Callable[[], None] = lambda: None,
        detached: Callable[[], None] = lambda: None,
        interrupted: Callable[[int], None] = lambda group: None,
        merged: bool = False,
    ) -> None:
        """`interrupted`: with the process group that keys typed on the terminal interrupt. `merged`: stdout
        and stderr are one, in the order in which they are written."""
        self._loop, self._tty, self._log, self._when_quiet = loop, tty, log, when_quiet
        self.detached, self._interrupted = detached, interrupted
        self._stdin_once = stdin_once
        self._clients: list[Client] = []
        self._open: dict[int, Stream] = {}
        """What is read from, as descriptor → stream."""
        self._held = self._finished = False
        self._pending = bytearray()
        self._stdin: int | None = None
        self._close_stdin = False
        self._theirs: list[int] = []
        self._done: Callable[[], None] | None = None
        self._linger: Timer | None = None
        self.stdio = Stdio()
        if not tty:
            self._make_pipes(stdin, merged)

    def started(self, console: int | None) -> None:
        """The process runs; `console` is its terminal's master, owned from now on."""
        self._close_theirs()
        if console is not None:
            os.set_blocking(console, False)
            self._stdin = console
            self._open[console] = "stdout"
        for fd in self._open:
            self._loop.add(fd, READ, self._reader(fd))
        if console is None and self._stdin is not None:
            self._loop.add(self._stdin, 0, self._stdin_ready)
        self._write_stdin()

    def attach(
        self,
        sock: socket.socket,
        *,
        stdin: bool,
        streams: frozenset[Stream],
        detach: bytes = b"\x10\x11",
        replay: Iterator[LogRecord] | None = None,
        unwritten: Callable[[], list[LogRecord]] = list,
        live: bool = True,
        head: bytes = b"",
        framed: bool | None = None,
    ) -> None:
        if stdin and self._stdin_closed:
            stdin = False
        client = Client(
            self._loop,
            sock,
            tty=self._tty,
            framed=not self._tty if framed is None else framed,
            stdin=stdin,
            streams=streams,
            detach=detach,
            replay=iter(()) if replay is None and not live else replay,
            unwritten=unwritten,
            live=live,
            owner=self,
        )
        self._clients.append(client)
        client.begin(head)
        if self._finished:
            client.finish()

    def end(self, done: Callable[[], None]) -> None:
        """The process has ended: `done` when its output has, too, or when somebody else keeps it open."""
        self._done = done
        if not self._open:
            self._finish()
        else:
            self._linger = self._loop.after(LINGER, self._finish)

    def abandon(self) -> None:
        """It never ran."""
        self._close_theirs()
        self._finish()

    def resize(self, height: int, width: int) -> None:
        """Without a terminal there is nothing to do, as with Docker. Raises Conflict when it has ended."""
        if not self._tty:
            return
        if self._stdin is None:
            raise Conflict("the process has ended")
        terminal.resize(self._stdin, height, width)

    @property
    def quiet(self) -> bool:
        """No client has anything left to be sent."""
        return not self._clients

    # from clients

    def input(self, data: bytes) -> bool:
        """False when the process does not take it now: wait for `resume`."""
        if self._stdin_closed:
            return True
        group = terminal.interrupts(self._stdin, data) if self._tty and self._stdin is not None else 0
        self._pending += data
        self._write_stdin()
        if group > 0:
            self._interrupted(group)
        return len(self._pending) < CHUNK

    def input_ended(self) -> bool:
        """A client has closed its side. Where that ends stdin it goes on listening, else it is let go, as by
        dockerd."""
        if not self._stdin_once or self._tty:
            return False
        self._close_stdin = True
        self._write_stdin()
        return True

    def drained(self) -> None:
        """A client or the log has taken something: go on reading when nobody is behind."""
        held = any(client.waiting >= BUFFERED for client in self._clients)
        held = held or (self._log is not None and self._log.full)
        if held != self._held:
            self._held = held
            for fd in self._open:
                if fd == self._stdin:
                    self._watch_stdin()
                else:
                    self._loop.change(fd, 0 if held else READ)

    def left(self, client: Client) -> None:
        self._clients.remove(client)
        self.drained()
        if not self._clients:
            self._when_quiet()

    # inside

    @property
    def _stdin_closed(self) -> bool:
        return not self._tty and self._stdin is None

    def _make_pipes(self, stdin: bool, merged: bool) -> None:
        fds: list[int | None] = [None, None, None]
        if stdin:
            fds[0], self._stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._stdin, False)
        names: tuple[Stream, Stream] = ("stdout", "stderr")
        for number, name in enumerate(names[:1] if merged else names, start=1):
            ours, fds[number] = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            self._open[ours] = name
        self._theirs = [fd for fd in fds if fd is not None]
        if merged:
            fds[2] = fds[1]
        self.stdio = Stdio(stdin=fds[0], stdout=fds[1], stderr=fds[2])

    def _close_theirs(self) -> None:
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []

    def _reader(self, fd: int) -> Callable[[int], None]:
        def ready(events: int) -> None:
            if events & WRITE:
                self._write_stdin()
            if events & (READ | HANGUP) and not (self._held and not events & HANGUP):
                self._read(fd)

        return ready

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last one has closed the terminal
            data = b""
        if not data:
            self._ended(fd)
            return
        stream = self._open[fd]
        if self._log is not None:
            self._log.write(stream, data)
            if self._log.full:
                self.drained()
        for client in list(self._clients):
            client.deliver(stream, data)

    def _ended(self, fd: int) -> None:
        del self._open[fd]
        self._loop.remove(fd)
        if fd != self._stdin:
            os.close(fd)
        if not self._open and self._done is not None:
            self._finish()

    def _write_stdin(self) -> None:
        if self._stdin is None:
            return
        while self._pending:
            try:
                written = os.write(self._stdin, self._pending)
            except BlockingIOError:
                break
            except OSError:  # nobody reads any more
                self._pending.clear()
                self._close_stdin = not self._tty
                break
            del self._pending[:written]
        if not self._pending and self._close_stdin:
            self._loop.remove(self._stdin)
            os.close(self._stdin)
            self._stdin = None
            return
        self._watch_stdin()
        if len(self._pending) < CHUNK:
            for client in self._clients:
                client.resume()

    def _watch_stdin(self) -> None:
        if self._stdin is None or self._theirs:
            return
        wanted = WRITE if self._pending else 0
        if self._stdin in self._open:
            wanted |= 0 if self._held else READ
            self._loop.change(self._stdin, wanted)
        elif not self._tty:
            self._loop.change(self._stdin, wanted)

    def _stdin_ready(self, events: int) -> None:
        if events & WRITE:
            self._write_stdin()
        elif self._stdin is not None:  # the reading end is gone
            self._pending.clear()
            self._close_stdin = True
            self._write_stdin()

    def _finish(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._finished = True
        for fd in list(self._open):
            self._loop.remove(fd)
            if fd != self._stdin:
                os.close(fd)
        self._open.clear()
        if self._stdin is not None:
            self._loop.remove(self._stdin)
            os.close(self._stdin)
            self._stdin = None
        for client in list(self._clients):
            client.finish()
        done, self._done = self._done, None
        if done is not None:
            done()
