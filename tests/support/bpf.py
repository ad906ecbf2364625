"""An interpreter of classic BPF: what the kernel would answer to a call under a seccomp filter."""

from __future__ import annotations

import struct
from functools import lru_cache

from hawse_agent.linux import syscalls

ARCHITECTURE: dict[syscalls.Abi, int] = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}

_Instruction = tuple[int, int, int, int]


def answer(program: bytes, abi: syscalls.Abi, call: str | int, *args: int) -> int:
    """The filter's action for `call`, a name or a number."""
    number = syscalls.table(abi)[call] if isinstance(call, str) else call
    data = struct.pack("=IIQ6Q", number, ARCHITECTURE[abi], 0, *(*args, *[0] * (6 - len(args))))
    code = _instructions(program)
    position = accumulator = 0
    while True:
        operation, true, false, value = code[position]
        position += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            position += value
        elif operation == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}
            position += true if holds[operation] else false


@lru_cache(maxsize=8)
def _instructions(program: bytes) -> list[_Instruction]:
    return [(a, b, c, d) for a, b, c, d in struct.iter_unpack("=HBBI", program)]
