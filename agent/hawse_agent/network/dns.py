"""The name server of an instance's containers: a process of its own, which outlives the daemon.

    container ── 127.0.0.11:53 ─(dnat in its own netns)─► udp and tcp socket made in that netns ─┐
    daemon ── paths.dns_socket: one JSON message and its sockets, one JSON reply ────────────────┤ serve()
    /etc/resolv.conf ── what is asked beyond the containers' networks ◄──────────────────────────┘

Names are those of the containers on the networks that the asking container is on. A known name is never
asked upstream, whatever the type. Refuses to forward for containers that are on internal networks only.

Requests: {"op": "listen", "container"} + [udp, tcp] · {"op": "names", "container", "forward", "upstreams",
"networks": [{"id", "name", "ipv4", "names", "links"}]} · {"op": "forget", "container"} · {"op": "list"} ·
{"op": "stop"}.

Forked from the zygote: imports only what costs nothing (no asyncio, logging, sqlite3), starts no thread.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hawse_agent.network import dns_packets as packets

PROTOCOL = 1
ADDRESS = "127.0.0.11"
RESOLV_CONF = "/etc/resolv.conf"
MAX_MESSAGE = 1 << 17

_TRY_SECONDS = 2.0
_IDLE_SECONDS = 10.0
_MAX_SERVERS = 3
_MAX_IN_FLIGHT = 1024
_MAX_STREAMS = 512
_SHARE = 4
"""No container may have more than one part in so many of what all may have: others must be answered, too."""
_MAX_PACKET = 65535
_BURST = 64
"""Datagrams taken from one container before others get their turn."""

Reply = Callable[[bytes], None]
Ready = Callable[[int], None]


def serve(listener: socket.socket, resolv_conf: str = RESOLV_CONF) -> None:
    """Answer until a request says stop. `listener` is a listening unix SEQPACKET socket."""
    loop = _Loop()
    server = _Server(loop, resolv_conf)
    listener.setblocking(False)
    loop.add(listener, select.EPOLLIN, lambda _: server.accept_control(listener))
    while not server.stopped:
        loop.run_once()


class Registry:
    """Who is on which network under which names. Pure."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._names: dict[str, dict[str, dict[str, str]]] = {}
        """network id → name → container → address"""

    def update(self, member: Member) -> None:
        self.forget(member.container)
        self._members[member.container] = member
        for place in member.places:
            names = self._names.setdefault(place.network, {})
            for name in place.names:
                for key in (name.lower(), f"{name}.{place.network_name}".lower()):
                    names.setdefault(key, {})[member.container] = place.ipv4

    def forget(self, container: str) -> None:
        member = self._members.pop(container, None)
        for place in member.places if member else ():
            names = self._names[place.network]
            for name in [name for name, found in names.items() if found.pop(container, None) and not found]:
                del names[name]
            if not names:
                del self._names[place.network]

    def member(self, container: str) -> Member | None:
        return self._members.get(container)

    def addresses(self, asker: Member, name: str) -> list[str]:
        """Of the first network of the asker that knows the name."""
        for place in asker.places:
            known = place.links.get(name, name)
            found = self._names.get(place.network, {}).get(known)
            if found:
                return list(found.values())
        return []

    def name_of(self, asker: Member, address: str) -> str | None:
        networks = {place.network for place in asker.places}
        for member in self._members.values():
            for place in member.places:
                if place.ipv4 == address and place.network in networks and place.names:
                    return f"{place.names[0]}.{place.network_name}"
        return None


@dataclass(frozen=True, kw_only=True)
class Place:
    network: str
    network_name: str
    ipv4: str
    names: tuple[str, ...]
    links: dict[str, str] = field(default_factory=dict)
    """What this container alone calls a name."""


@dataclass(frozen=True, kw_only=True)
class Member:
    container: str
    places: tuple[Place, ...] = ()
    forward: bool = True
    upstreams: tuple[str, ...] = ()
    """Servers of its own instead of the host's."""


def nameservers(text: str) -> tuple[str, ...]:
    """The servers that a resolv.conf lists, at most three, as a resolver takes them."""
    lines = (line.split() for line in text.splitlines())
    found = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return tuple(found[:_MAX_SERVERS])


