"""Who a container's process is: user and groups from the container's own files, limits, capabilities.

Called with the container's root as `/`: a link in its /etc leads nowhere else.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hawse_agent.errors import InputError
from hawse_agent.linux import privilege
from hawse_agent.spec.container import Ulimit

_MAX_FILE = 16 * 1024 * 1024

_RLIMITS = {
    name: number
    for number, name in enumerate(
        (
            "cpu",
            "fsize",
            "data",
            "stack",
            "core",
            "rss",
            "nproc",
            "nofile",
            "memlock",
            "as",
            "locks",
            "sigpending",
            "msgqueue",
            "nice",
            "rtprio",
            "rttime",
        )
    )
}


@dataclass(frozen=True, kw_only=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All that setgroups gets, the gid among them (CVE-2022-36109)."""
    home: str


def resolve_user(text: str, group_add: Sequence[str]) -> User:
    """`name|uid[:group|gid]`; a number that no file knows is taken as it is, an unknown name is an error."""
    user, _, group = text.partition(":")
    uid, gid, home, name = _resolve_uid(user or "0")
    supplementary: list[int] = []
    if group:
        gid = _resolve_gid(group)
    elif name:
        supplementary = [entry_gid for _, entry_gid, members in _groups() if name in members]
    supplementary += [_resolve_gid(extra) for extra in group_add]
    return User(uid=uid, gid=gid, groups=tuple(dict.fromkeys((gid, *supplementary))), home=home or "/")


def with_home(env: Sequence[str], home: str) -> dict[str, str]:
    """The environment as a mapping; HOME is the user's unless it is given."""
    values = dict(entry.partition("=")[::2] for entry in env)
    if not values.get("HOME"):
        values["HOME"] = home
    return values


def set_rlimits(limits: Sequence[Ulimit]) -> list[str]:
    """Returns a warning for each that had to be cut to this machine's hard limit."""
    warnings = []
    for limit in limits:
        number = _RLIMITS.get(limit.name.lower().removeprefix("rlimit_"))
        if number is None:
            raise InputError(f"unknown ulimit: {limit.name}")
        try:
            resource.setrlimit(number, (limit.soft, limit.hard))
        except ValueError:  # without CAP_SYS_RESOURCE a hard limit cannot be raised
            _, hard = resource.getrlimit(number)
            hard = _smaller(hard, limit.hard)
            resource.setrlimit(number, (_smaller(limit.soft, hard), hard))
            warnings.append(f"ulimit {limit.name} is cut to {hard}, this host's hard limit")
    return warnings


def set_oom_score(value: int) -> list[str]:
    """/proc of any kind must still be mounted; returns a warning when the host does not allow it."""
    fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        if int(os.read(fd, 16)) != value:
            os.pwrite(fd, str(value).encode(), 0)
    except PermissionError:
        return [f"oom_score_adj {value} is lower than this host allows"]
    finally:
        os.close(fd)
    return []


def drop_bounding_set(capabilities: Sequence[str]) -> None:
    """Must come before the user changes: it needs CAP_SETPCAP."""
    keep = mask_of(capabilities)
    have = privilege.bounding()
    for number in range(len(privilege.CAPABILITIES)):
        if have >> number & 1 and not keep >> number & 1:
            privilege.drop_bounding(number)


def become(user: User, capabilities: Sequence[str]) -> None:
    """Change user and groups; root keeps exactly `capabilities`, another user keeps none unless it execs a
    file that grants them."""
    privilege.keep_capabilities(True)
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    mask = mask_of(capabilities) & privilege.permitted()
    # execve computes a plain user's permitted set from inheritable and ambient, both empty: nothing is left.
    privilege.capset(mask, mask, 0)
    privilege.clear_ambient()


def mask_of(capabilities: Sequence[str]) -> int:
    return sum(1 << privilege.CAPABILITIES.index(name) for name in set(capabilities))


def _smaller(one: int, other: int) -> int:
    """Of two limits; -1 is infinity."""
    known = [value for value in (one, other) if value != resource.RLIM_INFINITY]
    return min(known) if known else resource.RLIM_INFINITY


def _resolve_uid(user: str) -> tuple[int, int, str, str]:
    """uid, gid, home and name; the latter two are empty when no entry matches."""
    number = int(user) if user.isdecimal() else None
    by_number = None
    for fields in _entries("/etc/passwd", 7):
        if not (fields[2].isdecimal() and fields[3].isdecimal()):
            continue
        found = (int(fields[2]), int(fields[3]), fields[5], fields[0])
        if fields[0] == user:
            return found
        if number is not None and found[0] == number and by_number is None:
            by_number = found
    if by_number is not None:
        return by_number
    if number is None:
        raise InputError(f"unable to find user {user}: no matching entries in passwd file")
    return _checked_id(number, user), 0, "", ""


def _resolve_gid(group: str) -> int:
    number = int(group) if group.isdecimal() else None
    for name, gid, _ in _groups():
        if name == group:
            return gid
    if number is None:
        raise InputError(f"unable to find group {group}: no matching entries in group file")
    return _checked_id(number, group)


def _checked_id(number: int, text: str) -> int:
    if number >= 1 << 31:
        raise InputError(f"uids and gids must be in range 0-2147483647, not {text}")
    return number


def _groups() -> Iterator[tuple[str, int, list[str]]]:
    for fields in _entries("/etc/group", 4):
        if fields[2].isdecimal():
            yield fields[0], int(fields[2]), fields[3].split(",")


def _entries(path: str, count: int) -> Iterator[list[str]]:
    for line in _read_untrusted(path).splitlines():
        fields = line.strip().split(":")
        if not line.startswith("#") and len(fields) >= count - 1:
            yield fields + [""] * (count - len(fields))


def _read_untrusted(path: str) -> str:
    """An image may have a FIFO, a device or a giant file there; a missing one is empty."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} of the container is not a regular file")
        if status.st_size > _MAX_FILE:
            raise InputError(f"{path} of the container is larger than {_MAX_FILE} bytes")
        return os.read(fd, status.st_size).decode(errors="surrogateescape")
    finally:
        os.close(fd)
