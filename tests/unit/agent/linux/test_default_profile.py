"""The default filter against Docker's default profile, for every call of every architecture."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from functools import cache

import pytest
from tests.support import mobyprofile
from tests.support.bpf import answer

from hawse_agent.linux import filters, seccomp, syscalls
from hawse_agent.linux.privilege import CAPABILITIES
from hawse_agent.runtime.defaults import DEFAULT_CAPABILITIES

Call = tuple[str, int]
"""Name and number."""

ARCHITECTURES: dict[str, syscalls.Abi] = {
    "x86_64": "x86_64",
    "x32": "x86_64",
    "i386": "i386",
    "aarch64": "aarch64",
}
_NOT_IN_X32 = """
_sysctl create_module epoll_ctl_old epoll_wait_old get_kernel_syms get_thread_area nfsservctl query_module
set_thread_area uselib vserver
"""

ARGUMENTS: dict[str, Sequence[Sequence[int]]] = {
    "socket": [(family,) for family in (*range(64), 255, 1 << 31, (1 << 32) - 1, 1 << 32 | 2, 1 << 63)],
    "personality": [
        (value,)
        for known in mobyprofile.PERSONALITIES
        for value in (known, known + 1, max(known - 1, 0), known | 1 << 32, known | 0x40000)
    ],
    "clone": [(flags,) for bit in range(64) for flags in (1 << bit, 1 << bit | 0x11, 1 << bit | 0x3D0F00)],
}
OTHERS: Sequence[Sequence[int]] = [(), ((1 << 64) - 1,) * 6]

CAPABILITY_SETS: dict[str, frozenset[str]] = {
    "default": frozenset(DEFAULT_CAPABILITIES),
    "none": frozenset(),
    "all": frozenset(CAPABILITIES),
    "all but SYS_ADMIN": frozenset(CAPABILITIES) - {"CAP_SYS_ADMIN"},
    **{name: frozenset((*DEFAULT_CAPABILITIES, name)) for name in CAPABILITIES},
}


def calls(architecture: str) -> Iterator[Call]:
    table = syscalls.table(ARCHITECTURES[architecture])
    if architecture != "x32":
        yield from table.items()
        return
    own = {name: number for number, name in syscalls.X32.items()}
    for name, number in table.items():
        if name not in _NOT_IN_X32.split():
            yield name, syscalls.X32_BIT | own.get(name, number)


@cache
def program(architecture: str, capabilities: frozenset[str]) -> bytes:
    """As it is loaded: on x86_64 one for all three."""
    native: tuple[syscalls.Abi, ...] = ("aarch64",) if architecture == "aarch64" else ("x86_64", "i386")
    return filters.assemble({abi: seccomp.default_profile(abi, capabilities) for abi in native})


def ours(filter: bytes, architecture: str, number: int, arguments: Sequence[int]) -> mobyprofile.Answer:
    action = answer(filter, ARCHITECTURES[architecture], number, *arguments)
    if action == filters.ALLOW:
        return mobyprofile.ALLOW
    assert action & 0xFFFF0000 == filters.ERRNO
    return action & 0xFFFF


@pytest.mark.parametrize("capabilities", CAPABILITY_SETS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_decision_is_that_of_dockers_profile(architecture: str, capabilities: str) -> None:
    given = CAPABILITY_SETS[capabilities]
    filter = program(architecture, given)
    newest = syscalls.X32_BIT | 547 if architecture == "x32" else mobyprofile.NEWEST
    wrong = []
    for name, number in calls(architecture):
        for arguments in ARGUMENTS.get(name, OTHERS):
            expected = mobyprofile.decide(name, number, newest, arguments, given)
            got = ours(filter, architecture, number, arguments)
            if got != expected:
                wrong.append((name, arguments, got, expected))
    assert wrong == []


def test_what_the_profile_names_is_known_to_us() -> None:
    """Or a rule of it would be missed without anybody seeing it: those of other architectures apart."""
    named = {*mobyprofile.ALWAYS, *mobyprofile.X86, "socket", "personality"}
    for names in mobyprofile.WITH_CAPABILITY.values():
        named |= set(names)
    known = {name for abi in syscalls.ABIS for name in syscalls.table(abi)}
    # getsid never was a call of Linux; the rest belong to other architectures, or are libseccomp's own names.
    assert named - known == {"getsid", "recv", "riscv_hwprobe", "send", "utimensat_time64"} - known


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_calls_of_the_future_are_unknown(architecture: str) -> None:
    bit = syscalls.X32_BIT if architecture == "x32" else 0
    for number in (548, 600, 0x3FFFFFFF):
        filter = program(architecture, CAPABILITY_SETS["default"])
        assert ours(filter, architecture, bit | number, ()) == errno.ENOSYS
