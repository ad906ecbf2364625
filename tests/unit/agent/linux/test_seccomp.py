"""Filters, run by an interpreter of classic BPF: what the kernel would answer to a call."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from tests.support.bpf import answer

from hawse_agent.errors import InputError, NotSupported
from hawse_agent.linux import filters, profilefile, seccomp, syscalls
from hawse_agent.runtime.defaults import DEFAULT_CAPABILITIES

EPERM, ENOSYS = filters.ERRNO | errno.EPERM, filters.ERRNO | errno.ENOSYS


def default(abi: syscalls.Abi, *more: str) -> bytes:
    return filters.assemble({abi: seccomp.default_profile(abi, {*DEFAULT_CAPABILITIES, *more})})


@pytest.mark.parametrize("abi", syscalls.ABIS)
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("read", filters.ALLOW),
        ("openat2", filters.ALLOW),
        ("ptrace", filters.ALLOW),
        ("chroot", filters.ALLOW),
        ("mount", EPERM),
        ("unshare", EPERM),
        ("setns", EPERM),
        ("keyctl", EPERM),
        ("bpf", EPERM),
        ("io_uring_setup", EPERM),
        ("open_by_handle_at", EPERM),
        ("clone3", ENOSYS),
        ("file_setattr", ENOSYS),
        (600, ENOSYS),
        (0x40000000 | 600, ENOSYS),
    ],
)
def test_default(abi: syscalls.Abi, call: str | int, expected: int) -> None:
    assert answer(default(abi), abi, call) == expected


@pytest.mark.parametrize(
    ("call", "args", "expected"),
    [
        ("clone", (0x11,), filters.ALLOW),
        ("clone", (0x3D0F00,), filters.ALLOW),
        ("clone", (0x10000011,), EPERM),
        ("clone", (0x00020011,), EPERM),
        ("socket", (2,), filters.ALLOW),
        ("socket", (16,), filters.ALLOW),
        ("socket", (38,), EPERM),
        ("socket", (40,), EPERM),
        ("socket", (46,), EPERM),
        ("socket", (1 << 32 | 2,), EPERM),
        ("personality", (0,), filters.ALLOW),
        ("personality", (0xFFFFFFFF,), filters.ALLOW),
        ("personality", (0x0040000,), EPERM),
    ],
)
def test_default_looks_at_arguments(call: str, args: tuple[int, ...], expected: int) -> None:
    for abi in ("x86_64", "aarch64"):
        assert answer(default(abi), abi, call, *args) == expected


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_ADMIN", "bpf"),
        ("CAP_BPF", "bpf"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_capability_opens_a_call(capability: str, call: str) -> None:
    assert answer(default("x86_64", capability), "x86_64", call) == filters.ALLOW


def test_one_program_for_two_architectures() -> None:
    profiles = {abi: seccomp.default_profile(abi, DEFAULT_CAPABILITIES) for abi in ("x86_64", "i386")}
    program = filters.assemble(profiles)  # type: ignore[arg-type]
    assert answer(program, "i386", "waitpid") == filters.ALLOW
    assert answer(program, "i386", "umount") == EPERM
    assert answer(program, "x86_64", "read") == filters.ALLOW
    assert answer(program, "aarch64", "read") == ENOSYS
    assert len(program) // 8 < 4096


@pytest.mark.parametrize(
    ("operator", "value", "second", "holds", "fails"),
    [
        ("EQ", 5, 0, [5], [4, 6, 1 << 32 | 5]),
        ("NE", 5, 0, [4, 6, 1 << 32 | 5], [5]),
        ("LT", 1 << 32 | 5, 0, [0, 5, 1 << 32 | 4], [1 << 32 | 5, 2 << 32]),
        ("LE", 1 << 32 | 5, 0, [0, 6, 1 << 32 | 5], [1 << 32 | 6, 2 << 32]),
        ("GT", 1 << 32 | 5, 0, [1 << 32 | 6, 2 << 32], [0, 6, 1 << 32 | 5]),
        ("GE", 1 << 32 | 5, 0, [1 << 32 | 5, 2 << 32], [0, 6, 1 << 32 | 4]),
        ("MASKED_EQ", 0xF0, 0x30, [0x30, 0x3F, 0x1030], [0x20, 0x70]),
    ],
)
def test_operators(operator: str, value: int, second: int, holds: list[int], fails: list[int]) -> None:
    condition = {"index": 1, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{operator}"}
    program = compiled([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [condition]}])
    for argument in holds:
        assert answer(program, "x86_64", "read", 0, argument) == filters.ALLOW
    for argument in fails:
        assert answer(program, "x86_64", "read", 0, argument) == EPERM


def test_several_conditions_must_all_hold() -> None:
    conditions = [{"index": index, "value": 1, "op": "SCMP_CMP_EQ"} for index in (0, 2)]
    program = compiled([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": conditions}])
    assert answer(program, "x86_64", "read", 1, 0, 1) == filters.ALLOW
    assert answer(program, "x86_64", "read", 1, 0, 0) == EPERM
    assert answer(program, "x86_64", "read", 0, 0, 1) == EPERM


def test_rules_of_capabilities_architectures_and_kernels() -> None:
    rules = [
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
        {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        {
            "names": ["arch_prctl", "no_such_call"],
            "action": "SCMP_ACT_ALLOW",
            "includes": {"arches": ["amd64"]},
        },
    ]
    program = compiled(rules)
    answers = {call: answer(program, "x86_64", call) for rule in rules for call in rule["names"][:1]}
    assert {call for call, action in answers.items() if action == filters.ALLOW} == {"ptrace", "arch_prctl"}


def test_allowing_profile_lets_unknown_calls_pass() -> None:
    document = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_KILL"}]}
    program = filters.assemble({"x86_64": profilefile.profile_of(document, "x86_64", ())})
    assert answer(program, "x86_64", "mkdir") == filters.KILL_THREAD
    assert answer(program, "x86_64", 900) == filters.ALLOW


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", InputError, "decoding seccomp profile failed"),
        ("{}", InputError, "no defaultAction"),
        ('{"defaultAction": "SCMP_ACT_MAYBE"}', InputError, "unknown action"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', NotSupported, "SCMP_ACT_NOTIFY"),
    ],
)
def test_bad_profile(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seccomp.compile_filter(text, ())


def test_unconfined_is_no_filter() -> None:
    assert seccomp.compile_filter("unconfined", ()) is None


def compiled(rules: list[dict[str, Any]]) -> bytes:
    document = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules}
    parsed = json.loads(json.dumps(document))
    return filters.assemble({"x86_64": profilefile.profile_of(parsed, "x86_64", DEFAULT_CAPABILITIES)})
