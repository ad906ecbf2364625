"""What ADD takes from an address: all of it or nothing, and nobody has to wait for a server that dawdles."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import posixpath
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from hawse_agent.engine.building.stopping import Stopping
from hawse_agent.errors import HostRefused, InputError
from hawse_agent.images.blobs import disk

_PIECE = 1 << 18
_TIMEOUT = 60.0
_LONGEST_NAME = 255


def name_of(url: str) -> str:
    """The file's, as Docker has it: the path's last part, which may be empty. Raises InputError."""
    try:
        path = urllib.parse.unquote(urllib.parse.urlsplit(url).path)
    except ValueError as error:
        raise InputError(f"{url!r} is no address: {error}") from None
    name = posixpath.basename(path)
    if name in (".", "..") or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise InputError(f"cannot tell a file's name from {url}: {name!r} is none")
    return name


def download(url: str, path: Path, stopping: Stopping, *, algorithm: str) -> tuple[str, float]:
    """Into a new file: the digest of what came, as `sha256:HEX`, and seconds since 1970 by Last-Modified, or
    now. Raises HostRefused with the address, InputError for one that is none, BuildStopped."""
    cutting = _Cutting(stopping)
    try:
        with stopping.ending(cutting.cut), cutting.opener().open(url, timeout=_TIMEOUT) as answer:
            digest = _received(url, answer, path, algorithm)
            modified = answer.headers.get("Last-Modified") or ""
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise HostRefused(f"download {url}: {_reason(error)}") from error
    except (http.client.InvalidURL, UnicodeError) as error:
        raise InputError(f"{url!r} is no address: {error}") from None
    except http.client.HTTPException as error:
        raise HostRefused(f"download {url}: {type(error).__name__} {error}") from error
    return f"{algorithm}:{digest}", _time(modified)


def _received(url: str, answer: Any, path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    expected: int | None = answer.length
    received = 0
    with disk(f"download {url}"), path.open("xb") as file:
        while received != expected and (piece := answer.read1(_PIECE)):
            received += len(piece)
            digest.update(piece)
            file.write(piece)
    if expected is not None and received != expected:
        raise HostRefused(f"download {url}: the connection ended after {received} of {expected} bytes")
    return digest.hexdigest()


class _Cutting:
    """The connections of one download, cut from another thread when nobody wants it any more."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping
        self._sockets: list[socket.socket] = []

    def opener(self) -> urllib.request.OpenerDirector:
        """For http and https alone, where redirections lead as well."""
        cutting = self

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                cutting.watch(self.sock)

        class Encrypted(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                cutting.watch(self.sock)

        class PlainHandler(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, req)

        class EncryptedHandler(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Encrypted, req)

        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            PlainHandler(),
            EncryptedHandler(),
        ):
            opener.add_handler(handler)
        return opener

    def watch(self, connected: socket.socket) -> None:
        self._sockets.append(connected)
        self._stopping.check()  # a stop that came just before has not seen this one

    def cut(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):  # it has ended already
                socket.socket.shutdown(one, socket.SHUT_RDWR)


def _time(modified: str) -> float:
    try:
        return email.utils.parsedate_to_datetime(modified).timestamp()
    except (TypeError, ValueError, OverflowError):
        return time.time()


def _reason(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return (inner.strerror if isinstance(inner, OSError) else None) or str(inner)
