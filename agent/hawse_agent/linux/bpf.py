"""The two BPF programs that Hawse needs: a socket filter that drops all, and a v2 cgroup's device filter."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hawse_agent.linux import libc

_SO_ATTACH_FILTER = 26
_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
_DEVCG_ACCESS = {"m": 1, "r": 2, "w": 4}
_DEVCG_KIND = {"b": 1, "c": 2}


@dataclass(frozen=True, kw_only=True)
class DeviceAccess:
    """Allows `access` (of rwm) to a device; None is any number."""

    kind: str
    major: int | None
    minor: int | None
    access: str


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def drop_everything(sock: socket.socket) -> None:
    """The socket keeps its port but receives nothing: a classic filter of one `return 0`."""
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)
    program = _SockFprog(len=1, filter=ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))


def device_program(allowed: Sequence[DeviceAccess]) -> bytes:
    """Extended BPF over `struct bpf_cgroup_dev_ctx {access_type, major, minor}`: 1 for what a rule allows,
    0 for the rest. Registers: r2 kind, r3 access, r4 major, r5 minor."""
    code = [
        _ins(0x61, 2, 1, 0, 0),  # r2 = *(u32 *)(r1 + 0)
        _ins(0xBC, 3, 2, 0, 0),  # w3 = w2
        _ins(0x54, 2, 0, 0, 0xFFFF),  # w2 &= 0xffff: the kind
        _ins(0x74, 3, 0, 0, 16),  # w3 >>= 16: the access
        _ins(0x61, 4, 1, 4, 0),  # r4 = major
        _ins(0x61, 5, 1, 8, 0),  # r5 = minor
    ]
    for rule in allowed:
        code += _rule(rule)
    code += [_ins(0xB7, 0, 0, 0, 0), _ins(0x95, 0, 0, 0, 0)]  # r0 = 0; exit
    return b"".join(code)


def attach_device_program(cgroup_fd: int, code: bytes) -> None:
    """Load it and attach it to a v2 cgroup, which then holds it."""
    instructions = ctypes.create_string_buffer(code, len(code))
    gpl = ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "=IIQQIIQ",
        _BPF_PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(gpl),
        0,
        0,
        0,
    )
    program = _bpf(_BPF_PROG_LOAD, load, "load a device filter")
    try:
        attach = struct.pack("=IIII", cgroup_fd, program, _BPF_CGROUP_DEVICE, 0)
        _bpf(_BPF_PROG_ATTACH, attach, "attach a device filter")
    finally:
        os.close(program)


def _bpf(command: int, attributes: bytes, what: str) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return libc.syscall("bpf", command, buffer, len(attributes), what=what)


def _rule(rule: DeviceAccess) -> list[bytes]:
    checks: list[tuple[bytes, ...]] = []
    if rule.kind in _DEVCG_KIND:
        checks.append((_ins(0x55, 2, 0, 0, _DEVCG_KIND[rule.kind]),))  # if r2 != kind goto next rule
    mask = sum(bit for letter, bit in _DEVCG_ACCESS.items() if letter in rule.access)
    if mask != sum(_DEVCG_ACCESS.values()):
        checks.append(
            (
                _ins(0xBC, 1, 3, 0, 0),  # w1 = w3
                _ins(0x54, 1, 0, 0, mask),  # w1 &= mask
                _ins(0x5D, 1, 3, 0, 0),  # if r1 != r3 goto next rule: more is asked than allowed
            )
        )
    if rule.major is not None:
        checks.append((_ins(0x55, 4, 0, 0, rule.major),))
    if rule.minor is not None:
        checks.append((_ins(0x55, 5, 0, 0, rule.minor),))
    body = [list(check) for check in checks] + [[_ins(0xB7, 0, 0, 0, 1), _ins(0x95, 0, 0, 0, 0)]]
    length = sum(len(part) for part in body)
    position = 0
    for part in body[:-1]:
        position += len(part)
        part[-1] = _jump_to(part[-1], length - position)
    return [instruction for part in body for instruction in part]


def _ins(code: int, destination: int, source: int, offset: int, immediate: int) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | destination, offset, immediate)


def _jump_to(instruction: bytes, offset: int) -> bytes:
    code, registers, _, immediate = struct.unpack("=BBhi", instruction)
    return struct.pack("=BBhi", code, registers, offset, immediate)
