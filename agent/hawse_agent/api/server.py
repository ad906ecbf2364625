"""HTTP/1.1 on the agent's unix socket: a thread for each connection, h11 for the protocol.

Own loop instead of a framework, because Docker's clients need two things that those do not give: a connection
that stops being HTTP (101, or 200 and a raw stream) and half-closed sockets behind it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import selectors
import socket
import struct
import sys
import termios
import threading
import time
import traceback
from array import array
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import h11

from hawse_agent.api.audit import Audit
from hawse_agent.api.http import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Body,
    Caller,
    Hijack,
    Query,
    Request,
    Response,
)
from hawse_agent.api.router import NEWEST, Router, split_version, text
from hawse_agent.errors import HawseError, InputError, InternalError, OutOfSpace, ProtocolError

CHUNK = 1 << 16
BODY_CHUNK = 120_000
"""Bytes of a body that are taken at a time: several chunks, and what malloc still has at hand."""
BACKLOG = 256
RETRY = 0.2
PATIENCE = 1.0
"""Seconds that a client may take to read the head of a hijacked answer before the stream follows it."""
FAREWELL = 2.0
"""Seconds that the client of such a stream has to close its side when it has been sent all."""
MAX_HEADER = 1 << 16
_OF_EVERY_ANSWER = (("Api-Version", text(NEWEST)), ("Ostype", "linux"), ("Docker-Experimental", "false"))
DRAINED = 1 << 20
"""Bytes of an unread body that are read to keep a connection; with more it is closed."""


class Server:
    """Serves until `stop`. Root alone may connect: the socket's mode, and the peer's uid again."""

    def __init__(self, path: Path, router: Router, audit: Audit, *, version: str) -> None:
        self._path, self._router, self._audit = path, router, audit
        self._product = f"Hawse/{version} (linux)"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._wake, self._woken = socket.socketpair()

    def listen(self) -> None:
        """Replaces the socket of a dead daemon: who holds the lock is the only one."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(self._path))
        finally:
            os.umask(before)
        self._listener.listen(BACKLOG)

    def serve(self) -> None:
        """In the calling thread, until `stop`. Answers that are under way go on in their own threads."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while self._woken not in (ready := [key.fileobj for key, _ in selector.select()]):
                if self._listener in ready and not self._accept():
                    select.select([self._woken], [], [], RETRY)

    def close(self) -> None:
        """From now on nobody can connect."""
        self._path.unlink(missing_ok=True)
        self._listener.close()

    def stop(self) -> None:
        """From a signal handler or another thread."""
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"\0", socket.MSG_DONTWAIT)

    def _accept(self) -> bool:
        """False when there are no descriptors left: nobody tells when there are again."""
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                raise
            _say(f"no further client: {error.strerror}")
            return False
        if _peer_uid(client) == os.geteuid():
            threading.Thread(target=self._connection, args=(client,), name="api", daemon=True).start()
        else:
            client.close()
        return True

    def _connection(self, client: socket.socket) -> None:
        connection = Connection(client, self._router, self._audit, self._product)
        with client, contextlib.suppress(ConnectionError):  # the client has gone: nobody is left to be told
            connection.serve()


class Connection:
    """One client: requests one after the other."""

    def __init__(self, client: socket.socket, router: Router, audit: Audit, product: str) -> None:
        self._socket, self._router, self._audit, self._product = client, router, audit, product
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER)

    def serve(self) -> None:
        try:
            while isinstance(event := self._next_event(), h11.Request):
                if not self._answer(event):
                    return
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._send("", _failure(error))

    def _answer(self, event: h11.Request) -> bool:
        """Whether the connection goes on."""
        begin = time.monotonic()
        method, target = event.method.decode(), event.target.decode("ascii", errors="replace")
        headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        caller = Caller(
            user=headers.get("x-hawse-user", ""),
            key=headers.get("x-hawse-key", ""),
            run=headers.get("x-hawse-run", ""),
        )
        path, _, query = target.partition("?")
        try:
            version, bare = split_version(path)
            found = self._router.find(method, bare)
            answer = found.handler(
                Request(
                    method=method,
                    path=bare,
                    version=version,
                    query=Query(query),
                    headers=headers,
                    params=found.params,
                    body=Body(self._body()),
                    caller=caller,
                    gone=self._gone,
                )
            )
        except Exception as error:
            answer = _failure(error)
        status = answer.status if isinstance(answer, Response) else 101
        try:
            if isinstance(answer, Hijack):
                self._hijack(answer, headers, version)
                return False
            return self._send(method, answer)
        except HawseError as error:  # in the middle of a stream: the client sees that its end is missing
            _say(f"{method} {path}: {error.message}")
            return False
        finally:
            if isinstance(answer, Response) and answer.after is not None:
                answer.after()
            self._audit.record(caller, method, path, status, time.monotonic() - begin)

    def _send(self, method: str, answer: Response) -> bool:
        headers = [("Server", self._product), *_OF_EVERY_ANSWER, *answer.headers.items()]
        if answer.chunks is not None:
            headers += [("Content-Type", answer.content_type), ("Transfer-Encoding", "chunked")]
            self._stream(_head(answer.status, headers), answer.chunks)
            return self._next_cycle()
        data, content_type = answer.encoded()
        if answer.status in (204, 304):
            data = b""
        else:
            if data or answer.status != 200:
                headers.append(("Content-Type", content_type))
            if not any(name.lower() == "content-length" for name, _ in headers):
                headers.append(("Content-Length", str(len(data))))
        body = b"" if method == "HEAD" else data
        self._write(_head(answer.status, headers), h11.Data(data=body), h11.EndOfMessage())
        return self._next_cycle()

    def _stream(self, head: h11.Response, chunks: Iterator[bytes]) -> None:
        try:
            self._write(head)
            for chunk in chunks:
                if chunk:
                    self._write(h11.Data(data=chunk))
            self._write(h11.EndOfMessage())
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def _next_cycle(self) -> bool:
        drained = 0
        while self._http.their_state is h11.SEND_BODY:
            event = self._next_event()
            if isinstance(event, h11.Data):
                drained += len(event.data)
                if drained > DRAINED:
                    return False
            elif not isinstance(event, h11.EndOfMessage):
                return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def _hijack(self, answer: Hijack, headers: dict[str, str], version: tuple[int, int] | None) -> None:
        try:
            self._hand_on(answer, headers, version)
        finally:
            answer.after()

    def _hand_on(self, answer: Hijack, headers: dict[str, str], version: tuple[int, int] | None) -> None:
        for _ in self._body():  # the rest of the request itself
            pass
        multiplexed = not answer.tty and (version is None or version >= (1, 42))
        if "upgrade" in headers:
            kind = MULTIPLEXED_STREAM if multiplexed else RAW_STREAM
            start = f"101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp"
        else:
            start = f"200 OK\r\nContent-Type: {RAW_STREAM}"
        self._socket.sendall(f"HTTP/1.1 {start}\r\n\r\n".encode())
        self._let_it_be_read()
        head, _ = self._http.trailing_data
        try:
            handed_on = answer.run(self._socket, head)
        except ConnectionError:
            raise
        except Exception as error:
            known = error if isinstance(error, HawseError) else _unexpected(error)
            self._socket.sendall(_in_stream(known, answer.tty))
            handed_on = False
        if not handed_on:
            self._take_leave()

    def _take_leave(self) -> None:
        """To close it with something unread would cut the client off (ECONNRESET) before it has read all."""
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + FAREWELL
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if not self._socket.recv(CHUNK):
                    return
            except TimeoutError:
                return

    def _let_it_be_read(self) -> None:
        """docker-py throws away the buffer that it has read the head with, and with it what came along."""
        unread, deadline = array("i", [0]), time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, unread)
            if unread[0] == 0:
                return
            time.sleep(0.0002)  # the kernel tells nobody when a peer has read

    def _body(self) -> Iterator[bytes]:
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        while self._http.their_state is h11.SEND_BODY:
            event = self._next_event(BODY_CHUNK)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise ProtocolError("the connection ended in the middle of the request's body")

    def _next_event(self, most: int = CHUNK) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            self._http.receive_data(self._socket.recv(most))

    def _write(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data:
            self._socket.sendall(data)

    def _gone(self) -> bool:
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def _head(status: int, headers: list[tuple[str, str]]) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())


def _failure(error: Exception) -> Response:
    if isinstance(error, HawseError):
        known = error
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        known = OutOfSpace(str(error))
    elif isinstance(error, h11.RemoteProtocolError):
        known = InputError(f"not HTTP/1.1: {error}")
    elif isinstance(error, ConnectionError):
        raise error
    else:
        known = _unexpected(error)
    return Response(status=known.status, json=known.to_wire())


def _unexpected(error: Exception) -> InternalError:
    _say("".join(traceback.format_exception(error)).rstrip())
    return InternalError(f"{type(error).__name__}: {error}", hint="the daemon's log has the traceback")


def _in_stream(error: HawseError, tty: bool) -> bytes:
    """Docker tells of an error after the hand-over on the stream itself."""
    text = f"{error.message}\r\n".encode()
    return text if tty else struct.pack(">BxxxL", 2, len(text)) + text


def _say(text: str) -> None:
    print(f"hawse-agent: {text}", file=sys.stderr, flush=True)


def _peer_uid(client: socket.socket) -> int:
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
