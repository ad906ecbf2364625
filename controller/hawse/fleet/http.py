"""HTTP/1.1 with keep-alive over one `Stream`, by h11: requests one after another, answers as they come.

Knows bytes, statuses and silence, not what the agent means by them. An answer that is left before its end
costs the stream, and the next request opens another.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import h11

from hawse.fleet.stream import Stream
from hawse_agent.errors import ProtocolError, Unreachable

Body = bytes | Iterable[bytes]


class Response:
    """An answer whose body is still to come; close it or use it with `with`."""

    def __init__(
        self, connection: HttpConnection, status: int, headers: Mapping[str, str], timeout: float | None
    ) -> None:
        self.status = status
        self.headers = headers
        self.timeout = timeout
        self._connection = connection
        self._ended = False

    def chunks(self) -> Iterator[bytes]:
        """Pieces of the body as they arrive; `Unreachable` when none comes within `timeout`."""
        while not self._ended:
            event = self._connection.next_event(self.timeout)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._ended = True

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        body = self.read()
        try:
            return json.loads(body)
        except ValueError as error:
            raise ProtocolError(f"{self._connection.name}: an answer is not JSON: {body[:200]!r}") from error

    def close(self) -> None:
        self._connection.finish(self._ended)

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HttpConnection:
    """One request at a time; other threads wait. `name` is the host's, for messages."""

    def __init__(self, open_stream: Callable[[], Stream], *, name: str, stream: Stream | None = None) -> None:
        self.name = name
        self._open_stream = open_stream
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._lock = threading.Lock()

    def request(
        self, method: str, target: str, *, headers: Mapping[str, str], body: Body = b"", timeout: float
    ) -> Response:
        """Sends a request and waits for the head of the answer. `body` is streamed when it is an iterable."""
        self._lock.acquire()
        try:
            self._send(method, target, headers, body)
            head = self._head(timeout)
        except BaseException:
            self.finish(ended=False)
            raise
        return Response(self, head.status_code, _headers(head), timeout)

    def upgrade(
        self, method: str, target: str, *, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> tuple[Response | None, Stream | None, bytes]:
        """Asks for a raw stream: gives the stream and its first bytes, or the answer that refuses."""
        self._lock.acquire()
        try:
            wanted = {**headers, "Connection": "Upgrade", "Upgrade": "tcp"}
            self._send(method, target, wanted, body)
            head = self._head(timeout)
            if isinstance(head, h11.InformationalResponse):
                stream, self._stream = self._stream, None
                self._lock.release()
                return None, stream, bytes(self._http.trailing_data[0])
        except BaseException:
            self.finish(ended=False)
            raise
        return Response(self, head.status_code, _headers(head), timeout), None, b""

    def finish(self, ended: bool) -> None:
        """The answer is read, or given up: makes the connection ready for the next request."""
        try:
            if ended and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                self._http.start_next_cycle()
            else:
                self._drop()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Cuts it, also under a thread that waits for an answer."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def next_event(self, timeout: float | None) -> Any:
        data: bytes | None = None
        while True:
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    data = self._receive(timeout)
                    self._http.receive_data(data)
                    continue
            except h11.RemoteProtocolError as error:
                if data == b"":
                    cut = f"{self.name}: the agent left in the middle of its answer"
                    raise Unreachable(cut, stage="agent") from error
                raise ProtocolError(f"{self.name}: the agent's answer is broken: {error}") from error
            if isinstance(event, h11.ConnectionClosed):
                raise Unreachable(f"{self.name}: the agent closed the connection", stage="agent")
            return event

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> None:
        if self._stream is None:
            self._http = h11.Connection(h11.CLIENT)
            self._stream = self._open_stream()
        fields = {"Host": "hawse", **headers}
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
        elif "Content-Length" not in fields:
            fields["Transfer-Encoding"] = "chunked"
        start = (
            self._http.send(h11.Request(method=method, target=target, headers=list(fields.items()))) or b""
        )
        try:
            if isinstance(body, bytes):
                end = self._http.send(h11.Data(data=body)) if body else b""
                self._stream.send(start + (end or b"") + (self._http.send(h11.EndOfMessage()) or b""))
                return
            self._stream.send(start)
            for piece in body:
                self._stream.send(self._http.send(h11.Data(data=piece)) or b"")
            self._stream.send(self._http.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise ProtocolError(
                f"{self.name}: what was to be sent is not of the size that was said"
            ) from error
        except BrokenPipeError:
            pass  # refused before its end: the answer says why
        except TimeoutError as error:
            raise Unreachable(f"{self.name}: the agent takes no data", stage="agent") from error
        except OSError as error:
            raise Unreachable(f"{self.name}: {error}", stage="tcp") from error

    def _head(self, timeout: float) -> Any:
        while True:
            event = self.next_event(timeout)
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event

    def _receive(self, timeout: float | None) -> bytes:
        if self._stream is None:
            raise Unreachable(f"{self.name}: the connection was closed", stage="agent")
        try:
            return self._stream.recv(timeout)
        except TimeoutError as error:
            raise Unreachable(
                f"{self.name}: the agent has been silent for {timeout:g} s", stage="agent"
            ) from error
        except OSError as error:
            raise Unreachable(f"{self.name}: {error.strerror or error}", stage="tcp") from error

    def _drop(self) -> None:
        self.close()
        self._http = h11.Connection(h11.CLIENT)


def _headers(head: Any) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
