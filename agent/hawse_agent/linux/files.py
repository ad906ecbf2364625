"""Files: what Python's os module does not offer."""

from __future__ import annotations

import os

from hawse_agent.linux import libc

_RENAME_EXCHANGE = 2


def exchange(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Swap two entries of one file system in a single step: at no moment is either of them missing."""
    libc.syscall(
        "renameat2",
        libc.AT_FDCWD,
        os.fsencode(one),
        libc.AT_FDCWD,
        os.fsencode(other),
        _RENAME_EXCHANGE,
        what=f"exchange {os.fspath(one)} and {os.fspath(other)}",
    )


def syncfs(fd: int) -> None:
    """Bring everything on the file system of `fd` to the disk."""
    libc.syscall("syncfs", fd)