class _Loop:
    """epoll and timers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def add(self, sock: socket.socket, events: int, ready: Ready) -> None:
        self._ready[sock.fileno()] = ready
        self._epoll.register(sock.fileno(), events)

    def change(self, sock: socket.socket, events: int) -> None:
        self._epoll.modify(sock.fileno(), events)

    def close(self, sock: socket.socket) -> None:
        if self._ready.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())
        sock.close()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, call))

    def run_once(self) -> None:
        wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1.0
        for fd, events in self._epoll.poll(wait):
            if ready := self._ready.get(fd):  # it may have been closed by one before it
                ready(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()


@dataclass(kw_only=True)
class _Sockets:
    udp: socket.socket
    tcp: socket.socket
    streams: set[_Stream] = field(default_factory=set)


class _Server:
    def __init__(self, loop: _Loop, resolv_conf: str) -> None:
        self.stopped = False
        self.loop = loop
        self.in_flight: Counter[str] = Counter()
        """Queries on their way upstream, by container."""
        self.streams = 0
        self._registry = Registry()
        self._sockets: dict[str, _Sockets] = {}
        self._resolv_conf = _ResolvConf(resolv_conf)
        self._turn = 0

    # the daemon's requests

    def accept_control(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        self.loop.add(connection, select.EPOLLIN, lambda _: self._control(connection))

    def _control(self, connection: socket.socket) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 2)
            if not data:
                self.loop.close(connection)
                return
            sockets = [socket.socket(fileno=fd) for fd in fds]
            try:
                reply = self._request(json.loads(data), sockets)
            except (KeyError, TypeError, ValueError, OSError) as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            connection.send(json.dumps(reply).encode())
        except OSError:  # the daemon is gone, or does not read its replies; the next one connects anew
            self.loop.close(connection)

    def _request(self, message: dict[str, Any], sockets: list[socket.socket]) -> dict[str, Any]:
        match message["op"]:
            case "listen":
                udp, tcp = sockets
                self._listen(message["container"], udp, tcp)
            case "names":
                self._registry.update(_member(message))
            case "forget":
                self._registry.forget(message["container"])
                self._close(message["container"])
            case "list":
                return {"protocol": PROTOCOL, "pid": os.getpid(), "containers": sorted(self._sockets)}
            case "stop":
                self.stopped = True
            case other:
                raise ValueError(f"unknown request {other!r}")
        return {}

    def _listen(self, container: str, udp: socket.socket, tcp: socket.socket) -> None:
        self._close(container)
        udp.setblocking(False)
        tcp.setblocking(False)
        mine = self._sockets[container] = _Sockets(udp=udp, tcp=tcp)
        self.loop.add(udp, select.EPOLLIN, lambda _: self._datagrams(container, udp))
        self.loop.add(tcp, select.EPOLLIN, lambda _: self._accept_stream(container, mine))

    def _close(self, container: str) -> None:
        mine = self._sockets.pop(container, None)
        if mine is None:
            return
        for stream in list(mine.streams):
            stream.close()
        self.loop.close(mine.udp)
        self.loop.close(mine.tcp)

    # the containers' questions

    def _datagrams(self, container: str, udp: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                packet, client = udp.recvfrom(_MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of an earlier answer
                continue

            def reply(answer: bytes, client: Any = client) -> None:
                if udp.fileno() >= 0:
                    _send_datagram(udp, answer, client)

            self.ask(container, packet, reply, stream=False)

    def _accept_stream(self, container: str, mine: _Sockets) -> None:
        try:
            connection, _ = mine.tcp.accept()
        except OSError:  # it has gone again
            return
        if self.streams >= _MAX_STREAMS or len(mine.streams) >= _MAX_STREAMS // _SHARE:
            connection.close()
            return
        connection.setblocking(False)
        _Stream(self, container, connection, mine)

    def ask(self, container: str, packet: bytes, reply: Reply, *, stream: bool) -> None:
        if len(packet) < 12 or packets.is_response(packet):
            return
        question = packets.parse(packet)
        asker = self._registry.member(container)
        if asker is None:
            reply(packets.failure(packet, packets.SERVFAIL))
            return
        if question is not None and question.klass == packets.CLASS_IN:
            limit = _MAX_PACKET if stream else question.udp_size
            own = self._own_answer(asker, question, limit)
            if own is not None:
                reply(own)
                return
        servers = asker.upstreams or self._resolv_conf.nameservers()
        if not asker.forward or not servers or not self._may_forward(container):
            reply(
                packets.failure(packet, packets.SERVFAIL)
                if question is None
                else packets.empty_answer(question, packets.SERVFAIL)
            )
            return
        _Forward(self, container, packet, question, servers, reply, stream=stream).next_server()

    def _may_forward(self, container: str) -> bool:
        own, all_ = self.in_flight[container], self.in_flight.total()
        return own < _MAX_IN_FLIGHT // _SHARE and all_ < _MAX_IN_FLIGHT

    def forwarded(self, container: str) -> None:
        self.in_flight[container] -= 1
        if not self.in_flight[container]:
            del self.in_flight[container]

    def _own_answer(self, asker: Member, question: packets.Question, limit: int) -> bytes | None:
        addresses = self._registry.addresses(asker, question.name)
        if addresses:
            if question.type != packets.TYPE_A:
                return packets.empty_answer(question, packets.NOERROR)
            self._turn += 1
            first = self._turn % len(addresses)
            return packets.addresses_answer(question, addresses[first:] + addresses[:first], limit=limit)
        if question.type == packets.TYPE_PTR:
            address = packets.reversed_address(question.name)
            name = self._registry.name_of(asker, address) if address else None
            if name:
                return packets.name_answer(question, name)
        return None


class _Stream:
    """A container's TCP connection; several queries may follow each other on it."""

    def __init__(self, server: _Server, container: str, connection: socket.socket, owner: _Sockets) -> None:
        self._server = server
        self._container = container
        self._connection = connection
        self._owner = owner
        self._received = b""
        self._unsent = b""
        self._last = time.monotonic()
        self._open = True
        owner.streams.add(self)
        server.streams += 1
        server.loop.add(connection, select.EPOLLIN, self._ready)
        server.loop.after(_IDLE_SECONDS, self._check_idle)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._owner.streams.discard(self)
            self._server.streams -= 1
            self._server.loop.close(self._connection)

    def _check_idle(self) -> None:
        if not self._open:
            return
        left = self._last + _IDLE_SECONDS - time.monotonic()
        if left <= 0:
            self.close()
        else:
            self._server.loop.after(left, self._check_idle)

    def _ready(self, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._flush()
            if events & ~select.EPOLLOUT:
                self._receive()
        except OSError:
            self.close()

    def _receive(self) -> None:
        data = self._connection.recv(_MAX_PACKET)
        if not data:
            self.close()
            return
        self._last = time.monotonic()
        self._received += data
        queries, self._received = _split_frames(self._received)
        for query in queries:
            self._server.ask(self._container, query, self._reply, stream=True)

    def _reply(self, answer: bytes) -> None:
        if not self._open:
            return
        self._last = time.monotonic()
        self._unsent += len(answer).to_bytes(2, "big") + answer
        try:
            self._flush()
        except OSError:
            self.close()

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        if len(self._unsent) > 4 * _MAX_PACKET:  # it asks and does not read
            self.close()
            return
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        self._server.loop.change(self._connection, wanted)


class _Forward:
    """One query on its way upstream: each server is tried once, the last one's refusal is passed on."""

    def __init__(
        self,
        server: _Server,
        container: str,
        packet: bytes,
        question: packets.Question | None,
        servers: tuple[str, ...],
        reply: Reply,
        *,
        stream: bool,
    ) -> None:
        self._server = server
        self._container = container
        self._ident = int.from_bytes(packet[:2], "big")
        self._packet = packets.with_id(packet, int.from_bytes(os.urandom(2), "big"))
        self._question = question
        self._servers = iter(servers)
        self._reply = reply
        self._stream = stream
        self._socket: socket.socket | None = None
        self._received = b""
        self._refusal = b""
        server.in_flight[container] += 1

    def next_server(self) -> None:
        """Ask the next one; when there is none, give the client the best there is."""
        self._hang_up()
        for address in self._servers:
            try:
                sock = self._connect(address)
            except OSError:  # no route, or not an address: the next one
                continue
            self._socket = sock
            self._received = b""
            events = select.EPOLLOUT if self._stream else select.EPOLLIN
            self._server.loop.add(sock, events, partial(self._ready, sock))
            self._server.loop.after(_TRY_SECONDS, partial(self._timeout, sock))
            return
        if self._refusal:
            self._finish(self._refusal)
        elif self._question is None:
            self._finish(packets.failure(self._packet, packets.SERVFAIL))
        else:
            self._finish(packets.empty_answer(self._question, packets.SERVFAIL))

    def _connect(self, address: str) -> socket.socket:
        kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
        # Bytes: for text, getaddrinfo would import the idna codec.
        found = socket.getaddrinfo(address.encode(), 53, type=kind, flags=socket.AI_NUMERICHOST)[0]
        sock = socket.socket(found[0], kind | socket.SOCK_NONBLOCK)
        try:
            if self._stream:
                sock.connect_ex(found[4])  # in progress, or an error that shows when it becomes ready
            else:
                sock.connect(found[4])
                sock.send(self._packet)
        except OSError:
            sock.close()
            raise
        return sock

    def _ready(self, sock: socket.socket, events: int) -> None:
        try:
            if self._stream and events & select.EPOLLOUT:
                sock.send(len(self._packet).to_bytes(2, "big") + self._packet)
                self._server.loop.change(sock, select.EPOLLIN)
                return
            data = sock.recv(_MAX_PACKET + 2)
        except BlockingIOError:
            return
        except OSError:  # refused
            self.next_server()
            return
        if not self._stream:
            self._take(data)
            return
        if not data:
            self.next_server()
            return
        self._received += data
        frames, self._received = _split_frames(self._received)
        if frames:
            self._take(frames[0])

    def _take(self, answer: bytes) -> None:
        if not packets.answers(answer, self._packet, self._question):
            return  # not ours: forged or late; the timer is still running
        if packets.code(answer) in (packets.NOERROR, packets.NXDOMAIN):
            self._finish(answer)
        else:
            self._refusal = answer
            self.next_server()

    def _timeout(self, sock: socket.socket) -> None:
        if self._socket is sock:
            self.next_server()

    def _finish(self, answer: bytes) -> None:
        self._hang_up()
        self._server.forwarded(self._container)
        self._reply(packets.with_id(answer, self._ident))

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._server.loop.close(self._socket)
            self._socket = None


class _ResolvConf:
    """Read again when the file is another one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._nameservers: tuple[str, ...] = ()

    def nameservers(self) -> tuple[str, ...]:
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._nameservers = nameservers(file.read())
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._nameservers = None, ()
        return self._nameservers


def _member(message: dict[str, Any]) -> Member:
    return Member(
        container=message["container"],
        forward=message["forward"],
        upstreams=tuple(message["upstreams"])[:_MAX_SERVERS],
        places=tuple(
            Place(
                network=place["id"],
                network_name=place["name"],
                ipv4=place["ipv4"],
                names=tuple(place["names"]),
                links={alias.lower(): name.lower() for alias, name in place.get("links", {}).items()},
            )
            for place in message["networks"]
        ),
    )


def _send_datagram(udp: socket.socket, answer: bytes, client: Any) -> None:
    try:
        udp.sendto(answer, client)
    except OSError:  # the client is gone or its buffer is full: it asks again
        pass


def _split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    return list(_frames(data)), data[_framed_length(data) :]


def _frames(data: bytes) -> Iterator[bytes]:
    position = 0
    while len(data) - position >= 2:
        length = int.from_bytes(data[position : position + 2], "big")
        if len(data) - position - 2 < length:
            return
        yield data[position + 2 : position + 2 + length]
        position += 2 + length


def _framed_length(data: bytes) -> int:
    return sum(2 + len(frame) for frame in _frames(data))
