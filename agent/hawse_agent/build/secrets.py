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


def parents(paths: Paths) -> tuple[Path, ...]:
    """Where they may lie; a crash can leave them there until the next start, or `reset`."""
    return paths.run, Path("/dev/shm")


def sweep(paths: Paths) -> None:
    for parent in parents(paths):
        for left in parent.glob(f"{_name(paths)}*"):
            if left.is_dir() and not left.is_symlink():
                tree.remove(left)


@contextmanager
def directory(paths: Paths) -> Iterator[Path]:
    """A new one for one step. Raises HostRefused where nothing is kept in memory."""
    found = [parent for parent in parents(paths) if parent.is_dir() and files.is_in_memory(parent)]
    if not found:
        places = " nor ".join(map(str, parents(paths)))
        raise HostRefused(f"no secret can be given to a step: neither {places} is a tmpfs")
    own = found[0] / f"{_name(paths)}{os.urandom(8).hex()}"
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


def _name(paths: Paths) -> str:
    """What the directories of this instance begin with, and no other's."""
    return f"{paths.name('hawse-secrets')}."
