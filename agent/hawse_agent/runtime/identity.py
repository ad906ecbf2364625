"""Who a container's process is: user and groups from the container's own files, limits, capabilities.

Users are found with the root as `/`, or with a descriptor of it: a link in its /etc leads nowhere else.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hawse_agent.errors import InputError
from hawse_agent.linux import privilege, tree
from hawse_agent.spec.container import Ulimit
from hawse_agent.spec.runtime import ProcessConfig

_MAX_FILE = 4 * 1024 * 1024
_MAX_ID = (1 << 31) - 1

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


def owner_in(root: int, text: str) -> tuple[int, int]:
    """uid and gid that `name|uid[:group|gid]` has below an opened root."""
    user, _, group = text.partition(":")
    uid, gid, _, _ = _resolve_uid(user or "0", root)
    return uid, _resolve_gid(group, root) if group else gid


def with_home(env: Sequence[str], home: str) -> dict[str, str]:
    """The environment as a mapping; HOME is the user's unless it is given."""
    values = dict(entry.partition("=")[::2] for entry in env)
    if not values.get("HOME"):
        values["HOME"] = home
    return values


def set_limits(pid: int, process: ProcessConfig) -> tuple[str, ...]:
    """Of another process that waits, since one with ids of its own may not do it. Returns warnings."""
    try:
        return (*_set_oom_score(pid, process.oom_score_adj), *_set_rlimits(pid, process.rlimits))
    except (FileNotFoundError, ProcessLookupError):
        return ()  # it was killed: the next step says so


def limit_number(name: str) -> int | None:
    """Of setrlimit(2): `nofile`, `RLIMIT_NOFILE`; None for what is no limit."""
    return _RLIMITS.get(name.lower().removeprefix("rlimit_"))


def _set_rlimits(pid: int, limits: Sequence[Ulimit]) -> list[str]:
    """Returns a warning for each that had to be cut to this machine's hard limit."""
    warnings = []
    for limit in limits:
        number = limit_number(limit.name)
        if number is None:
            raise InputError(f"unknown ulimit: {limit.name}")
        try:
            resource.prlimit(pid, number, (limit.soft, limit.hard))
        except ValueError as error:
            raise InputError(f"ulimit {limit.name}: {error}") from error
        except PermissionError:  # without CAP_SYS_RESOURCE a hard limit cannot be raised
            _, hard = resource.prlimit(pid, number)
            hard = _smaller(hard, limit.hard)
            resource.prlimit(pid, number, (_smaller(limit.soft, hard), hard))
            warnings.append(f"ulimit {limit.name} is cut to {hard}, this host's hard limit")
    return warnings


def _set_oom_score(pid: int, value: int) -> list[str]:
    """Through the host's own /proc: a container's might lead the write to another file (CVE-2025-52881).
    Returns a warning when the host does not allow it."""
    fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
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
    have = privilege.bounding()  # now: a user namespace of its own began with all of them
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


def _resolve_uid(user: str, root: int | None = None) -> tuple[int, int, str, str]:
    """uid, gid, home and name; the latter two are empty when no entry matches."""
    number = _number(user)
    by_number = None
    for fields in _entries("/etc/passwd", 7, root):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == user:
            return _checked_id(uid), _checked_id(gid), fields[5], fields[0]
        if uid == number and by_number is None:
            by_number = (_checked_id(uid), _checked_id(gid), fields[5], fields[0])
    if by_number is not None:
        return by_number
    if number is None:
        raise InputError(f"unable to find user {user}: no matching entries in passwd file")
    return _checked_id(number), 0, "", ""


def _resolve_gid(group: str, root: int | None = None) -> int:
    number = _number(group)
    for name, gid, _ in _groups(root):
        if name == group:
            return _checked_id(gid)
    if number is None:
        raise InputError(f"unable to find group {group}: no matching entries in group file")
    return _checked_id(number)


def _number(text: str) -> int | None:
    """Long ones are cut: they are out of range, too."""
    return int(text[:20]) if text.isascii() and text.isdigit() else None


def _checked_id(number: int) -> int:
    """2**32 - 1 would mean "leave it as it is": root."""
    if number > _MAX_ID:
        raise InputError(f"uids and gids must be in range 0-{_MAX_ID}")
    return number


def _groups(root: int | None = None) -> Iterator[tuple[str, int, list[str]]]:
    for fields in _entries("/etc/group", 4, root):
        gid = _number(fields[2])
        if gid is not None:
            yield fields[0], gid, fields[3].split(",")


def _entries(path: str, count: int, root: int | None) -> Iterator[list[str]]:
    for line in _lines(path, root):
        if line.count(b":") >= count - 2 and not line.startswith(b"#"):
            fields = line.decode(errors="surrogateescape").strip().split(":")
            yield fields + [""] * (count - len(fields))


def _lines(path: str, root: int | None) -> Iterator[bytes]:
    """An image may have a FIFO, a device, a giant file or a link to a descriptor of ours there; a missing one
    is empty."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = tree.open_absolute(path, flags) if root is None else tree.open_file_in(root, path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InputError(f"{path} of the container is not a regular file")
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise InputError(f"{path} of the container is larger than {_MAX_FILE} bytes")
    yield from content.split(b"\n")
