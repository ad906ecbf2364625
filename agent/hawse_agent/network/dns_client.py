"""The daemon's side of the name server: starts it when there is none, tells it who is where.

A name server started anew knows nobody: `containers` says whom it knows, and the manager tells it the rest.
One that has died is noticed at once: `lost` is called, in a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hawse_agent.errors import HostRefused, ProtocolError
from hawse_agent.network.dns import MAX_MESSAGE
from hawse_agent.spec.records import EndpointRecord, NetworkRecord

Start = Callable[[socket.socket], None]

_TIMEOUT = 10.0


class DnsClient:
    """`start` makes a process run `dns.serve` on the listening socket that it is given."""

    def __init__(self, path: Path, start: Start) -> None:
        self._path = path
        self._start = start
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._stopped = False
        self.lost: Callable[[], None] = lambda: None

    def listen(self, container: str, udp: socket.socket, tcp: socket.socket) -> None:
        self._call({"op": "listen", "container": container}, (udp.fileno(), tcp.fileno()))

    def names(
        self,
        container: str,
        pairs: Sequence[tuple[EndpointRecord, NetworkRecord]],
        upstreams: Sequence[str],
    ) -> None:
        """On the default network there are no names."""
        networks = [
            {
                "id": network.id,
                "name": network.name,
                "ipv4": _bare(endpoint),
                "names": list(endpoint.names),
                "links": {alias: name for name, _, alias in (link.partition(":") for link in endpoint.links)},
            }
            for endpoint, network in pairs
            if not network.default
        ]
        forward = any(not network.internal for _, network in pairs)
        self._call(
            {
                "op": "names",
                "container": container,
                "forward": forward,
                "upstreams": list(upstreams),
                "networks": networks,
            }
        )

    def forget(self, container: str) -> None:
        """Does not start one for that."""
        self._call({"op": "forget", "container": container}, start=False)

    def containers(self) -> frozenset[str]:
        """Whose questions it takes."""
        return frozenset(self._call({"op": "list"}, start=False).get("containers", ()))

    def stop(self) -> None:
        self._stopped = True
        self._call({"op": "stop"}, start=False)
        self._path.unlink(missing_ok=True)

    def _call(
        self, message: dict[str, Any], fds: Sequence[int] = (), *, start: bool = True
    ) -> dict[str, Any]:
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE:
            raise HostRefused(f"the names of container {message['container'][:12]} are too many for DNS")
        with self._lock:
            reply = self._exchange(data, fds)
            if reply is None and start:
                self._launch()
                reply = self._exchange(data, fds)
                if reply is None:
                    raise HostRefused("the name server of the containers does not stay up")
        if reply is None:
            return {}
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise ProtocolError(f"name server: {message['op']}: {answer['error']}")
        return answer

    def _exchange(self, data: bytes, fds: Sequence[int]) -> bytes | None:
        """The reply, or None when no name server is there; a connection of old is tried anew."""
        for connection in (self._connection, None):
            sock = connection or self._connect()
            if sock is None:
                return None
            try:
                socket.send_fds(sock, [data], list(fds))
                reply = sock.recv(MAX_MESSAGE)
            except TimeoutError as error:
                self._drop(sock)
                raise HostRefused(f"the name server does not answer within {_TIMEOUT:.0f} s") from error
            except OSError:
                reply = b""
            if reply:
                if connection is None:
                    self._watch()
                self._connection = sock
                return reply
            self._drop(sock)
            if connection is None:
                return None
        return None

    def _watch(self) -> None:
        """A connection that nothing comes through but its end."""
        sock = self._connect()
        if sock is None:
            return  # it has just died: who asked it last has noticed
        sock.settimeout(None)

        def wait() -> None:
            with sock, contextlib.suppress(OSError):
                sock.recv(1)
            if not self._stopped:
                self.lost()

        threading.Thread(target=wait, name="names", daemon=True).start()

    def _connect(self) -> socket.socket | None:
        sock = _socket()
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        return sock

    def _drop(self, sock: socket.socket) -> None:
        sock.close()
        self._connection = None

    def _launch(self) -> None:
        """Bound and listening before the process exists: whoever connects now is served when it is up."""
        with _socket() as listener:
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            os.chmod(self._path, 0o600)
            listener.listen(16)
            self._start(listener)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _bare(endpoint: EndpointRecord) -> str:
    return endpoint.ipv4.split("/")[0]
