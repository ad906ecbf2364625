"""`diff`: what a container has changed in its image, read from the overlay's upper directory.

An entry of the upper directory is compared with what the layers have at its place: a whiteout is a removal,
an opaque directory hides all that was in it, a file that was copied up and is the same still is no change. As
with Docker, a directory counts as changed when its mode or owner is another, or something in it changed; what
the engine has made to mount /proc, /dev, /sys and files of /etc on is not a change.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hawse_agent.errors import HostRefused
from hawse_agent.linux.descent import NO_DIRECTORY, Descent, Place, walk

Kind = Literal["modified", "added", "deleted"]

MAX_PATHS = 64 << 20
"""A deep tree of few directories has paths without end."""
_OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OURS = frozenset(("proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf"))


@dataclass(frozen=True, kw_only=True)
class Change:
    path: str
    kind: Kind


def changes(upper: int, image: int) -> list[Change]:
    """`upper` is the opened upper directory, `image` the root of the layers. Sorted, parents first. Raises
    HostRefused when the paths come to more than `MAX_PATHS` characters."""
    found: dict[str, Kind] = {}
    size = 0
    for path, kind in _compared(upper, image):
        for shown, how in _with_parents(path, kind, found):
            found[shown] = how
            size += len(shown)
        if size > MAX_PATHS:
            raise HostRefused(f"the paths of what has changed come to more than {MAX_PATHS >> 20} MiB")
    paths = sorted(found, key=lambda path: path.replace("/", "\0"))
    return [Change(path=f"/{path}", kind=found[path]) for path in paths]


def _with_parents(path: str, kind: Kind, found: Mapping[str, Kind]) -> Iterator[tuple[str, Kind]]:
    yield path, kind
    parent = os.path.dirname(path)
    while parent and parent not in found:
        yield parent, "modified"
        parent = os.path.dirname(parent)


def _compared(upper: int, image: int) -> Iterator[tuple[str, Kind]]:
    with contextlib.closing(Descent(image)) as lower:
        for place in walk(upper):
            while lower.depth >= max(1, place.at.depth):
                lower.up()
            in_image = lower.depth == place.at.depth or _follows(lower, place.at)
            yield from _directory(place, lower.fd if in_image else None)


def _follows(lower: Descent, upper: Descent) -> bool:
    """Whether the image has this directory, too; `lower` is then there."""
    if lower.depth != upper.depth - 1:
        return False
    try:
        lower.down(upper.name)
    except NO_DIRECTORY:
        return False
    return True


def _directory(place: Place, lower: int | None) -> Iterator[tuple[str, Kind]]:
    directory = place.at.fd
    prefix = f"{place.at.path}/" if place.at.depth else ""
    names = os.listdir(directory)
    for name in names:
        new = _status(directory, name)
        if new is None:
            continue
        path = f"{prefix}{name}"
        old = _status(lower, name) if lower is not None else None
        if _is_whiteout(new):
            if old is not None:
                yield path, "deleted"
            continue
        both = old is not None and stat.S_ISDIR(new.st_mode) and stat.S_ISDIR(old.st_mode)
        if old is None:
            if path not in _OURS or not _is_empty(directory, name, new):
                yield path, "added"
        elif not (_looks_same(old, new) and (both or _is_same_file(lower, directory, name, old, new))):
            yield path, "modified"
        if stat.S_ISDIR(new.st_mode):
            place.below.append(name)
    if lower is not None and _is_opaque(directory):
        kept = frozenset(names)
        for name in os.listdir(lower):
            if name not in kept:
                yield f"{prefix}{name}", "deleted"


def _is_same_file(
    lower: int | None, directory: int, name: str, old: os.stat_result, new: os.stat_result
) -> bool:
    same = (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
    return same and _capability(lower, name) == _capability(directory, name)


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _looks_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid, one.st_rdev) == (
        other.st_mode,
        other.st_uid,
        other.st_gid,
        other.st_rdev,
    )


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_empty(directory: int, name: str, status: os.stat_result) -> bool:
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size == 0
    fd = os.open(name, _DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return not os.listdir(fd)
    finally:
        os.close(fd)


def _is_opaque(directory: int) -> bool:
    return _attribute(directory, _OPAQUE) == b"y"


def _capability(directory: int | None, name: str) -> bytes:
    return _attribute(f"/proc/self/fd/{directory}/{name}", _CAPABILITY)


def _attribute(target: int | str, name: str) -> bytes:
    try:
        return os.getxattr(target, name, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT):
            return b""
        raise
