"""Seccomp: profiles as rules, compiled to classic BPF by ourselves, and loaded.

The default profile is Docker's in effect, told the other way round: all calls of our own table, less those
that reach outside a container, some of which come back with a capability. A call newer than the table gets
ENOSYS, so that a libc falls back to an older one; so does one that only hides from the filter (clone3).

A profile in JSON is Docker's or OCI's file; names that this architecture does not know are left out, as
libseccomp does. Compiling sorts the numbers into a binary search over ranges of equal treatment.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from hawse_agent.errors import InputError, NotSupported
from hawse_agent.linux import libc, privilege, syscalls

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


def compile_filter(profile: str, capabilities: Collection[str]) -> bytes | None:
    """The program for `default`, `unconfined` (None) or a profile's JSON text, given the capabilities that
    the process will have."""
    if profile == "unconfined":
        return None
    return _compiled(profile, frozenset(capabilities))


def check(profile: str) -> None:
    """Raises InputError for a text that cannot be compiled, NotSupported for what is not done."""
    if profile not in ("default", "unconfined"):
        for capabilities in ((), privilege.CAPABILITIES):
            compile_filter(profile, capabilities)


def load(program: bytes) -> None:
    """Confine this thread from now on; needs CAP_SYS_ADMIN or no_new_privs."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len=len(program) // 8, filter=ctypes.addressof(instructions))
    libc.syscall("seccomp", _SECCOMP_SET_MODE_FILTER, 0, header, what="load the seccomp filter")


_SECCOMP_SET_MODE_FILTER = 1


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@cache
def _compiled(profile: str, capabilities: frozenset[str]) -> bytes:
    native = syscalls.native()
    abis: tuple[syscalls.Abi, ...] = ("x86_64", "i386") if native == "x86_64" else ("aarch64",)
    if profile == "default":
        return assemble({abi: default_profile(abi, capabilities) for abi in abis})
    document = _parse(profile)
    try:
        return assemble({abi: profile_from_json(document, abi, capabilities) for abi in abis})
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise InputError(f"decoding seccomp profile failed: {error}") from error


# The default profile

