"""The v2 device filter, run by an interpreter of the few eBPF instructions it is made of."""

from __future__ import annotations

import struct

import pytest

from hawse_agent.cgroups.devices import DEFAULT_RULES
from hawse_agent.linux.bpf import DeviceAccess, device_program

KIND = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}


def allows(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    context = (KIND[kind] | sum(ACCESS[letter] for letter in access) << 16, major, minor)
    registers = [0] * 11
    position = 0
    code = list(struct.iter_unpack("=BBhi", program))
    while True:
        operation, pair, offset, value = code[position]
        to, source = pair & 15, pair >> 4
        position += 1
        if operation == 0x61:
            registers[to] = context[offset // 4]
        elif operation == 0xBC:
            registers[to] = registers[source]
        elif operation == 0x54:
            registers[to] &= value
        elif operation == 0x74:
            registers[to] >>= value
        elif operation == 0xB7:
            registers[to] = value
        elif operation == 0x95:
            return bool(registers[0])
        elif operation == 0x55:
            position += offset if registers[to] != value else 0
        elif operation == 0x5D:
            position += offset if registers[to] != registers[source] else 0
        else:
            raise AssertionError(f"{operation:#x}")


def program() -> bytes:
    rules = [
        DeviceAccess(kind=rule.kind, major=rule.major, minor=rule.minor, access=rule.access)
        for rule in DEFAULT_RULES
    ]
    return device_program([*rules, DeviceAccess(kind="b", major=7, minor=0, access="r")])


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        ("c", 1, 3, "rw", True),
        ("c", 1, 3, "m", True),
        ("c", 136, 42, "rw", True),
        ("b", 8, 0, "m", True),
        ("b", 8, 0, "r", False),
        ("b", 8, 0, "rm", False),
        ("c", 10, 229, "rw", False),
        ("b", 1, 3, "r", False),
        ("b", 7, 0, "r", True),
        ("b", 7, 0, "rw", False),
        ("b", 7, 1, "r", False),
    ],
)
def test_device_program(kind: str, major: int, minor: int, access: str, allowed: bool) -> None:
    assert allows(program(), kind, major, minor, access) is allowed
