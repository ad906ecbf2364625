"""Profiles that people write: what cannot be compiled is refused when it is read."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.bpf import answer

from hawse_agent.errors import InputError, NotSupported
from hawse_agent.linux import filters, privilege, seccomp, syscalls

ALLOW: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}


def rule(**fields: Any) -> dict[str, Any]:
    return {**ALLOW, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", **fields}]}


@pytest.mark.parametrize("profile", [ALLOW, {**ALLOW, "syscalls": []}, rule(), rule(errnoRet=4095)])
def test_it_compiles(profile: dict[str, Any]) -> None:
    seccomp.check(json.dumps(profile))
    assert seccomp.compile_filter(json.dumps(profile), ())


@pytest.mark.parametrize(
    "profile",
    [
        {},
        [],
        {**ALLOW, "syscalls": 5},
        {**ALLOW, "syscalls": ["a"]},
        {"defaultAction": ["x"]},
        rule(errnoRet="x"),
        rule(errnoRet=2147418112),  # or'ed to the action it would mean ALLOW
        rule(errnoRet=-1),
        rule(args=[{"index": "x", "op": "SCMP_CMP_EQ"}]),
        rule(args=[{"index": 0, "value": 2**100, "op": "SCMP_CMP_EQ"}]),
        rule(includes=["x"]),
        rule(includes={"minKernel": "abc"}),
        rule(name="rmdir"),
        {**ALLOW, "architectures": ["SCMP_ARCH_Z80"]},
        {**ALLOW, "architectures": "SCMP_ARCH_X86_64"},
        {**ALLOW, "archMap": ["SCMP_ARCH_X86_64"]},
        {**ALLOW, "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["x"]}]},
        {**ALLOW, "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]},
        {**ALLOW, "flags": ["SECCOMP_FILTER_FLAG_FASTER"]},
    ],
)
def test_it_is_refused(profile: Any) -> None:
    with pytest.raises(InputError, match="seccomp profile"):
        seccomp.check(json.dumps(profile))


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ({**ALLOW, "listenerPath": "/run/seccomp.sock"}, "listenerPath"),
        ({**ALLOW, "listenerMetadata": "x"}, "listenerMetadata"),
        ({**ALLOW, "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, "WAIT_KILLABLE_RECV"),
        ({**ALLOW, "defaultErrno": "ENOSYS"}, "defaultErrno"),
        (rule(errno="ENOSYS"), "syscalls.errno"),
        (rule(includes={"kernels": ["6"]}), "includes.kernels"),
        ({**ALLOW, "archMap": [{"architecture": "SCMP_ARCH_X86_64", "others": [1]}]}, "archMap.others"),
    ],
)
def test_what_is_not_done_is_refused_by_name(profile: Any, name: str) -> None:
    with pytest.raises(NotSupported, match=rf"^seccomp profile: .*{name} is not supported"):
        seccomp.check(json.dumps(profile))


def test_a_profile_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="decoding seccomp profile failed"):
        seccomp.check("[" * 100_000)


OF_64_BIT = {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
OF_ARM = {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="its variants are those of x86-64")
@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, {"x86_64"}),  # as with libseccomp
        ({"architectures": ["SCMP_ARCH_X86_64"]}, {"x86_64"}),
        ({"architectures": ["SCMP_ARCH_X86"]}, {"x86_64", "i386"}),
        ({"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]}, {"x86_64", "x32"}),
        ({"architectures": ["SCMP_ARCH_S390X"]}, {"x86_64"}),
        ({"archMap": [OF_ARM, OF_64_BIT]}, {"x86_64", "i386", "x32"}),
        ({"archMap": [OF_ARM]}, {"x86_64"}),
    ],
)
def test_calls_of_other_architectures_pass_only_where_named(fields: Any, allowed: set[str]) -> None:
    compiled = seccomp.compile_filter(json.dumps({**ALLOW, **fields}), ())
    assert compiled is not None
    calls: dict[str, tuple[syscalls.Abi, int]] = {
        "x86_64": ("x86_64", syscalls.table("x86_64")["getpid"]),
        "i386": ("i386", syscalls.table("i386")["getpid"]),
        "x32": ("x86_64", syscalls.table("x86_64")["getpid"] | syscalls.X32_BIT),
    }
    for name, (abi, number) in calls.items():
        expected = filters.ALLOW if name in allowed else filters.ERRNO | errno.ENOSYS
        assert answer(compiled.program, abi, number) == expected, name


def test_flags_reach_the_kernel(tmp_path: Path) -> None:
    names = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW")]
    compiled = seccomp.compile_filter(json.dumps({**rule(), "flags": names}), ())
    assert compiled is not None and compiled.flags == 0x2 | 0x4
    child = os.fork()
    if child == 0:
        status = 1
        try:
            privilege.no_new_privileges()
            seccomp.load(compiled)
            os.mkdir(tmp_path / "never")
        except PermissionError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
