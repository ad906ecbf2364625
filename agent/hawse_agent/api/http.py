"""What an endpoint gets and gives: requests and responses, without sockets.

Handlers are `Callable[[Request], Response | Hijack]`. They raise HawseError; the server turns that into
its status and JSON.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import socket
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hawse_agent.api import jsontext
from hawse_agent.errors import InputError

JSON = "application/json"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
MAX_JSON = 256 << 20
"""Bytes of a JSON body: host specs carry files of plays that are not worth a blob."""

_NOTHING: Any = object()
T = TypeVar("T")


class Query:
    """The part after `?`, read as Docker's clients write it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._values = urllib.parse.parse_qs(text, keep_blank_values=True)

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[-1]

    def path(self, name: str) -> str:
        """A path of a file, which may hold any byte: those that are not UTF-8 as `os.fsdecode` has them."""
        values = urllib.parse.parse_qs(self._text, keep_blank_values=True, errors="surrogateescape")
        return values.get(name, [""])[-1]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def names(self) -> list[str]:
        return list(self._values)

    def has(self, name: str) -> bool:
        return name in self._values

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's: empty, 0, no, false and none are false, everything else is true."""
        if name not in self._values:
            return default
        return self.text(name).lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: float | None = None) -> float | None:
        text = self.text(name)
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"invalid value for {name!r}: {text!r} is not a number")
        return number

    def json(self, name: str) -> Any:
        """None when it is absent."""
        text = self.text(name)
        if not text:
            return None
        return jsontext.parse(text, f"the value of {name!r}")


class Body:
    """A request's body, read as it arrives."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def chunks(self) -> Iterator[bytes]:
        return self._chunks

    def read(self, limit: int = MAX_JSON) -> bytes:
        """All of it; raises InputError above `limit` bytes."""
        data = bytearray()
        for chunk in self._chunks:
            data += chunk
            if len(data) > limit:
                raise InputError(f"the request's body is larger than {limit} bytes")
        return bytes(data)

    def json(self) -> Any:
        """An empty body is `{}`."""
        data = self.read()
        if not data.strip():
            return {}
        return jsontext.parse(data, "the request's body")

    def stream(self) -> ChunkStream:
        """For who reads forward and takes what comes: nothing is copied."""
        return ChunkStream(self._chunks)

    def file(self) -> io.BufferedReader:
        """For readers of archives."""
        return io.BufferedReader(_ChunkReader(self._chunks), 1 << 16)


class ChunkStream:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """At least one byte until the end."""
        piece = self._rest
        while not piece:
            following = next(self._chunks, None)
            if following is None:
                return b""
            piece = following
        self._rest = piece[size:]
        return piece[:size] if self._rest else piece


class _ChunkReader(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, as far as the controller says: the SSH user, the key's fingerprint, the run."""

    user: str = ""
    key: str = ""
    run: str = ""


@dataclass(kw_only=True)
class Request:
    method: str
    path: str
    """Without `/v1.NN`; segments are decoded in `params`."""
    version: tuple[int, int] | None = None
    query: Query = field(default_factory=lambda: Query(""))
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    params: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=lambda: Body(iter(())))
    caller: Caller = Caller()
    gone: Callable[[], bool] = lambda: False
    """Whether the client has hung up; long answers ask now and then."""


@dataclass(kw_only=True)
class Response:
    """Exactly one of `json`, `data` and `chunks` is the body. `chunks` is closed when the client goes."""

    status: int = 200
    json: Any = _NOTHING
    data: bytes = b""
    chunks: Iterator[bytes] | None = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: Callable[[], None] | None = None
    """What is to happen once the answer is out."""

    def encoded(self) -> tuple[bytes, str]:
        """Body and content type of an answer that is not streamed."""
        if self.json is not _NOTHING:
            return json.dumps(self.json, ensure_ascii=False).encode(errors="replace") + b"\n", JSON
        return self.data, self.content_type or "text/plain; charset=utf-8"


@dataclass(kw_only=True)
class Hijack:
    """The connection stops being HTTP. `run(client, head)` gets the socket and what the client sent already,
    and hands a copy of it on; the server then closes its own descriptor, not the connection. False when it
    has not: all is said, and the connection ends."""

    run: Callable[[socket.socket, bytes], bool]
    tty: bool
    after: Callable[[], None] = lambda: None
    """Called once, whatever became of the connection."""


Handler = Callable[[Request], Response | Hijack]
EMPTY = Response(status=204)


def begun(pieces: Iterator[T]) -> Iterator[T]:
    """The same pieces, but the first is waited for: what goes wrong before it still has a status."""
    first = list(itertools.islice(pieces, 1))

    def rest() -> Iterator[T]:
        try:
            yield from first
            yield from pieces
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    return rest()


def lines(messages: Iterator[Mapping[str, Any]]) -> Response:
    """A stream of JSON lines, each sent at once."""
    return Response(
        chunks=(
            json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n" for message in messages
        ),
        content_type=JSON,
    )
