"""Secrets of a RUN step: files in memory, for as long as the step runs.

Never in a layer, a log, the state, or on a disk: they lie on a tmpfs that root alone may enter, or there are
none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hawse_agent.errors import HostRefused
from hawse_agent.linux import files, tree
from hawse_agent.paths import Paths


def places(paths: Paths) -> tuple[Path, ...]:
    """Where they may lie; a crash can leave them there until the next start, or `reset`."""
    return paths.run / "secrets", Path("/dev/shm") / paths.name("hawse-secrets")


def sweep(paths: Paths) -> None:
    for place in places(paths):
        if place.is_dir() and not place.is_symlink():
            tree.remove(place)


@contextmanager
def directory(paths: Paths) -> Iterator[Path]:
    """A new one for one step. Raises HostRefused where nothing is kept in memory."""
    for place in places(paths):
        if place.parent.is_dir() and files.is_in_memory(place.parent):
            break
    else:
        parents = " nor ".join(str(place.parent) for place in places(paths))
        raise HostRefused(f"no secret can be given to a step: neither {parents} is a tmpfs")
    own = place / os.urandom(8).hex()
    _make_private(place)
    own.mkdir(mode=0o700)
    try:
        yield own
    finally:
        tree.remove(own)


def write(path: Path, content: bytes, *, mode: int = 0o400, uid: int = 0, gid: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)


def _make_private(place: Path) -> None:
    """Others may have made it first, in /dev/shm."""
    place.mkdir(mode=0o700, exist_ok=True)
    status = os.stat(place, follow_symlinks=False)
    if place.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise HostRefused(f"{place} is not ours", hint="remove it: somebody else has made it")
