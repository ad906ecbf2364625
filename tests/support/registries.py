"""Debian's docker-registry on loopback, as it comes or with TLS, passwords or tokens, and what may stand
before it."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bcrypt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.support.certificates import Certificate

USER, PASSWORD = "user", "secret-word"


def available() -> bool:
    return shutil.which("docker-registry") is not None and shutil.which("skopeo") is not None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def basic(user: str = USER, password: str = PASSWORD) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


class DebianRegistry:
    """Use it as a context manager; `address` is its host:port, `storage` where it keeps what is pushed."""

    def __init__(
        self,
        directory: Path,
        *,
        tls: tuple[Path, Path] | None = None,
        password: bool = False,
        tokens: Mapping[str, str] | None = None,
        storage: Path | None = None,
        port: int = 0,
        before: tuple[str, ...] = (),
    ) -> None:
        """`tls` is certificate and key; `tokens` the settings of its `auth: token`; `before` a command to run
        it by."""
        directory.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{port or free_port()}"
        self.storage = storage or directory / "storage"
        self._directory = directory
        self._before = before
        self._process: subprocess.Popen[bytes] | None = None
        http: dict[str, Any] = {"addr": self.address, "secret": "of tests"}
        if tls:
            http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
        settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
            "http": http,
        }
        if password:
            passwords = directory / "htpasswd"
            hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
            passwords.write_text(f"{USER}:{hashed}\n")
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(passwords)}}
        if tokens:
            settings["auth"] = {"token": dict(tokens)}
        self._settings = directory / "registry.yml"
        self._settings.write_text(json.dumps(settings))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._before, "docker-registry", "serve", str(self._settings)], stdout=log, stderr=log
            )
        self._wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        assert self._process is not None
        port = self.address.rpartition(":")[2]
        probe = [*self._before, "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
        deadline = time.monotonic() + 30
        while subprocess.run(probe, stderr=subprocess.DEVNULL).returncode:
            log = (self._directory / "log").read_text()
            assert self._process.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.02)


@dataclass
class Serving:
    """What a server of this module was asked, and how it is to answer."""

    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """(method, path with query, headers in lower case)."""
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.requests]


class Handler(BaseHTTPRequestHandler):
    """Answers GET, HEAD and the like by methods of its own."""

    protocol_version = "HTTP/1.1"
    serving: Any

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def note(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.serving.requests.append((self.command, self.path, headers))

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server:
    """A handler in threads, as a context manager; `tls` is its certificate and key."""

    def __init__(
        self, handler: type[Handler], serving: Serving, tls: tuple[Path, Path] | None = None
    ) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"serving": serving}))
        self._server.daemon_threads = True
        serving.port = self._server.server_address[1]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.serving = serving
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# -- tokens --------------------------------------------------------------------------------------


@dataclass
class Tokens(Serving):
    """A token service: anybody may pull from `public/…`, the user everything."""

    certificate: Certificate | None = None
    expires_in: int = 300
    refresh: str = ""
    """Given to who asks for it, and taken instead of the password."""


class _TokenHandler(Handler):
    serving: Tokens

    def do_GET(self) -> None:
        self.note()
        authorization = self.headers.get("Authorization", "")
        if authorization and authorization != basic():
            words = {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
            self.answer(401, json.dumps(words).encode())
            return
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        answer = self._token(query.get("scope", []), known=bool(authorization))
        if authorization and self.serving.refresh and query.get("offline_token") == ["true"]:
            answer["refresh_token"] = self.serving.refresh
        self.answer(200, json.dumps(answer).encode())

    def do_POST(self) -> None:
        self.note()
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if form["grant_type"] != ["refresh_token"] or form["refresh_token"] != [self.serving.refresh]:
            self.answer(401, b'{"details": "no such refresh token"}')
            return
        answer = self._token(form.get("scope", [""])[0].split(), known=True)
        answer["access_token"] = answer.pop("token")
        self.answer(200, json.dumps(answer).encode())

    def _token(self, scopes: list[str], *, known: bool) -> dict[str, Any]:
        serving, now = self.serving, int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = [a for a in actions.split(",") if known or (a == "pull" and name.startswith("public/"))]
            access.append({"type": kind, "name": name, "actions": granted})
        claims = {
            "iss": "tests",
            "sub": USER if known else "",
            "aud": "registry",
            "iat": now,
            "nbf": now - 10,
            "exp": now + 300,
            "jti": str(time.monotonic_ns()),
            "access": access,
        }
        return {"token": _signed(serving.certificate, claims), "expires_in": serving.expires_in}


def _signed(certificate: Certificate | None, claims: Mapping[str, Any]) -> str:
    """A JSON Web Token by RS256, with the certificate in it."""
    assert certificate is not None and isinstance(certificate.key, rsa.RSAPrivateKey)
    encoded = certificate.certificate.public_bytes(serialization.Encoding.DER)
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(encoded).decode()]}
    text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    signature = certificate.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token_service(certificate: Certificate, **behaviour: Any) -> Server:
    """As a context manager; its `serving` is a `Tokens`."""
    return Server(_TokenHandler, Tokens(certificate=certificate, **behaviour))


# -- an index for search -------------------------------------------------------------------------


@dataclass
class Index(Serving):
    """Docker Hub's search: names with stars and whether they are official."""

    results: list[dict[str, Any]] = field(default_factory=list)


