"""The daemon's side of a shim: start one, ask it, hand streams over to it, watch it.

The conversation is described in docs/protocols.md. Requests are one JSON line with descriptors, answered by
one JSON line; every request has a connection of its own.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hawse_agent.errors import HostRefused, ProtocolError, StartFailed, from_wire
from hawse_agent.failpoints import reach
from hawse_agent.linux import files
from hawse_agent.spec import codec
from hawse_agent.spec.container import Resources, RestartPolicy
from hawse_agent.spec.runtime import ProcessConfig
from hawse_agent.supervise.attach import AttachOptions as AttachOptions

REQUEST_TIMEOUT = 30.0
_OUTPUT = AttachOptions(stdout=True, stderr=True)
_UCRED = struct.Struct("3i")
_MAX_DESCRIPTORS = 250
"""SCM_MAX_FD is 253; a start with more reserved ports than this sends several messages."""


CATCH_UP = 2.0
"""Seconds that who asks waits at most for what has been told to be passed on."""
_AT_ONCE = 1 << 19
"""More than a stream's buffers hold."""


class ShimStarter(Protocol):
    """What `start` needs of the zygote."""

    def start_shim(self, runtime: Path) -> socket.socket: ...


@dataclass(frozen=True, kw_only=True)
class Started:
    """A running container; `watch` is its event stream, for `Watcher.add`."""

    pid: int
    started_at: float
    start_time: int
    watch: socket.socket


