"""The server over a real unix socket, with endpoints made for the purpose."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.api.audit import Audit
from hawse_agent.api.http import Hijack, Request, Response, lines
from hawse_agent.api.router import Router
from hawse_agent.api.server import Server
from hawse_agent.errors import Conflict, NotFound, StartFailed

TIMEOUT = 10.0


class Toy:
    """Endpoints, and what they have seen."""

    def __init__(self) -> None:
        self.router = Router()
        self.closed = threading.Event()
        self.stopped = threading.Event()
        for method, pattern, handler in (
            ("GET", "/echo/{name}", self.echo),
            ("POST", "/json", self.json),
            ("POST", "/size", self.size),
            ("POST", "/file", self.file),
            ("GET", "/fail/{how}", self.fail),
            ("POST", "/fail/{how}", self.fail),
            ("GET", "/stream", self.stream),
            ("GET", "/broken", self.broken),
            ("GET", "/gone", self.gone),
            ("POST", "/hijack/{tty}", self.hijack),
            ("POST", "/stop", self.stop),
        ):
            self.router.add(method, pattern, handler)

    def echo(self, request: Request) -> Response:
        seen = {"name": request.params["name"], "version": request.version, "all": request.query.all("a")}
        return Response(json={**seen, "user": request.caller.user, "flag": request.query.flag("flag")})

    def json(self, request: Request) -> Response:
        return Response(status=201, json=request.body.json(), headers={"X-Seen": "yes"})

    def size(self, request: Request) -> Response:
        return Response(json=sum(len(chunk) for chunk in request.body.chunks()))

    def file(self, request: Request) -> Response:
        file = request.body.file()
        return Response(json=[file.read(3).decode(), len(file.read())])

    def fail(self, request: Request) -> Response:
        match request.params["how"]:
            case "missing":
                raise NotFound("No such container: web")
            case "start":
                raise StartFailed("exec: not found", step="exec", container_exit=127)
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case _:
                raise RuntimeError("oops")

    def stream(self, request: Request) -> Response:
        def messages() -> Iterator[dict[str, int]]:
            try:
                number = 0
                while True:
                    yield {"n": number}
                    number += 1
                    time.sleep(0.001)
            finally:
                self.closed.set()

        return lines(messages())

    def broken(self, request: Request) -> Response:
        def messages() -> Iterator[dict[str, int]]:
            yield {"n": 0}
            raise Conflict("the container is gone")

        return lines(messages())

    def gone(self, request: Request) -> Response:
        while not request.gone():
            time.sleep(0.001)
        self.closed.set()
        return Response()

    def hijack(self, request: Request) -> Hijack:
        def run(client: socket.socket, head: bytes) -> bool:
            copy = client.dup()
            threading.Thread(target=_shout, args=(copy, head)).start()
            return True

        if request.params["tty"] == "refused":
            raise Conflict("container is not running")
        if request.params["tty"] == "late":
            return Hijack(run=_refuse, tty=False)
        return Hijack(run=run, tty=request.params["tty"] == "1")

    def stop(self, request: Request) -> Response:
        return Response(status=204, after=self.stopped.set)


def _refuse(client: socket.socket, head: bytes) -> None:
    raise Conflict("it has just ended")


def _shout(client: socket.socket, head: bytes) -> None:
    """Until the client has said all; then, as its half of the connection is still open, the last word."""
    data = head
    while piece := client.recv(1000):
        data += piece
    client.sendall(data.upper())
    client.close()


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def path(tmp_path: Path, toy: Toy) -> Iterator[Path]:
    server = Server(tmp_path / "run" / "s", toy.router, Audit(tmp_path / "audit.log"), version="1.2")
    server.listen()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield tmp_path / "run" / "s"
    server.stop()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    server.close()
    assert not (tmp_path / "run" / "s").exists()


class Client(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = _connect(self._path)

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> HTTPResponse:
        encoded = {name.replace("_", "-"): value for name, value in headers.items()}
        self.request(method, target, body, encoded)
        return self.getresponse()


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    connection.connect(str(path))
    return connection


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    with closing(Client(path)) as client:
        yield client


def test_requests_share_a_connection(client: Client) -> None:
    answer = client.ask("GET", "/v1.44/echo/w%20b?a=1&a=2&flag=0", X_Hawse_User="ann")
    expected = {"name": "w b", "version": [1, 44], "all": ["1", "2"], "user": "ann", "flag": False}
    assert json.loads(answer.read()) == expected
    assert answer.headers["Server"] == "Hawse/1.2 (linux)"
    first = client.sock
    answer = client.ask("POST", "/json", b'{"a": "\xc3\xbc"}')
    assert (answer.status, answer.headers["X-Seen"]) == (201, "yes")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.read() == '{"a": "ü"}\n'.encode()
    assert client.sock is first


def test_an_upload_is_a_stream(client: Client) -> None:
    pieces = (b"x" * 100_000 for _ in range(100))
    assert json.loads(client.ask("POST", "/size", pieces).read()) == 10_000_000
    assert json.loads(client.ask("POST", "/file", b"abcdef").read()) == ["abc", 3]
    assert json.loads(client.ask("POST", "/json").read()) == {}


def test_the_client_may_wait_to_be_asked_for_its_body(path: Path) -> None:
    with _connect(path) as connection:
        connection.sendall(
            b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "kind", "text"),
    [
        ("GET", "/fail/missing", None, 404, "NotFound", "No such container: web"),
        ("POST", "/fail/missing", b"x" * 1000, 404, "NotFound", "No such container: web"),
        ("GET", "/fail/start", None, 500, "StartFailed", "exec: not found"),
        ("GET", "/fail/full", None, 507, "OutOfSpace", "[Errno 28] No space left on device"),
        ("GET", "/fail/bug", None, 500, "InternalError", "RuntimeError: oops"),
        ("GET", "/nothing", None, 404, "NotFound", "page not found: /nothing"),
        ("DELETE", "/json", None, 405, "MethodNotAllowed", "DELETE is not possible for /json, only POST"),
        ("POST", "/json", b"{", 400, "InputError", "the request's body is not JSON: "),
    ],
)
def test_errors(
    client: Client, method: str, target: str, body: bytes | None, status: int, kind: str, text: str
) -> None:
    answer = client.ask(method, target, body)
    said = json.loads(answer.read())
    assert (answer.status, said["kind"]) == (status, kind)
    assert said["message"].startswith(text)
    assert client.ask("GET", "/echo/again").status == 200


def test_a_body_that_nobody_wants_costs_the_connection(client: Client) -> None:
    def pieces() -> Iterator[bytes]:
        while True:
            yield b"x" * 100_000

    with pytest.raises(ConnectionError):
        client.ask("POST", "/fail/missing", pieces())


def test_what_is_not_http(path: Path) -> None:
    with _connect(path) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert connection.recv(1000) == b""


def test_a_stream_ends_with_its_client(client: Client, toy: Toy) -> None:
    answer = client.ask("GET", "/stream")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert [json.loads(answer.readline()) for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    answer.close()
    client.close()
    assert toy.closed.wait(TIMEOUT)


def test_a_stream_that_breaks_has_no_end(path: Path) -> None:
    with _connect(path) as connection:
        connection.sendall(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
        received = _read(connection)
    assert b'{"n": 0}' in received
    assert not received.endswith(b"0\r\n\r\n")


def test_a_client_that_hangs_up_is_noticed(path: Path, toy: Toy) -> None:
    with _connect(path) as connection:
        connection.sendall(b"GET /gone HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not toy.closed.wait(0.05)
    assert toy.closed.wait(TIMEOUT)


@pytest.mark.parametrize(
    ("target", "headers", "status", "kind"),
    [
        ("/v1.41/hijack/0", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "101 UPGRADED", "raw"),
        ("/v1.42/hijack/0", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "101 UPGRADED", "multiplexed"),
        ("/v1.42/hijack/1", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "101 UPGRADED", "raw"),
        ("/v1.42/hijack/0", "", "200 OK", "raw"),
    ],
)
def test_a_hijacked_connection(path: Path, target: str, headers: str, status: str, kind: str) -> None:
    """What follows the request at once belongs to the stream, and each half is closed on its own."""
    with _connect(path) as connection:
        request = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{headers}\r\n{{}}early "
        connection.sendall(request.encode())
        head = connection.recv(1000).decode()
        assert head.startswith(f"HTTP/1.1 {status}\r\n")
        assert f"application/vnd.docker.{kind}-stream" in head
        connection.sendall(b"late")
        connection.shutdown(socket.SHUT_WR)
        assert _read(connection) == b"EARLY LATE"


def test_the_stream_does_not_come_with_the_head(path: Path) -> None:
    """A client that is slow to read gets the head alone, as long as it is not too slow."""
    with _connect(path) as connection:
        connection.sendall(b"POST /hijack/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nearly")
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        assert connection.recv(1 << 16).endswith(b"\r\n\r\n")
        assert _read(connection) == b"EARLY"


def test_a_hijack_that_is_refused(client: Client) -> None:
    answer = client.ask("POST", "/hijack/refused", b"{}", Connection="Upgrade", Upgrade="tcp")
    assert (answer.status, json.loads(answer.read())["message"]) == (409, "container is not running")


def test_a_hijack_that_fails_late_is_told_in_the_stream(path: Path) -> None:
    with _connect(path) as connection:
        connection.sendall(b"POST /hijack/late HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        received = _read(connection)
    assert received.endswith(b"\x02\0\0\0\0\0\0\x13it has just ended\r\n")


def test_what_comes_after_the_answer(client: Client, toy: Toy) -> None:
    answer = client.ask("POST", "/stop")
    assert (answer.status, answer.read()) == (204, b"")
    assert toy.stopped.wait(TIMEOUT)


def test_head_has_the_length_and_no_body(client: Client) -> None:
    answer = client.ask("HEAD", "/echo/a")
    assert int(answer.headers["Content-Length"]) > 50
    assert answer.read() == b""


def test_the_audit_log_has_who_and_what_but_no_contents(client: Client, tmp_path: Path) -> None:
    client.ask("GET", "/echo/a").read()
    client.ask("POST", "/json?password=s3cret", b'{"token": "s3cret"}', X_Hawse_Run="r1").read()
    client.ask("POST", "/fail/missing", X_Hawse_User="ann", X_Hawse_Key="SHA256:abc").read()
    client.ask("GET", "/echo/a").read()  # its answer comes after what was noted of those before
    log = tmp_path / "audit.log"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for entry in entries:
        assert entry.pop("seconds") >= 0
        assert entry.pop("time").endswith("Z")
    assert entries == [
        {"run": "r1", "method": "POST", "path": "/json", "status": 201},
        {"user": "ann", "key": "SHA256:abc", "method": "POST", "path": "/fail/missing", "status": 404},
    ]
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_socket_is_its_owners_alone_and_replaces_a_dead_ones(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("left by a daemon that was killed")
    server = Server(path, Router(), Audit(tmp_path / "audit.log"), version="1")
    server.listen()
    assert os.stat(path).st_mode & 0o777 == 0o600
    server.close()


def _read(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data
