"""JSON lines with descriptors on a shim's sockets, without blocking its loop.

`Lines` is one connection. Reading: each whole line is passed on with the descriptors that came so far, which
the receiver then owns. Writing: what the peer does not take waits; a peer that never takes it costs no more
than LIMIT bytes, since what may be left out then is.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from hawse_agent.supervise.loop import ERROR, HANGUP, READ, WRITE, Loop

LIMIT = 1 << 18
_MAX_DESCRIPTORS = 253

Received = Callable[["Lines", dict[str, Any], list[int]], None]
Closed = Callable[["Lines"], None]


class Lines:
    def __init__(self, loop: Loop, sock: socket.socket, received: Received, closed: Closed) -> None:
        self._loop, self._sock = loop, sock
        self._received, self._when_closed = received, closed
        self._in = b""
        self._fds: list[int] = []
        self._out = bytearray()
        self._finishing = False
        self.closed = False
        sock.setblocking(False)
        loop.add(sock.fileno(), READ, self._ready)

    def send(self, message: dict[str, Any], fds: list[int] | None = None, *, optional: bool = False) -> None:
        """`optional` ones are left out when the peer is far behind. Descriptors stay the caller's."""
        if self.closed or (optional and len(self._out) > LIMIT):
            return
        data = json.dumps(message).encode() + b"\n"
        if fds:  # only the first message carries any, so the socket has room
            try:
                sent = socket.send_fds(self._sock, [data], fds)
            except OSError:
                self.close()
                return
            data = data[sent:]
        self._out += data
        self._flush()

    def finish(self) -> None:
        """Close it when all has been sent."""
        self._finishing = True
        self._flush()

    @property
    def idle(self) -> bool:
        return self.closed or not self._out

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for fd in self._fds:
            os.close(fd)
        self._loop.remove(self._sock.fileno())
        self._sock.close()
        self._when_closed(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.closed:
            return
        if events & READ:
            self._receive()
        elif events & (HANGUP | ERROR):
            self.close()

    def _receive(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 1 << 16, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds += fds
        if not data:
            self.close()
            return
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:  # not one of ours: nothing it says can be trusted
                self.close()
                return
            carried, self._fds = self._fds, []
            self._received(self, message, carried)
            if self.closed:
                return

    def _flush(self) -> None:
        while self._out and not self.closed:
            try:
                sent = self._sock.send(self._out)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            del self._out[:sent]
        if self.closed:
            return
        if self._finishing and not self._out:
            self.close()
            return
        self._loop.change(self._sock.fileno(), READ | (WRITE if self._out else 0))