class _IndexHandler(Handler):
    serving: Index

    def do_GET(self) -> None:
        self.note()
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path != "/v1/search":
            self.answer(404, b"<html>")
            return
        term, limit = query["q"][0], int(query["n"][0])
        found = [result for result in self.serving.results if term in result["name"]][:limit]
        self.answer(200, json.dumps({"num_results": len(found), "query": term, "results": found}).encode())


def index(results: list[dict[str, Any]]) -> Server:
    return Server(_IndexHandler, Index(results=results))


# -- faults --------------------------------------------------------------------------------------


@dataclass
class Faults(Serving):
    """A proxy in front of a registry, which fails as it is told. Counts go down as they are used."""

    upstream: str = ""
    """host:port."""
    only: str = "/blobs/"
    """Paths that are concerned have this in them."""
    cut_after: int = 0
    """An answer's, and a request's, body ends after so many bytes …"""
    cuts: int = 0
    """… so many times."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers instead of the registry's, one after the other."""
    wrong: int = 0
    """So many answers have a wrong byte."""
    gate: threading.Event | None = None
    """A body waits for it, once so many bytes have passed:"""
    gate_after: int = 1
    reached: threading.Event = field(default_factory=threading.Event)
    """Somebody waits at the gate."""


class _FaultHandler(Handler):
    serving: Faults

    def do_GET(self) -> None:
        self.note()
        faults, concerned = self.serving, self.serving.only in self.path
        length = int(self.headers.get("Content-Length") or 0)
        if concerned and faults.statuses:
            status, headers = faults.statuses.pop(0)
            self.rfile.read(length)
            words = {"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}
            self.answer(status, json.dumps(words).encode() if status == 429 else b"<html>", headers)
            return
        host, _, port = faults.upstream.partition(":")
        with socket.create_connection((host, int(port))) as upstream:
            kept = {k: v for k, v in self.headers.items() if k.lower() not in ("connection",)}
            head = f"{self.command} {self.path} HTTP/1.1\r\nConnection: close\r\n"
            head += "".join(f"{key}: {value}\r\n" for key, value in kept.items())
            upstream.sendall(f"{head}\r\n".encode())
            if self.headers.get("Transfer-Encoding") == "chunked":
                raise AssertionError("not needed so far")
            cut = concerned and faults.cuts > 0 and length > faults.cut_after
            if concerned and faults.gate is not None and length and self.command != "GET":
                faults.reached.set()
                faults.gate.wait(20)
            left = faults.cut_after if cut else length
            while left and (piece := self.rfile.read(min(left, 1 << 16))):
                upstream.sendall(piece)
                left -= len(piece)
            if cut:
                faults.cuts -= 1
                upstream.shutdown(socket.SHUT_WR)
                upstream.recv(1)  # it has noticed
                self.close_connection = True
                return
            self._pass_on(upstream, concerned)
        self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _pass_on(self, upstream: socket.socket, concerned: bool) -> None:
        faults, sent, in_body = self.serving, 0, False
        with upstream.makefile("rb") as file:
            lines = []
            while (line := file.readline()) not in (b"\r\n", b""):
                lines.append(line)
            self.wfile.write(b"".join(lines) + b"\r\n")
            in_body = self.command == "GET" and b" 20" in lines[0]
            while piece := file.read1(1 << 14):
                if concerned and in_body:
                    if faults.wrong and sent == 0:
                        faults.wrong -= 1
                        piece = bytes((piece[0] ^ 1,)) + piece[1:]
                    if faults.cuts and sent + len(piece) > faults.cut_after:
                        faults.cuts -= 1
                        self.wfile.write(piece[: faults.cut_after - sent])
                        return
                    if faults.gate is not None and sent >= faults.gate_after:
                        faults.reached.set()
                        faults.gate.wait(20)
                self.wfile.write(piece)
                sent += len(piece)


def faults_before(upstream: str, **behaviour: Any) -> Server:
    """As a context manager; its `serving` is a `Faults`."""
    return Server(_FaultHandler, Faults(upstream=upstream, **behaviour))
