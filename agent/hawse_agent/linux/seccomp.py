"""Seccomp: the filter of a container, and how it is loaded.

The default profile is Docker's in effect, told the other way round: all calls of our own table, less those
that reach outside a container, some of which come back with a capability. A call that only hides from the
filter (clone3) gets ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from hawse_agent.errors import InputError
from hawse_agent.linux import libc, privilege, profilefile, syscalls
from hawse_agent.linux.filters import ALLOW, ERRNO, Condition, Profile, Rule, assemble


@dataclass(frozen=True, kw_only=True)
class Filter:
    program: bytes
    flags: int = 0
    """Of seccomp(2)."""


def compile_filter(profile: str, capabilities: Collection[str]) -> Filter | None:
    """The filter of `default`, `unconfined` (None) or a profile's JSON text, given the capabilities that the
    process will have."""
    if profile == "unconfined":
        return None
    return _compiled(profile, frozenset(capabilities))


def check(profile: str) -> None:
    """Raises InputError for a text that cannot be compiled, NotSupported for what is not done."""
    if profile not in ("default", "unconfined"):
        for capabilities in ((), privilege.CAPABILITIES):
            compile_filter(profile, capabilities)


def load(wanted: Filter) -> None:
    """Confine this thread from now on; needs CAP_SYS_ADMIN or no_new_privs."""
    instructions = ctypes.create_string_buffer(wanted.program, len(wanted.program))
    header = _SockFprog(len=len(wanted.program) // 8, filter=ctypes.addressof(instructions))
    libc.syscall("seccomp", _SECCOMP_SET_MODE_FILTER, wanted.flags, header, what="load the seccomp filter")


_SECCOMP_SET_MODE_FILTER = 1


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@lru_cache(maxsize=64)
def _compiled(profile: str, capabilities: frozenset[str]) -> Filter:
    if profile == "default":
        abis: tuple[syscalls.Abi, ...] = ("x86_64", "i386") if syscalls.native() == "x86_64" else ("aarch64",)
        return Filter(program=assemble({abi: default_profile(abi, capabilities) for abi in abis}))
    file = profilefile.read(profile)
    try:
        profiles = {abi: profilefile.profile_of(file.document, abi, capabilities) for abi in file.abis}
        return Filter(program=assemble(profiles, x32=file.x32), flags=file.flags)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise InputError(f"decoding seccomp profile failed: {error}") from error


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
