"""DNS messages as bytes: what is asked, and the answers that we give ourselves. Pure.

Understands queries of one question; whatever else a message holds is for the server upstream.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

TYPE_A = 1
TYPE_PTR = 12
CLASS_IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4
TTL = 10
"""Seconds. Short, because a container that is made again has another address."""

_TYPE_OPT = 41
_MINIMUM_UDP = 512
_HEADER = struct.Struct("!HHHHHH")
_QR, _OPCODE, _TC, _RD, _RA, _CD = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x0010
_POINTER_TO_QUESTION = b"\xc0\x0c"


@dataclass(frozen=True, kw_only=True)
class Question:
    name: str
    """Lower case, without the dot at the end."""
    type: int
    klass: int
    header: tuple[int, int]
    """Id and flags of the query."""
    raw: bytes
    """The question section as it came: answers repeat it byte for byte."""
    udp_size: int
    """How large an answer the client takes in one datagram."""


def is_response(packet: bytes) -> bool:
    return len(packet) >= _HEADER.size and bool(packet[2] & 0x80)


def parse(packet: bytes) -> Question | None:
    """The question of a standard query; None for anything else that may be forwarded or refused."""
    if len(packet) < _HEADER.size:
        return None
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & (_QR | _OPCODE) or questions != 1:
        return None
    labels, position = [], _HEADER.size
    while True:
        if position >= len(packet) or packet[position] > 63:
            return None
        length = packet[position]
        position += 1
        if not length:
            break
        labels.append(packet[position : position + length])
        position += length
    if position + 4 > len(packet):
        return None
    kind, klass = struct.unpack_from("!HH", packet, position)
    position += 4
    size = _MINIMUM_UDP
    options_only = additional and not answers and not authorities
    if options_only and packet[position : position + 1] == b"\0" and position + 5 <= len(packet):
        extra, payload = struct.unpack_from("!HH", packet, position + 1)
        if extra == _TYPE_OPT:
            size = max(size, payload)
    return Question(
        name=b".".join(labels).decode("latin-1").lower(),
        type=kind,
        klass=klass,
        header=(ident, flags),
        raw=packet[_HEADER.size : position],
        udp_size=size,
    )


def addresses_answer(question: Question, addresses: Sequence[str], *, limit: int) -> bytes:
    """A records; those that do not fit into `limit` bytes are left out and the answer says truncated."""
    records = [_record(TYPE_A, bytes(int(part) for part in address.split("."))) for address in addresses]
    room = (limit - _HEADER.size - len(question.raw)) // len(records[0]) if records else 0
    kept = records[:room]
    return _answer(question, NOERROR, kept, truncated=len(kept) < len(records))


def name_answer(question: Question, name: str) -> bytes:
    """One PTR record."""
    encoded = b"".join(bytes([len(label)]) + label for label in name.encode("latin-1").split(b".") if label)
    return _answer(question, NOERROR, [_record(TYPE_PTR, encoded + b"\0")])


def empty_answer(question: Question, code: int) -> bytes:
    return _answer(question, code, [])


def failure(packet: bytes, code: int) -> bytes:
    """A refusal of something that could not even be parsed, as far as its header goes."""
    ident, flags = struct.unpack_from("!HH", packet)
    return _HEADER.pack(ident, _QR | flags & (_OPCODE | _RD) | _RA | code, 0, 0, 0, 0)


def with_id(packet: bytes, ident: int) -> bytes:
    return struct.pack("!H", ident) + packet[2:]


def answers(packet: bytes, query: bytes, question: Question | None) -> bool:
    """Whether `packet` is the response to `query`: same id and, case aside, same question."""
    if not is_response(packet) or packet[:2] != query[:2]:
        return False
    if question is None:
        return True
    start = packet[_HEADER.size : _HEADER.size + len(question.raw)]
    return not start or start.lower() == question.raw.lower()


def code(packet: bytes) -> int:
    return packet[3] & 0x0F


def reversed_address(name: str) -> str | None:
    """`4.3.2.1.in-addr.arpa` → 1.2.3.4; None for another name."""
    if not name.endswith(".in-addr.arpa"):
        return None
    parts = name.removesuffix(".in-addr.arpa").split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return ".".join(reversed(parts))


def query(name: str, kind: int = TYPE_A, ident: int = 0) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return _HEADER.pack(ident, _RD, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, CLASS_IN)


def _record(kind: int, data: bytes) -> bytes:
    return _POINTER_TO_QUESTION + struct.pack("!HHIH", kind, CLASS_IN, TTL, len(data)) + data


def _answer(question: Question, code: int, records: list[bytes], *, truncated: bool = False) -> bytes:
    ident, flags = question.header
    out = _QR | flags & (_RD | _CD) | _RA | (_TC if truncated else 0) | code
    return _HEADER.pack(ident, out, 1, len(records), 0, 0) + question.raw + b"".join(records)
