"""Byte streams that HTTP can run over: `hawse-agent dial` on a host, or a unix socket of this machine.

`dial` starts with a preamble, so that what a login shell prints before it is told from what the agent says:

    noise  \\0HAWSE\\0  {"protocol":1,"version":…,"bundle":…,"pid":…}  \\n  HTTP …
"""

from __future__ import annotations

import abc
import contextlib
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from hawse.ssh.connection import PIECE, SEND_TIMEOUT, Process
from hawse_agent.errors import ProtocolError, Unreachable

MAGIC = b"\x00HAWSE\x00"
_MOST_NOISE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Preamble:
    """Which agent answers. `bundle` is the digest of its bundle, "" when it runs from a checkout."""

    protocol: int
    version: str
    bundle: str
    pid: int = 0


class NoAgent(Exception):
    """The command ended without a preamble: `code` and `output` say why."""

    def __init__(self, code: int, output: str) -> None:
        super().__init__(output)
        self.code = code
        self.output = output


class Stream(abc.ABC):
    """Bytes both ways. One thread may write while another reads."""

    @abc.abstractmethod
    def recv(self, timeout: float | None = None) -> bytes:
        """Some bytes, b"" at the end; TimeoutError, or another OSError when it is cut."""

    @abc.abstractmethod
    def send(self, data: bytes, timeout: float | None = SEND_TIMEOUT) -> None: ...

    @abc.abstractmethod
    def close_write(self) -> None:
        """Says that nothing more will be sent; reading goes on."""

    @abc.abstractmethod
    def close(self) -> None: ...


class DialStream(Stream):
    """Over `hawse-agent dial`, after its preamble."""

    def __init__(self, process: Process, ahead: bytes) -> None:
        self._process = process
        self._ahead = ahead

    def recv(self, timeout: float | None = None) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        return self._process.recv(PIECE, timeout)

    def send(self, data: bytes, timeout: float | None = SEND_TIMEOUT) -> None:
        self._process.send(data, timeout)

    def close_write(self) -> None:
        self._process.close_stdin()

    def close(self) -> None:
        self._process.close()


class SocketStream(Stream):
    """Over an agent's socket on this machine."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise Unreachable(f"no agent at {path}: {error.strerror}", stage="agent") from error

    def recv(self, timeout: float | None = None) -> bytes:
        self._socket.settimeout(timeout)
        return self._socket.recv(PIECE)

    def send(self, data: bytes, timeout: float | None = SEND_TIMEOUT) -> None:
        self._socket.settimeout(timeout)
        self._socket.sendall(data)

    def close_write(self) -> None:
        with contextlib.suppress(OSError):  # already closed by the agent
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # wakes a thread that reads, which closing alone does not
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def read_preamble(process: Process, timeout: float, name: str) -> tuple[Preamble, DialStream]:
    """Waits for the agent to present itself; `NoAgent` when the command ends before."""
    deadline = time.monotonic() + timeout
    seen = b""
    try:
        while MAGIC not in seen or b"\n" not in seen.split(MAGIC, 1)[1]:
            data = process.recv(PIECE, max(0.0, deadline - time.monotonic()))
            if not data:
                raise NoAgent(process.wait(5.0), _last_words(process, seen))
            seen += data
            if len(seen) > _MOST_NOISE and MAGIC not in seen:
                raise ProtocolError(f"{name}: the login shell prints without end, no agent is heard")
    except TimeoutError as error:
        raise Unreachable(f"{name}: the agent gave no answer within {timeout:g} s", stage="agent") from error
    except ConnectionResetError as error:
        raise Unreachable(f"{name}: {error}", stage="tcp") from error
    line, rest = seen.split(MAGIC, 1)[1].split(b"\n", 1)
    return parse_preamble(line, name), DialStream(process, rest)


def parse_preamble(line: bytes, name: str) -> Preamble:
    try:
        said = json.loads(line)
        preamble = Preamble(
            protocol=int(said["protocol"]),
            version=str(said["version"]),
            bundle=str(said.get("bundle") or ""),
            pid=int(said.get("pid") or 0),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"{name}: the agent's preamble is broken: {line[:200]!r}") from error
    return preamble


def _last_words(process: Process, stdout: bytes) -> str:
    """What the command said on stderr before it ended, else on stdout."""
    words = b""
    try:
        while data := process.recv_stderr(PIECE, 5.0):
            words += data
    except TimeoutError:
        pass  # a background process of the host holds it open: what came must do
    return (words.strip() or stdout.strip()).decode(errors="replace")[-2000:]
