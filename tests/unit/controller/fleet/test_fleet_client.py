"""The client against a server of h11 on the other end of a socket pair."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest

from hawse.fleet.client import AgentClient, Identity, demultiplex
from hawse.fleet.stream import SocketStream, Stream
from hawse_agent.errors import (
    Conflict,
    HawseError,
    NotFound,
    OutOfSpace,
    ProtocolError,
    StartFailed,
    Unreachable,
)
from hawse_agent.spec.host import HostSpec

Handler = Callable[["Exchange"], None]


class Exchange:
    """One request at the server's side."""

    def __init__(self, http: h11.Connection, sock: socket.socket, request: h11.Request, body: bytes) -> None:
        self.http, self.sock, self.request, self.body = http, sock, request, body
        self.path = request.target.decode()
        self.headers = {name.decode(): value.decode() for name, value in request.headers}

    def send(self, *events: Any) -> None:
        for event in events:
            if data := self.http.send(event):
                self.sock.sendall(data)

    def answer(self, status: int, body: bytes) -> None:
        headers = [("Content-Length", str(len(body)))]
        self.send(h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())

    def lines(self, *lines: Any) -> None:
        self.send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")]))
        for line in lines:
            self.send(h11.Data(data=json.dumps(line).encode() + b"\n"))


class Server:
    """Serves every connection to a unix socket by a handler; counts connections."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path, self.handler, self.connections = path, handler, 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        http, request, body = h11.Connection(h11.SERVER), None, b""
        with sock:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(sock.recv(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    assert request is not None
                    self.handler(Exchange(http, sock, request, body))
                    if http.our_state is not h11.DONE:
                        return
                    http.start_next_cycle()
                    body = b""
                else:
                    return


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Handler], tuple[AgentClient, Server]]]:
    made: list[tuple[AgentClient, Server]] = []

    def start(handler: Handler) -> tuple[AgentClient, Server]:
        server = Server(tmp_path / f"{len(made)}.sock", handler)

        def opened() -> Stream:
            return SocketStream(server.path)

        identity = Identity(run="run1", user="me", key="SHA256:x")
        made.append((AgentClient(opened, name="web1", identity=identity), server))
        return made[-1]

    yield start
    for client, server in made:
        client.close()
        server.listener.close()


Serve = Callable[[Handler], tuple[AgentClient, Server]]


def test_requests_share_a_connection(serve: Serve) -> None:
    client, server = serve(lambda exchange: exchange.answer(200, json.dumps(exchange.headers).encode()))
    headers = [client.json("GET", "/x"), client.json("POST", "/y", data={"a": 1})][1]
    assert server.connections == 1
    assert (headers["x-hawse-run"], headers["x-hawse-user"], headers["x-hawse-key"]) == (
        "run1",
        "me",
        "SHA256:x",
    )


def test_query_and_streamed_body(serve: Serve) -> None:
    client, _ = serve(lambda exchange: exchange.answer(200, f"{exchange.path} {len(exchange.body)}".encode()))
    body = (b"x" * 1000 for _ in range(300))
    assert (
        client.request("POST", "/p", query={"all": True, "q": "a b"}, body=body)
        == b"/p?all=true&q=a+b 300000"
    )


def test_an_error_is_the_agents_own_class(serve: Serve) -> None:
    error = StartFailed("no such command", step="exec", container_exit=127, hint="look")
    client, server = serve(
        lambda exchange: exchange.answer(error.status, json.dumps(error.to_wire()).encode())
    )
    for _ in range(2):
        with pytest.raises(StartFailed) as caught:
            client.request("POST", "/x")
        assert (caught.value.step, caught.value.container_exit, caught.value.hint) == ("exec", 127, "look")
    assert server.connections == 1


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (409, Conflict), (500, HawseError)])
def test_dockers_errors_by_status(serve: Serve, status: int, kind: type[HawseError]) -> None:
    client, _ = serve(lambda exchange: exchange.answer(status, b'{"message":"No such container: x"}'))
    with pytest.raises(kind, match="No such container: x"):
        client.container("x")


def test_an_answer_that_is_not_json(serve: Serve) -> None:
    client, _ = serve(lambda exchange: exchange.answer(200, b"<html>"))
    with pytest.raises(ProtocolError, match="did not answer in JSON"):
        client.facts()


def test_apply_hides_beats_and_needs_its_end(serve: Serve) -> None:
    def handler(exchange: Exchange) -> None:
        assert json.loads(exchange.body)["digest"] == "d"
        exchange.lines({"event": "beat"}, {"event": "item", "id": "a"}, {"event": "beat"}, {"event": "end"})
        exchange.send(h11.EndOfMessage())

    client, _ = serve(handler)
    assert [event["event"] for event in client.apply(HostSpec(), "d")] == ["item", "end"]


def test_apply_cut_off(serve: Serve) -> None:
    client, server = serve(lambda exchange: exchange.lines({"event": "item", "id": "a"}))
    with pytest.raises((ProtocolError, Unreachable)):
        list(client.apply(HostSpec(), "d"))
    with pytest.raises((ProtocolError, Unreachable)):  # and the next request opens another stream
        list(client.apply(HostSpec(), "d"))
    assert server.connections == 2


def test_silence(serve: Serve) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.lines({"n": 1})
        time.sleep(4)

    client, _ = serve(handler)
    lines = client.stream_lines("GET", "/events", silence=2)
    assert next(lines) == {"n": 1}
    with pytest.raises(Unreachable, match="silent for 2 s") as caught:
        next(lines)
    assert caught.value.stage == "agent"


def test_upload_refused_before_its_end(serve: Serve) -> None:
    """The agent answers while the body is still on its way, and closes."""
    listener = socket.socketpair()
    client = AgentClient(lambda: _PairStream(listener[0]), name="web1")
    error = json.dumps(OutOfSpace("the disk is full").to_wire()).encode()

    def refuse() -> None:
        listener[1].recv(1000)
        head = f"HTTP/1.1 507 Full\r\nContent-Length: {len(error)}\r\nConnection: close\r\n\r\n"
        listener[1].sendall(head.encode() + error)
        listener[1].shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=refuse)
    thread.start()
    with pytest.raises(OutOfSpace, match="the disk is full"):
        client.upload_blob("sha256:" + "0" * 64, (b"x" * 100_000 for _ in range(100)), 10_000_000)
    thread.join()


class _PairStream(SocketStream):
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock


def test_hijack(serve: Serve) -> None:
    def handler(exchange: Exchange) -> None:
        head = [("Connection", "Upgrade"), ("Upgrade", "tcp")]
        exchange.send(h11.InformationalResponse(status_code=101, headers=head))
        exchange.sock.sendall(b"hello ")
        exchange.sock.sendall(exchange.sock.recv(100).upper())

    client, _ = serve(handler)
    stream, seen = client.exec_start("e1")
    stream.send(b"there")
    stream.close_write()
    while data := stream.recv(5):
        seen += data
    stream.close()
    assert seen == b"hello THERE"


def test_hijack_refused(serve: Serve) -> None:
    client, _ = serve(lambda exchange: exchange.answer(404, b'{"message":"No such exec instance: e1"}'))
    with pytest.raises(NotFound, match="No such exec"):
        client.exec_start("e1")
    with pytest.raises(NotFound):
        client.exec_inspect("e1")


def test_logs(serve: Serve) -> None:
    def handler(exchange: Exchange) -> None:
        if exchange.path.endswith("/json"):
            exchange.answer(200, b'{"Config":{"Tty":false}}')
        else:
            exchange.answer(200, b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!")

    client, _ = serve(handler)
    assert list(client.logs("c")) == [(1, b"hi"), (2, b"!")]


def test_demultiplex_over_pieces() -> None:
    data = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x01x"
    assert list(demultiplex(data[n : n + 1] for n in range(len(data)))) == [(1, b"abc"), (2, b"x")]
    with pytest.raises(ProtocolError):
        list(demultiplex([data[:-1]]))
