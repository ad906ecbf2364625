"""A seccomp profile in JSON, Docker's or OCI's: what is in it is done, or refused by name.

Names of calls that an architecture does not have are left out, as libseccomp does.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hawse_agent.errors import InputError, NotSupported
from hawse_agent.linux import syscalls
from hawse_agent.linux.filters import (
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    TRACE,
    TRAP,
    Condition,
    Profile,
    Rule,
)

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


_ABIS: Mapping[str, str] = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_AARCH64": "aarch64",
}
_X32 = "SCMP_ARCH_X32"
_FOREIGN = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        *(
            "ARM",
            "MIPS",
            "MIPS64",
            "MIPS64N32",
            "MIPSEL",
            "MIPSEL64",
            "MIPSEL64N32",
            "PPC",
            "PPC64",
            "PPC64LE",
        ),
        *("S390", "S390X", "PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB"),
    )
)
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # for all threads: the process that loads it has one
    "SECCOMP_FILTER_FLAG_LOG": 0x2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 0x4,
}
_KEYS = frozenset(
    ("defaultAction", "defaultErrnoRet", "architectures", "archMap", "flags", "syscalls", "comment")
)
_CALL_KEYS = frozenset(("name", "names", "action", "args", "comment", "includes", "excludes", "errnoRet"))
_CONDITION_KEYS = frozenset(("arches", "caps", "minKernel"))


@dataclass(frozen=True, kw_only=True)
class ProfileFile:
    document: Mapping[str, Any]
    abis: tuple[syscalls.Abi, ...]
    """Of this machine, those that the profile is for: its own, and what else it names."""
    x32: bool
    flags: int
    """Of seccomp(2)."""


def read(text: str) -> ProfileFile:
    """Raises InputError for what is no profile, NotSupported for what is not done."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"decoding seccomp profile failed: {error}") from error
    if not isinstance(document, dict) or "defaultAction" not in document:
        raise InputError("seccomp profile: it has no defaultAction")
    for key in ("listenerPath", "listenerMetadata"):
        if document.pop(key, None):
            raise NotSupported(f"seccomp profile: {key} is not supported: nobody is asked about calls")
    _refuse_others(document, _KEYS, "")
    named = _architectures(document)
    native = syscalls.native()
    return ProfileFile(
        document=document,
        abis=tuple(abi for abi in _RUN_BY[native] if abi == native or abi in {_ABIS.get(n) for n in named}),
        x32=_X32 in named,
        flags=_flags(document.get("flags") or ()),
    )


_RUN_BY: Mapping[syscalls.Abi, tuple[syscalls.Abi, ...]] = {
    "x86_64": ("x86_64", "i386"),
    "aarch64": ("aarch64",),
}


def _architectures(document: Mapping[str, Any]) -> frozenset[str]:
    """As the profile names them; of archMap what stands beside this machine's own."""
    given, mapped = document.get("architectures") or [], document.get("archMap") or []
    if given and mapped:
        raise InputError(
            "'architectures' and 'archMap' were specified in the seccomp profile, use either "
            "'architectures' or 'archMap'"
        )
    names = list(_texts(given, "architectures"))
    for entry in mapped:
        if not isinstance(entry, dict):
            raise InputError("seccomp profile: archMap: expected a list of objects")
        _refuse_others(entry, frozenset(("architecture", "subArchitectures")), "archMap.")
        own, others = (
            entry.get("architecture"),
            _texts(entry.get("subArchitectures") or (), "subArchitectures"),
        )
        for name in (own, *others):
            _check_architecture(name)
        if _ABIS.get(str(own)) == syscalls.native():
            names += others
    for name in names:
        _check_architecture(name)
    return frozenset(names)


def _check_architecture(name: Any) -> None:
    if name != _X32 and name not in _ABIS and name not in _FOREIGN:
        raise InputError(f"seccomp profile: unknown architecture {name!r}")


def _flags(names: Any) -> int:
    flags = 0
    for name in _texts(names, "flags"):
        if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
            raise NotSupported(f"seccomp profile: flag {name} is not supported: nobody is asked about calls")
        if name not in _FLAGS:
            raise InputError(f"seccomp profile: unknown flag {name!r}")
        flags |= _FLAGS[name]
    return flags


def _texts(value: Any, key: str) -> Sequence[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise InputError(f"seccomp profile: {key}: expected a list of texts")
    return value


def _refuse_others(entry: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key, value in entry.items():
        if key not in known and value:
            raise NotSupported(f"seccomp profile: {where}{key} is not supported")


def profile_of(document: Mapping[str, Any], abi: syscalls.Abi, capabilities: Collection[str]) -> Profile:
    table = syscalls.table(abi)
    rules: dict[int, tuple[Rule, ...]] = {}
    for entry in document.get("syscalls") or ():
        _refuse_others(entry, _CALL_KEYS, "syscalls.")
        if entry.get("name") and entry.get("names"):
            raise InputError(
                "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'"
            )
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
    _refuse_others(includes, _CONDITION_KEYS, "includes.")
    _refuse_others(excludes, _CONDITION_KEYS, "excludes.")
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
        if not letter.isdecimal():
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
