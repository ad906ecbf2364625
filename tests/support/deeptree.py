"""A directory tree that no path leads to the end of, as any container can make one."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "directory"
LENGTH = 500
"""Levels: 5 KB of path, where the kernel takes 4."""


def make(top: Path, levels: int = LENGTH) -> None:
    """In each level a directory and a file of one block."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(NAME, dir_fd=here)
        below = os.open(NAME, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
        fd = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here)
        os.write(fd, b"x" * 4096)
        os.close(fd)
    os.close(here)


def depth(top: Path) -> int:
    """How many levels have the next one and the file."""
    here, found = os.open(top, os.O_RDONLY | os.O_DIRECTORY), 0
    while NAME in os.listdir(here):
        below = os.open(NAME, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
        assert os.stat("file", dir_fd=here).st_size == 4096
        found += 1
    os.close(here)
    return found
