"""HTTP/1.1 to registries, for the time of one pull, push or question: connections are kept and used again.

Redirects are followed for GET and HEAD alone; what proves who we are goes to the host that it was meant for
and to no other, and never from https to plain http. `stop` cuts what goes on, from any thread.
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from types import TracebackType
from typing import Self

from hawse_agent import __version__
from hawse_agent.distribution.cancel import Cancel
from hawse_agent.distribution.trust import Trust, host_of
from hawse_agent.errors import ProtocolError

_TIMEOUT = 60.0
"""Seconds of silence, while something is awaited, until a connection counts as dead."""
_CONNECT_TIMEOUT = 20.0
_REDIRECTS = 10
_PIECE = 1 << 18
_SECRETS = ("authorization", "cookie")


@dataclass(frozen=True, kw_only=True)
class Body:
    """What is sent: as often as need be, from the start."""

    open: Callable[[], Iterable[bytes]]
    size: int | None
    """None: it is told when it is sent."""


class Response:
    """An answer, whose body is read while it arrives."""

    def __init__(self, raw: http.client.HTTPResponse, url: str) -> None:
        self._raw = raw
        self.url = url
        self.status = raw.status
        self.headers: Message = raw.headers

    @property
    def whole(self) -> bool:
        """Everything was read, so that its connection is free for the next."""
        return self._raw.isclosed() and not self._raw.will_close

    def read(self, limit: int) -> bytes:
        """Raises ProtocolError for more than that."""
        data = self._raw.read(limit + 1)
        if len(data) > limit:
            raise ProtocolError(
                f"{host_of(urllib.parse.urlsplit(self.url).netloc)} sent more than {limit} bytes"
            )
        if self._raw.length:
            raise http.client.IncompleteRead(data, self._raw.length)
        return data

    def pieces(self) -> Iterator[bytes]:
        """Raises IncompleteRead when the connection is cut."""
        while piece := self._raw.read(_PIECE):
            yield piece
        if self._raw.length:
            raise http.client.IncompleteRead(b"", self._raw.length)


class Connections:
    """Used by several threads at a time, each with a connection of its own."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._busy: dict[http.client.HTTPConnection, socket.socket] = {}
        """With their sockets: a connection that ends after this answer has given its own up already."""
        self.cancel = Cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Cuts all connections; what goes on in other threads raises Stopped."""
        self.cancel()
        with self._lock:
            for sock in self._busy.values():
                _cut(sock)
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    @contextmanager
    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None
    ) -> Iterator[Response]:
        """The answer, whatever its status. Raises OSError and HTTPException as they come, Stopped."""
        for _ in range(_REDIRECTS):
            target = urllib.parse.urlsplit(url)
            connection, raw = self._answered(method, target, headers, body)
            response = Response(raw, url)
            try:
                location = raw.headers.get("Location", "")
                if (
                    method not in ("GET", "HEAD")
                    or raw.status not in (301, 302, 303, 307, 308)
                    or not location
                ):
                    yield response
                    return
                raw.read(_PIECE)
            except (OSError, http.client.HTTPException):
                self.cancel.check()  # our own cut, then
                raise
            finally:
                self._returned(connection, target, reusable=response.whole)
            new = urllib.parse.urljoin(url, location)
            headers = self._redirected(target, urllib.parse.urlsplit(new), headers)
            url = new
        raise ProtocolError(f"{target.netloc} redirects without an end")

    def _redirected(
        self, old: urllib.parse.SplitResult, new: urllib.parse.SplitResult, headers: Mapping[str, str]
    ) -> Mapping[str, str]:
        if new.scheme not in ("http", "https"):
            raise ProtocolError(f"{old.netloc} redirects to {new.scheme}:")
        if (old.scheme, new.scheme) == ("https", "http") and not self.trust.is_insecure(new.netloc):
            raise ProtocolError(f"{old.netloc} redirects from https to http://{new.netloc}")
        if (old.scheme, old.netloc) == (new.scheme, new.netloc):
            return headers
        return {key: value for key, value in headers.items() if key.lower() not in _SECRETS}

    # -- connections -----------------------------------------------------------------------------

    def _answered(
        self, method: str, target: urllib.parse.SplitResult, headers: Mapping[str, str], body: Body | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A kept connection may have been closed by the other side meanwhile: then a new one is tried, for
        what may be asked twice."""
        while True:
            connection, fresh = self._connection(target)
            try:
                return connection, self._sent(connection, method, target, headers, body)
            except BaseException as error:
                self._returned(connection, target, reusable=False)
                self.cancel.check()
                closed = isinstance(error, ConnectionError | http.client.BadStatusLine)
                if fresh or not closed or method not in ("GET", "HEAD"):
                    raise

    def _sent(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: urllib.parse.SplitResult,
        headers: Mapping[str, str],
        body: Body | None,
    ) -> http.client.HTTPResponse:
        path = urllib.parse.urlunsplit(("", "", target.path or "/", target.query, ""))
        proxy = self.trust.proxy(target.scheme, target.netloc)
        sent = {"User-Agent": f"hawse/{__version__}", **headers}
        if proxy is not None and target.scheme == "http":
            path = f"http://{target.netloc}{path}"
            sent |= proxy.headers
        chunked = body is not None and body.size is None
        if body is not None:
            sent |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(body.size)}
        elif method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = "0"
        try:
            connection.request(
                method, path, None if body is None else _exactly(body), sent, encode_chunked=chunked
            )
        except (BrokenPipeError, ConnectionResetError):
            if body is None:
                raise
            # It did not want to hear the rest, and may have said why.
        if connection.sock is not None:
            connection.sock.settimeout(_TIMEOUT)
        return connection.getresponse()

    def _connection(self, target: urllib.parse.SplitResult) -> tuple[http.client.HTTPConnection, bool]:
        """And whether it is new."""
        key = (target.scheme, target.netloc)
        self.cancel.check()
        with self._lock:
            if kept := self._idle.get(key):
                connection = kept.pop()
                self._busy[connection] = connection.sock
                return connection, False
        connection = self._made(target)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock.settimeout(_TIMEOUT)
        except BaseException:
            connection.close()
            self.cancel.check()
            raise
        with self._lock:
            self._busy[connection] = connection.sock
        if self.cancel.said:  # `stop` came while it was being made, and found nothing to cut
            self._returned(connection, target, reusable=False)
            self.cancel.check()
        return connection, True

    def _made(self, target: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        host = target.hostname or ""
        try:
            port = target.port
        except ValueError:
            raise ProtocolError(f"not an address: {target.netloc!r}") from None
        proxy = self.trust.proxy(target.scheme, target.netloc)
        if target.scheme == "http":
            where = (proxy.host, proxy.port) if proxy else (host, port)
            return http.client.HTTPConnection(*where, timeout=_CONNECT_TIMEOUT)
        context = self.trust.context(target.netloc)
        if proxy is None:
            return http.client.HTTPSConnection(host, port, context=context, timeout=_CONNECT_TIMEOUT)
        tunnelled = http.client.HTTPSConnection(
            proxy.host, proxy.port, context=context, timeout=_CONNECT_TIMEOUT
        )
        tunnelled.set_tunnel(host, port or 443, headers=dict(proxy.headers))
        return tunnelled

    def _returned(
        self, connection: http.client.HTTPConnection, target: urllib.parse.SplitResult, *, reusable: bool
    ) -> None:
        with self._lock:
            self._busy.pop(connection, None)
            if reusable and connection.sock is not None and not self.cancel.said:
                self._idle.setdefault((target.scheme, target.netloc), []).append(connection)
                return
        connection.close()


def _exactly(body: Body) -> Iterable[bytes]:
    """As much as was announced, never more: the other side would take the rest for our next request."""
    left = body.size
    for piece in body.open():
        if left is not None:
            left -= len(piece)
            if left < 0:
                raise ProtocolError(f"what is sent is longer than the {body.size} bytes that were announced")
        yield piece
    if left:
        raise ProtocolError(f"what is sent ends {left} bytes before the {body.size} that were announced")


def _cut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was faster