class ShimClient:
    """Talks to the shim behind `path`. Raises FileNotFoundError or ConnectionError when it is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def state(self) -> dict[str, Any]:
        return dict(self._ask("state")["state"])

    def watch(self) -> tuple[dict[str, Any], socket.socket]:
        """The full state now, and a stream of all that changes from then on."""
        return taken_up(self.ask_to_watch())

    def ask_to_watch(self, *, patient: bool = False) -> socket.socket:
        """The beginning of `watch`: the first line to come is the answer, for `taken_up` or the `Watcher`.
        Raises BlockingIOError when so many wait for the shim that no more can; `patient` waits till then."""
        connection = self._connect(None if patient else REQUEST_TIMEOUT)
        try:
            _send_line(connection, {"op": "watch"})
        except BaseException:
            connection.close()
            raise
        return connection

    def pid(self) -> int:
        """Of the shim itself."""
        with self._connect() as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            return int(_UCRED.unpack(credentials)[0])

    def attach(self, client: socket.socket, options: AttachOptions, head: bytes = b"") -> None:
        """From now on the shim talks to `client`; `head` is what it has sent already."""
        request = {"options": codec.to_json(options), "head": head.hex()}
        self._ask("attach", request, [client.fileno()])

    def exec_start(
        self,
        exec_id: str,
        process: ProcessConfig,
        client: socket.socket | None,
        head: bytes = b"",
        options: AttachOptions = _OUTPUT,
    ) -> int:
        """Its process id; how it ends is told to who watches. `options`: what `client` gets of the streams.
        Raises StartFailed when it cannot be executed."""
        request = {
            "exec": exec_id,
            "process": codec.to_json(process),
            "options": codec.to_json(options),
            "head": head.hex(),
        }
        answer = self._ask("exec", request, [] if client is None else [client.fileno()])
        return int(answer.get("pid", 0))  # a shim from before an upgrade does not say

    def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        self._ask("exec_resize", {"exec": exec_id, "height": height, "width": width})

    def resize(self, height: int, width: int) -> None:
        self._ask("resize", {"height": height, "width": width})

    def signal(self, number: int) -> None:
        self._ask("signal", {"signal": number})

    def stop(self, *, signal: int, timeout: float) -> None:
        """Ask for the stop; the watch stream tells when it has ended. SIGKILL follows after `timeout`
        seconds, by the shim itself, so that a dead daemon does not leave a half-stopped container."""
        self._ask("stop", {"signal": signal, "timeout": timeout})

    def pause(self) -> None:
        self._ask("pause")

    def unpause(self) -> None:
        self._ask("unpause")

    def update(self, *, resources: Resources | None, restart: RestartPolicy | None) -> None:
        request: dict[str, Any] = {}
        if resources is not None:
            request["resources"] = codec.to_json(resources)
        if restart is not None:
            request["restart"] = codec.to_json(restart)
        self._ask("update", request)

    def _connect(self, timeout: float | None = REQUEST_TIMEOUT) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(timeout)
        try:
            with files.socket_address(self._path) as address:
                connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, op: str, fields: dict[str, Any] | None = None, fds: Sequence[int] = ()) -> dict[str, Any]:
        try:
            with self._connect() as connection:
                _send_line(connection, {"op": op, **(fields or {})}, fds)
                return _check(json.loads(_receive_line(connection)))
        except TimeoutError as error:
            raise HostRefused(
                f"the container's supervisor has not answered to {op!r} for {REQUEST_TIMEOUT:g} s"
            ) from error
        except BlockingIOError as error:  # its backlog is full
            raise HostRefused(
                f"the container's supervisor does not answer to {op!r}: too many wait for it already"
            ) from error


def taken_up(connection: socket.socket) -> tuple[dict[str, Any], socket.socket]:
    """See `ShimClient.watch`; `connection` is closed on failure."""
    try:
        answer = _check(json.loads(_receive_line(connection)))
    except BaseException:
        connection.close()
        raise
    connection.settimeout(None)
    return answer["state"], connection


def first_answers(asked: Mapping[str, socket.socket], quiet: float) -> dict[str, dict[str, Any] | None]:
    """What those say that were asked to be watched, until none has said anything for `quiet` seconds. None:
    it has left, and its connection is closed. Who is missing has not answered yet."""
    answers: dict[str, dict[str, Any] | None] = {}
    with selectors.DefaultSelector() as selector:
        for name, connection in asked.items():
            selector.register(connection, selectors.EVENT_READ, name)
        while len(answers) < len(asked) and (ready := selector.select(quiet)):
            for key, _ in ready:
                selector.unregister(key.fileobj)
                try:
                    answers[key.data], _ = taken_up(asked[key.data])
                except (ConnectionError, ProtocolError):
                    answers[key.data] = None
    return answers


def start(
    starter: ShimStarter,
    runtime: Path,
    *,
    configure_network: Callable[[int | None, int], Sequence[int]],
    before_run: Callable[[ShimClient], None],
    timeout: float,
) -> Started:
    """Start the container that the file `runtime` describes.

    `configure_network` gets its network namespace (None: the host's) and PID 1, and returns sockets that the
    shim shall hold; they stay the caller's. `before_run` hands over clients that attached early.
    Raises StartFailed; whatever was made for the container is gone by then.
    """
    connection = starter.start_shim(runtime)
    netns: int | None = None
    held: list[int] = []
    try:
        connection.settimeout(timeout)
        line, held = _receive_line_with_fds(connection)
        event = json.loads(line)
        if event["event"] == "failed":
            raise _start_failed(event)
        netns = held[0] if event.get("netns", True) and len(held) > 1 else None
        reach("start: network")
        reserved = list(configure_network(netns, int(event["pid"])))
        reach("start: clients")
        before_run(ShimClient(Path(event["socket"])))
        reach("start: run")
        _let_run(connection, reserved)
        event = json.loads(_receive_line(connection))
        if event["event"] != "started":
            raise _start_failed(event)
    except TimeoutError as error:
        connection.close()
        raise StartFailed(f"the container did not start within {timeout:g} s", step="start") from error
    except (ConnectionError, EOFError, FileNotFoundError, ProtocolError) as error:
        failed = _told_failure(connection)
        connection.close()
        if failed is not None:
            raise _start_failed(failed) from error
        raise StartFailed("the container's supervisor ended during the start", step="start") from error
    except BaseException:
        connection.close()
        raise
    finally:
        for fd in held:
            os.close(fd)
    connection.settimeout(None)
    return Started(
        pid=int(event["pid"]),
        started_at=float(event["started_at"]),
        start_time=int(event["start_time"]),
        watch=connection,
    )


WatchCallback = Callable[[str, dict[str, Any] | None], None]


class Watcher:
    """One thread that reads the watch streams of all shims and passes their events on, in order.

    The callback gets None when a stream ends without `gone`: the shim was killed.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._lock = threading.Lock()
        self._fresh: list[_Watched] = []
        self._caught_up: list[threading.Event] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, container_id: str, stream: socket.socket, callback: WatchCallback) -> None:
        stream.setblocking(False)
        with self._lock:
            self._fresh.append(_Watched(container_id, stream, callback))
            self._wake_in.send(b"\0")

    def catch_up(self) -> None:
        """Returns when all that has come by now has been passed on, or when that takes longer than it may."""
        if threading.current_thread() is self._thread:
            return
        done = threading.Event()
        with self._lock:
            if self._stopping or not self._thread.is_alive():
                return
            self._caught_up.append(done)
            self._wake_in.send(b"\0")
        done.wait(CATCH_UP)

    def stop(self) -> None:
        """Close all streams; the shims go on without a watcher."""
        with self._lock:
            self._stopping = True
            self._wake_in.send(b"\0")  # under the lock: the thread closes it once it has seen the flag
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        while True:
            self._pass_on(None)
            with self._lock:
                fresh, self._fresh = self._fresh, []
                waiting, self._caught_up = self._caught_up, []
                stopping = self._stopping
            for watched in fresh:
                self._selector.register(watched.stream, selectors.EVENT_READ, watched)
            if waiting:
                self._pass_on(0)  # what has come since the look above
            for done in waiting:
                done.set()
            if stopping:
                break
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.data.stream.close()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _pass_on(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._wake_out.recv(4096)
            elif not key.data.read():
                self._selector.unregister(key.data.stream)
                key.data.stream.close()


class _Watched:
    def __init__(self, container_id: str, stream: socket.socket, callback: WatchCallback) -> None:
        self.stream = stream
        self._id = container_id
        self._callback = callback
        self._rest = b""
        self._gone = False

    def read(self) -> bool:
        """Pass on what has come; False at the end of the stream."""
        try:
            chunk = self.stream.recv(_AT_ONCE)
        except BlockingIOError:
            return True
        except ConnectionError:
            chunk = b""
        if not chunk:
            if not self._gone:
                self._pass_on(None)
            return False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            self._gone = self._gone or event.get("event") == "gone"
            self._pass_on(event)
        return True

    def _pass_on(self, event: dict[str, Any] | None) -> None:
        """What goes wrong with one container must not end the thread that sees to all."""
        try:
            self._callback(self._id, event)
        except Exception:
            traceback.print_exc()


def _let_run(connection: socket.socket, reserved: Sequence[int]) -> None:
    """With the sockets that the shim shall hold, as many at a time as a message may carry."""
    batches = [reserved[at : at + _MAX_DESCRIPTORS] for at in range(0, len(reserved), _MAX_DESCRIPTORS)]
    for batch in batches[:-1]:
        _send_line(connection, {"op": "hold"}, batch)
    _send_line(connection, {"op": "run"}, batches[-1] if batches else ())


def _told_failure(connection: socket.socket) -> dict[str, Any] | None:
    """Why a shim has left, which it says before: the first that is noticed may be that it does not listen."""
    try:
        event: dict[str, Any] = json.loads(_receive_line(connection))
    except (OSError, EOFError, ProtocolError, ValueError):
        return None
    return event if event.get("event") == "failed" else None


def _start_failed(event: dict[str, Any]) -> StartFailed:
    return StartFailed(
        str(event["message"]),
        step=str(event.get("step", "")),
        container_exit=int(event.get("container_exit", 125)),
    )


def _check(answer: dict[str, Any]) -> dict[str, Any]:
    if "kind" in answer:
        raise from_wire(answer)
    return answer


def _send_line(connection: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    data = json.dumps(message).encode() + b"\n"
    if fds:
        sent = socket.send_fds(connection, [data], list(fds))
        data = data[sent:]
    connection.sendall(data)


def _receive_line(connection: socket.socket) -> bytes:
    """One line; nothing beyond it is read, since a stream of events may follow."""
    line = bytearray()
    while not line.endswith(b"\n"):
        peeked = connection.recv(1 << 16, socket.MSG_PEEK)
        if not peeked:
            raise ProtocolError("the container's supervisor closed the connection without an answer")
        end = peeked.find(b"\n")
        line += connection.recv(end + 1 if end >= 0 else len(peeked))
    return bytes(line)


def _receive_line_with_fds(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The first line and the descriptors that came with its first byte."""
    data, fds, _, _ = socket.recv_fds(connection, 1, 8)
    if not data:
        raise EOFError
    try:
        return data + _receive_line(connection), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
