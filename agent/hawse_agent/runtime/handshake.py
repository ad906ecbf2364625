"""How the shim and the child that becomes a container's process talk, over one SEQPACKET pair.

    shim                               child
     │  clone ──────────────────────────▶│ mounts
     │  makes the cgroup                 │
     │  "cgroup" ───────────────────────▶│ enters it, own cgroup namespace, /sys/fs/cgroup, pivot_root …
     │◀──────────────────── ready + tty  │ waits
     │  "go" ───────────────────────────▶│ seccomp, capabilities, execve
     │◀──────────────────── end of file  │ (the pair is CLOEXEC: it worked)
     │◀──────────────────── failed       │ at any time, with step and exit code; the child is gone

A child that finds the other end closed leaves: its shim has died.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
from dataclasses import dataclass

from hawse_agent.errors import StartFailed

_CGROUP, _GO = b"cgroup", b"go"
_MAX_MESSAGE = 64 * 1024


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


@dataclass(frozen=True, kw_only=True)
class Ready:
    console: int | None
    """The terminal's master, owned by the receiver."""
    warnings: tuple[str, ...]


class ChildEnd:
    """`lifeline`: a pipe whose other end is the parent's alone, where the handshake is with somebody else."""

    def __init__(self, sock: socket.socket, lifeline: int | None = None) -> None:
        self._sock = sock
        self._lifeline = lifeline

    @property
    def descriptors(self) -> tuple[int, ...]:
        lifeline = () if self._lifeline is None else (self._lifeline,)
        return self._sock.fileno(), *lifeline

    def wait_for_cgroup(self) -> None:
        self._expect(_CGROUP)

    def ready(self, console: int | None, warnings: list[str]) -> None:
        ancillary = []
        if console is not None:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [console])))
        self._sock.sendmsg([json.dumps({"ready": True, "warnings": warnings}).encode()], ancillary)

    def wait_for_go(self) -> None:
        self._expect(_GO)

    def failed(self, step: str, message: str, exit_code: int) -> None:
        report = {"step": step, "message": message[:4096], "exit_code": exit_code}
        try:
            self._sock.send(json.dumps(report).encode())
        except OSError:
            pass  # nobody is left to tell

    def parent_lives(self) -> bool:
        if self._lifeline is not None and select.select([self._lifeline], [], [], 0)[0]:
            return False
        try:
            return self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        self._sock.close()
        if self._lifeline is not None:
            os.close(self._lifeline)

    def _expect(self, word: bytes) -> None:
        if self._sock.recv(64) != word:
            os._exit(125)


PATIENCE = 60.0
"""Seconds that a child may take for one step: a bind may lie on a slow file system."""


class ParentEnd:
    def __init__(self, sock: socket.socket, patience: float = PATIENCE) -> None:
        self._sock = sock
        sock.settimeout(patience)

    def cgroup(self) -> None:
        self._send(_CGROUP)

    def wait_until_ready(self) -> Ready:
        """Raises StartFailed when the child could not prepare."""
        try:
            message, ancillary = self._receive()
        except TimeoutError as error:
            raise StartFailed(
                "the process does not get ready: is something frozen?", step="prepare"
            ) from error
        console = None
        for _, _, data in ancillary:
            console = array.array("i", data[:4])[0]
            os.set_inheritable(console, False)
        if not message:
            raise StartFailed("the container's process ended before it was ready", step="prepare")
        report = json.loads(message)
        if "ready" not in report:
            raise _start_failed(report)
        return Ready(console=console, warnings=tuple(report["warnings"]))

    def go(self) -> None:
        """Returns when the program runs; raises StartFailed."""
        heard = self._send(_GO)
        try:
            message, _ = self._receive()
        except TimeoutError as error:
            raise StartFailed("the program does not start: is something frozen?", step="exec") from error
        if message:
            raise _start_failed(json.loads(message))
        if not heard:  # it was killed while it waited: this end of file is no program's
            raise StartFailed("the container's process ended before its program", step="exec")

    def close(self) -> None:
        self._sock.close()

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        while True:
            try:
                message, ancillary, _, _ = self._sock.recvmsg(_MAX_MESSAGE, socket.CMSG_SPACE(4))
            except ConnectionResetError:  # told once when it has left without reading all: its words follow
                continue
            return message, ancillary

    def _send(self, word: bytes) -> bool:
        """False when the child has gone: the reason, if it could tell one, is the next thing to be read."""
        try:
            self._sock.send(word)
        except BrokenPipeError:
            return False
        return True


def _start_failed(report: dict[str, str | int]) -> StartFailed:
    return StartFailed(
        str(report["message"]), step=str(report["step"]), container_exit=int(report["exit_code"])
    )
