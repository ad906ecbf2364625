"""`diff`: what a container has changed in its image, read from the overlay's upper directory.

An entry of the upper directory is compared with what the layers have at its place: a whiteout is a removal,
an opaque directory hides all that was in it, a file that was copied up and is the same still is no change. As
with Docker, a directory counts as changed when its mode or owner is another, or something in it changed; what
the engine has made to mount /proc, /dev, /sys and files of /etc on is not a change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hawse_agent.linux import tree

Kind = Literal["modified", "added", "deleted"]

_OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OURS = frozenset(("proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf"))


@dataclass(frozen=True, kw_only=True)
class Change:
    path: str
    kind: Kind


def changes(upper: int, image: int) -> list[Change]:
    """`upper` is the opened upper directory, `image` the root of the layers. Sorted, parents first."""
    found = dict(_Comparison(upper, image).all())
    for path in list(found):
        parent = os.path.dirname(path)
        while parent and parent not in found:
            found[parent] = "modified"
            parent = os.path.dirname(parent)
    paths = sorted(found, key=lambda path: path.split("/"))
    return [Change(path=f"/{path}", kind=found[path]) for path in paths]


class _Comparison:
    def __init__(self, upper: int, image: int) -> None:
        self._upper = upper
        self._image = image

    def all(self) -> Iterator[tuple[str, Kind]]:
        pending = [("", True)]
        while pending:
            path, in_image = pending.pop()
            try:
                directory = tree.open_in(self._upper, path, _DIRECTORY, links=False)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # gone by now
                    continue
                raise
            lower = tree.open_in(self._image, path, _DIRECTORY, links=False) if in_image else None
            try:
                yield from self._directory(directory, lower, f"{path}/" if path else "", pending)
            finally:
                os.close(directory)
                if lower is not None:
                    os.close(lower)

    def _directory(
        self, directory: int, lower: int | None, prefix: str, pending: list[tuple[str, bool]]
    ) -> Iterator[tuple[str, Kind]]:
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
            elif not (
                _looks_same(old, new) and (both or self._is_same_file(lower, directory, name, old, new))
            ):
                yield path, "modified"
            if stat.S_ISDIR(new.st_mode):
                pending.append((path, both))
        if lower is not None and _is_opaque(directory):
            yield from self._hidden(prefix.rstrip("/"), frozenset(names))

    def _is_same_file(
        self, lower: int | None, directory: int, name: str, old: os.stat_result, new: os.stat_result
    ) -> bool:
        same = (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
        return same and _capability(lower, name) == _capability(directory, name)

    def _hidden(self, path: str, kept: frozenset[str]) -> Iterator[tuple[str, Kind]]:
        """What the image has in a directory and the container no longer."""
        fd = tree.open_in(self._image, path, _DIRECTORY, links=False)
        try:
            for name in os.listdir(fd):
                if name not in kept:
                    yield f"{path}/{name}", "deleted"
        finally:
            os.close(fd)


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
