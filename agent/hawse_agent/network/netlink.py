"""Netlink sockets: requests, batches and dumps, with errno and the kernel's own words in the error.

Spoken in the raw because pyroute2's library costs 0.19 s and 25 MB at import, and its sockets an event loop
each (measured: a veth 2.1 ms against 0.5): the whole daemon has 50 MB. Messages are built and taken apart by
`attribute`, `nested` and `attributes`; what they mean is in `links` and `nfnetlink`.

A socket belongs to the network namespace in which it was made, for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 18
_DUMP_ATTEMPTS = 20


class NetlinkError(OSError):
    """The kernel refused; `strerror` has its explanation where it gives one."""


@dataclass(frozen=True, kw_only=True)
class Message:
    type: int
    flags: int = 0
    body: bytes = b""


class Netlink:
    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            with contextlib.suppress(OSError):  # only makes errors clearer and dumps shorter
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, message: Message) -> None:
        """Do it, and wait for the acknowledgement."""
        self.run([message])

    def run(self, messages: Sequence[Message]) -> None:
        """Do them in order. All are tried; raises the first error."""
        self._await(self._send([(message, NLM_F_REQUEST | NLM_F_ACK) for message in messages]))

    def transaction(self, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """All or nothing, between the two that frame it."""
        framed = [(begin, NLM_F_REQUEST), *((m, NLM_F_REQUEST | NLM_F_ACK) for m in messages)]
        first, *inner, last = self._send([*framed, (end, NLM_F_REQUEST)])
        self._await(inner, fatal=(first, last))

    def get(self, message: Message) -> bytes:
        """The body of the one object asked for."""
        waiting = self._send([(message, NLM_F_REQUEST)])
        for sequence, kind, _, body in self._receive():
            if sequence not in waiting:
                continue
            if kind == _NLMSG_ERROR:
                raise _error(body, 0)
            return body
        raise NetlinkError(0, "the kernel gave no answer")

    def dump(self, message: Message) -> list[bytes]:
        """Bodies of all objects; taken again when they changed meanwhile."""
        for _ in range(_DUMP_ATTEMPTS):
            bodies = self._dump(message)
            if bodies is not None:
                return bodies
        raise NetlinkError(0, "the objects change faster than they can be listed")

    def _dump(self, message: Message) -> list[bytes] | None:
        waiting = self._send([(message, NLM_F_REQUEST | NLM_F_DUMP)])
        bodies: list[bytes] = []
        interrupted = False
        for sequence, kind, flags, body in self._receive():
            if sequence not in waiting:
                continue
            interrupted |= bool(flags & _NLM_F_DUMP_INTR)
            if kind == _NLMSG_ERROR:
                raise _error(body, flags)
            if kind == _NLMSG_DONE:
                code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                if code < 0:
                    raise NetlinkError(-code, os.strerror(-code))
                return None if interrupted else bodies
            bodies.append(body)
        raise NetlinkError(0, "the kernel gave no answer")

    def _send(self, messages: Sequence[tuple[Message, int]]) -> list[int]:
        """Their sequence numbers."""
        numbers, data = [], []
        for message, flags in messages:
            self._sequence += 1
            numbers.append(self._sequence)
            length = _HEADER.size + len(message.body)
            data.append(_HEADER.pack(length, message.type, message.flags | flags, self._sequence, 0))
            data.append(_padded(message.body))
        self._socket.sendto(b"".join(data), (0, 0))
        return numbers

    def _await(self, numbers: Sequence[int], fatal: Sequence[int] = ()) -> None:
        """An answer to each of `numbers`, or an error for one of `fatal`, after which no other comes."""
        left = set(numbers)
        failed: NetlinkError | None = None
        for sequence, kind, flags, body in self._receive():
            if kind != _NLMSG_ERROR or (sequence not in left and sequence not in fatal):
                continue
            error = _error(body, flags) if body[:4] != b"\0\0\0\0" else None
            if error is not None and sequence in fatal:
                raise error
            failed = failed or error
            left.discard(sequence)
            if not left:
                break
        if failed is not None:
            raise failed

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            data = self._socket.recv(_BUFFER)
            position = 0
            while position + _HEADER.size <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
                yield sequence, kind, flags, data[position + _HEADER.size : position + length]
                position += (length + 3) & ~3


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """An attribute: text ends in NUL, a number is 32 bits in the machine's order."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    return struct.pack("=HH", len(value) + 4, kind) + _padded(value)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute, in order."""
    position = 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[position + 4 : position + length]
        position += (length + 3) & ~3


def text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _error(body: bytes, flags: int) -> NetlinkError:
    code = -struct.unpack_from("=i", body)[0]
    words = os.strerror(code)
    if flags & _NLM_F_ACK_TLVS:
        start = 4 + _HEADER.size
        if not flags & _NLM_F_CAPPED:
            start += struct.unpack_from("=I", body, 4)[0] - _HEADER.size
        for kind, value in attributes(body[start:]):
            if kind == _NLMSGERR_ATTR_MSG:
                words = f"{words} ({text(value)})"
    return NetlinkError(code, words)
