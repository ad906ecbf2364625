"""Seccomp filters: rules about system calls, compiled to classic BPF.

Compiling sorts the numbers into a binary search over ranges of equal treatment. A call newer than all that a
refusing profile knows gets ENOSYS, so that a libc falls back to an older one.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hawse_agent.errors import InputError
from hawse_agent.linux import syscalls

Operator = Literal["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]

ALLOW = 0x7FFF0000
LOG = 0x7FFC0000
TRACE = 0x7FF00000
ERRNO = 0x00050000
TRAP = 0x00030000
KILL_THREAD = 0x00000000
KILL_PROCESS = 0x80000000


@dataclass(frozen=True, kw_only=True)
class Condition:
    """On argument `index`; MASKED_EQ holds when `argument & mask == value`."""

    index: int
    operator: Operator
    value: int
    mask: int = 0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`action` when all conditions hold."""

    action: int
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Of one architecture. The first rule of a call whose conditions hold decides, else `default`."""

    default: int
    rules: Mapping[int, tuple[Rule, ...]]


_LD_W_ABS = 0x20
_JMP_JA, _JMP_JEQ, _JMP_JGT, _JMP_JGE = 0x05, 0x15, 0x25, 0x35
_AND_K = 0x54
_RET_K = 0x06

_NR, _ARCH, _ARGS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}

_UNKNOWN = (_RET_K, 0, 0, ERRNO | errno.ENOSYS)
_LAST_OF_OLD = 423
"""Numbers up to here are older than the habit of answering ENOSYS to what a profile does not know yet."""

_Code = list[tuple[int, int, int, int]]
_Range = tuple[int, tuple[Rule, ...]]
"""From this number on."""


def assemble(profiles: Mapping[syscalls.Abi, Profile], *, x32: bool = True) -> bytes:
    """One program for several architectures, `x32` or not being a variant of x86_64; calls of another one get
    ENOSYS."""
    code: _Code = [(_LD_W_ABS, 0, 0, _ARCH)]
    for abi, profile in profiles.items():
        body = _body(abi, profile, x32=x32)
        code.append((_JMP_JEQ, 1, 0, _AUDIT_ARCH[abi]))
        code.append((_JMP_JA, 0, 0, len(body)))
        code += body
    code.append(_UNKNOWN)
    if len(code) > 4096:  # BPF_MAXINSNS
        raise InputError("seccomp profile: it has too many rules for the kernel")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _body(abi: syscalls.Abi, profile: Profile, *, x32: bool) -> _Code:
    newest = max((_LAST_OF_OLD, *profile.rules))
    refuses = profile.default & 0xFFFF0000 == ERRNO
    beyond = (Rule(action=ERRNO | errno.ENOSYS),) if refuses else ()
    ranges = [(number, profile.rules.get(number, ())) for number in range(newest + 1)]
    ranges.append((newest + 1, beyond))
    code: _Code = [(_LD_W_ABS, 0, 0, _NR)]
    if abi == "x86_64":
        code += _x32(profile, newest + 1, beyond) if x32 else _from(syscalls.X32_BIT, [_UNKNOWN])
    return code + _search(_merged(ranges), profile.default)


def _x32(profile: Profile, unknown: int, beyond: tuple[Rule, ...]) -> _Code:
    """Calls of the variant with 32-bit pointers: decides from the first `unknown` number on, behind which lie
    those of its own, and leaves the rest to what follows, as calls of x86_64."""
    table = syscalls.table("x86_64")
    ranges: list[_Range] = [(unknown, ())]
    ranges += [(number, profile.rules.get(table[name], ())) for number, name in syscalls.X32.items()]
    ranges.append((max(syscalls.X32) + 1, beyond))
    own = _from(unknown, _search(_merged(ranges), profile.default))
    return _from(syscalls.X32_BIT, [(_AND_K, 0, 0, ~syscalls.X32_BIT & 0xFFFFFFFF), *own])


def _from(number: int, code: _Code) -> _Code:
    """`code` for calls from this number on; the others go on behind it."""
    return [(_JMP_JGE, 1, 0, number), (_JMP_JA, 0, 0, len(code)), *code]


def _merged(ranges: Iterable[_Range]) -> list[_Range]:
    """Neighbours of equal treatment as one, which begins where the first does."""
    merged: list[_Range] = []
    for number, rules in ranges:
        if not merged or merged[-1][1] != rules:
            merged.append((number, rules))
    return merged


def _search(ranges: Sequence[_Range], default: int) -> _Code:
    """A binary search for the range that the call's number, in the accumulator, lies in."""
    if len(ranges) == 1:
        return _decide(ranges[0][1], default)
    middle = len(ranges) // 2
    lower, upper = _search(ranges[:middle], default), _search(ranges[middle:], default)
    if len(lower) <= 255:
        return [(_JMP_JGE, len(lower), 0, ranges[middle][0]), *lower, *upper]
    return [(_JMP_JGE, 0, 1, ranges[middle][0]), (_JMP_JA, 0, 0, len(lower)), *lower, *upper]


def _decide(rules: tuple[Rule, ...], default: int) -> _Code:
    code: _Code = []
    for rule in rules:
        code += _rule(rule)
        if not rule.conditions:
            return code
    return [*code, (_RET_K, 0, 0, default)]


def _rule(rule: Rule) -> _Code:
    """Falls through to what follows when a condition does not hold."""
    code: _Code = [(_RET_K, 0, 0, rule.action)]
    for condition in reversed(rule.conditions):
        code = _test(condition, len(code)) + code
    return code


def _test(condition: Condition, skip: int) -> _Code:
    """Goes on behind itself when the condition holds, else jumps over the next `skip` instructions."""
    low, high = condition.value & 0xFFFFFFFF, condition.value >> 32
    offset = _ARGS + 8 * condition.index  # both architectures are little-endian: low word first
    load_low, load_high = (_LD_W_ABS, 0, 0, offset), (_LD_W_ABS, 0, 0, offset + 4)
    match condition.operator:
        case "EQ":
            return [load_high, (_JMP_JEQ, 0, skip + 2, high), load_low, (_JMP_JEQ, 0, skip, low)]
        case "NE":
            return [load_high, (_JMP_JEQ, 0, 2, high), load_low, (_JMP_JEQ, skip, 0, low)]
        case "MASKED_EQ":
            mask_low, mask_high = condition.mask & 0xFFFFFFFF, condition.mask >> 32
            return [
                load_high,
                (_AND_K, 0, 0, mask_high),
                (_JMP_JEQ, 0, skip + 3, high),
                load_low,
                (_AND_K, 0, 0, mask_low),
                (_JMP_JEQ, 0, skip, low),
            ]
        case "GT" | "GE":
            jump = _JMP_JGT if condition.operator == "GT" else _JMP_JGE
            return [
                load_high,
                (_JMP_JGT, 3, 0, high),
                (_JMP_JEQ, 0, skip + 2, high),
                load_low,
                (jump, 0, skip, low),
            ]
        case "LT" | "LE":
            jump = _JMP_JGE if condition.operator == "LT" else _JMP_JGT
            return [
                load_high,
                (_JMP_JGT, skip + 3, 0, high),
                (_JMP_JEQ, 0, 2, high),
                load_low,
                (jump, skip, 0, low),
            ]