_DENIED = {
    # Nothing a container has brings these back: obsolete, or the machine's own business.
    "": """add_key afs_syscall break create_module ftime get_kernel_syms getpmsg gtty idle io_uring_enter
        io_uring_register io_uring_setup kexec_file_load kexec_load keyctl lock migrate_pages move_pages mpx
        nfsservctl olduname oldolduname pivot_root prof profil putpmsg query_module readdir request_key
        security sgetmask ssetmask stty swapoff swapon sysfs _sysctl tuxcall ulimit uselib userfaultfd
        ustat vm86 vm86old vserver bdflush nice oldfstat oldlstat oldstat sigaction signal sigpending
        sigsuspend file_getattr file_setattr open_tree_attr uprobe""",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree quotactl quotactl_fd
        setdomainname sethostname setns umount umount2 unshare""",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
_EITHER_CAPABILITY = {
    "bpf": ("CAP_SYS_ADMIN", "CAP_BPF"),
    "perf_event_open": ("CAP_SYS_ADMIN", "CAP_PERFMON"),
    "syslog": ("CAP_SYS_ADMIN", "CAP_SYSLOG"),
}
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS and all of CLONE_NEWCGROUP … CLONE_NEWNET."""
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, both with UNAME26, and "which is it?"."""
_SOCKET_FAMILIES_DENIED = frozenset((12, 19, 20, 23, 25, 34, 37, 38, 40))
"""DECnet, Econet, ATM, IrDA, WANPIPE, ISDN, CAIF: old and unkept; ALG, VSOCK: they reach past namespaces."""
_LAST_SOCKET_FAMILY = 45


def default_profile(abi: syscalls.Abi, capabilities: Collection[str]) -> Profile:
    allowed: tuple[Rule, ...] = (Rule(action=ALLOW),)
    names = dict.fromkeys(syscalls.table(abi), allowed)
    for capability, denied in _DENIED.items():
        if capability not in capabilities:
            for name in denied.split():
                names.pop(name, None)
    for name, either in _EITHER_CAPABILITY.items():
        if not set(either) & set(capabilities):
            names.pop(name, None)
    names["personality"] = tuple(
        Rule(action=ALLOW, conditions=(Condition(index=0, operator="EQ", value=value),))
        for value in _PERSONALITIES
    )
    names["socket"] = _socket_rules()
    if "CAP_SYS_ADMIN" not in capabilities:
        no_namespaces = Condition(index=0, operator="MASKED_EQ", mask=_NEW_NAMESPACES, value=0)
        names["clone"] = (Rule(action=ALLOW, conditions=(no_namespaces,)),)
        # Its flags lie in memory, where a filter cannot see them.
        names["clone3"] = (Rule(action=ERRNO | errno.ENOSYS),)
    table = syscalls.table(abi)
    rules = {table[name]: rule for name, rule in names.items() if name in table}
    return Profile(default=ERRNO | errno.EPERM, rules=rules)


def _socket_rules() -> tuple[Rule, ...]:
    denied = tuple(
        Rule(action=ERRNO | errno.EPERM, conditions=(Condition(index=0, operator="EQ", value=family),))
        for family in sorted(_SOCKET_FAMILIES_DENIED)
    )
    known = Condition(index=0, operator="LE", value=_LAST_SOCKET_FAMILY)
    return (*denied, Rule(action=ALLOW, conditions=(known,)))


# Profiles in JSON

_ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
}
_ARCHITECTURES = {
    "x86_64": frozenset(("amd64", "x86_64")),
    "i386": frozenset(("x86", "386", "i386")),
    "aarch64": frozenset(("arm64", "aarch64")),
}


def _parse(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"decoding seccomp profile failed: {error}") from error
    if not isinstance(document, dict) or "defaultAction" not in document:
        raise InputError("seccomp profile: it has no defaultAction")
    return document


def profile_from_json(
    document: Mapping[str, Any], abi: syscalls.Abi, capabilities: Collection[str]
) -> Profile:
    table = syscalls.table(abi)
    rules: dict[int, tuple[Rule, ...]] = {}
    for entry in document.get("syscalls") or ():
        if not _applies(entry, abi, capabilities):
            continue
        action = _action(entry.get("action"), entry.get("errnoRet"))
        conditions = tuple(_condition(argument) for argument in entry.get("args") or ())
        # As runc reads it: tests of different arguments must all hold, several of one are alternatives.
        names = entry.get("names") or [entry.get("name")]
        if len({c.index for c in conditions}) < len(conditions):
            added = tuple(Rule(action=action, conditions=(condition,)) for condition in conditions)
        else:
            added = (Rule(action=action, conditions=conditions),)
        for name in names:
            if name in table:
                rules[table[name]] = rules.get(table[name], ()) + added
    default = _action(document["defaultAction"], document.get("defaultErrnoRet"))
    # What has no conditions holds only where nothing more precise does.
    ordered = {
        number: tuple(sorted(several, key=lambda rule: not rule.conditions))
        for number, several in rules.items()
    }
    return Profile(default=default, rules=ordered)


def _applies(entry: Mapping[str, Any], abi: syscalls.Abi, capabilities: Collection[str]) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    arches = _ARCHITECTURES[abi] if abi != "i386" else _ARCHITECTURES["x86_64"] | _ARCHITECTURES["i386"]
    if includes.get("arches") and not arches & set(includes["arches"]):
        return False
    if arches & set(excludes.get("arches") or ()):
        return False
    if not set(includes.get("caps") or ()) <= set(capabilities):
        return False
    if set(excludes.get("caps") or ()) & set(capabilities):
        return False
    kernel = _kernel_version(os.uname().release)
    if includes.get("minKernel") and kernel < _kernel_version(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and kernel >= _kernel_version(excludes["minKernel"]))


def _kernel_version(release: str) -> tuple[int, int]:
    major, _, rest = release.partition(".")
    digits = ""
    for letter in rest:
        if not letter.isdigit():
            break
        digits += letter
    return int(major), int(digits or 0)


_MAX_ERRNO = 4095


def _action(name: Any, errno_return: Any) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise NotSupported("seccomp profile: SCMP_ACT_NOTIFY is not supported")
    if name not in _ACTIONS:
        raise InputError(f"seccomp profile: unknown action {name!r}")
    action = _ACTIONS[name]
    if action not in (ERRNO, TRACE):
        return action
    number = int(errno_return) if errno_return is not None else errno.EPERM
    most = _MAX_ERRNO if action == ERRNO else 0xFFFF
    if not 0 <= number <= most:  # more would turn the refusal into another action
        raise InputError(f"seccomp profile: errnoRet {number} is not in 0…{most}")
    return action | number


def _condition(argument: Mapping[str, Any]) -> Condition:
    operator = str(argument.get("op", "")).removeprefix("SCMP_CMP_")
    value, second = int(argument.get("value", 0)), int(argument.get("valueTwo", 0))
    index = int(argument.get("index", -1))
    if not 0 <= index <= 5:
        raise InputError(f"seccomp profile: argument index {index} is not in 0…5")
    if operator == "MASKED_EQ":
        return Condition(index=index, operator="MASKED_EQ", mask=value, value=second)
    for known in ("NE", "LT", "LE", "EQ", "GE", "GT"):
        if operator == known:
            return Condition(index=index, operator=known, value=value)
    raise InputError(f"seccomp profile: unknown operator {argument.get('op')!r}")


# The compiler

_LD_W_ABS = 0x20
_JMP_JA, _JMP_JEQ, _JMP_JGT, _JMP_JGE = 0x05, 0x15, 0x25, 0x35
_AND_K = 0x54
_RET_K = 0x06

_NR, _ARCH, _ARGS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}

_LAST_OF_OLD = 423
"""Numbers up to here are older than the habit of answering ENOSYS to what a profile does not know yet."""

_Code = list[tuple[int, int, int, int]]
_Range = tuple[int, tuple[Rule, ...]]
"""From this number on."""


def assemble(profiles: Mapping[syscalls.Abi, Profile]) -> bytes:
    """One program for all the architectures that this kernel runs; calls of another one get ENOSYS."""
    unknown = ERRNO | errno.ENOSYS
    code: _Code = [(_LD_W_ABS, 0, 0, _ARCH)]
    for abi, profile in profiles.items():
        body = _body(abi, profile)
        code.append((_JMP_JEQ, 1, 0, _AUDIT_ARCH[abi]))
        code.append((_JMP_JA, 0, 0, len(body)))
        code += body
    code.append((_RET_K, 0, 0, unknown))
    if len(code) > 4096:  # BPF_MAXINSNS
        raise InputError("seccomp profile: it has too many rules for the kernel")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _body(abi: syscalls.Abi, profile: Profile) -> _Code:
    newest = max((_LAST_OF_OLD, *profile.rules))
    refuses = profile.default & 0xFFFF0000 == ERRNO
    beyond = (Rule(action=ERRNO | errno.ENOSYS),) if refuses else ()
    ranges = [(number, profile.rules.get(number, ())) for number in range(newest + 1)]
    ranges.append((newest + 1, beyond))
    code: _Code = [(_LD_W_ABS, 0, 0, _NR)]
    if abi == "x86_64":
        code += _x32(profile, newest + 1, beyond)
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
