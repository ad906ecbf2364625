"""A walk through a directory tree by descriptors, two at a time: as deep as a container can make one.

A path longer than 4096 bytes cannot be opened, and a descriptor for each level is more than a process may
have. So each step down is opened in the directory above, and the way back is `..`: believed only where it
leads to the directory that we came from, since who owns the tree may move it meanwhile. No link is followed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NO_DIRECTORY = (FileNotFoundError, NotADirectoryError)
"""Raised for a step to what is gone, or is a link or a file by now."""


@dataclass(frozen=True, slots=True)
class _Level:
    name: str
    device: int
    inode: int


class Descent:
    """Where one is below `top`, an opened directory (O_PATH will do) that stays the caller's."""

    def __init__(self, top: int) -> None:
        self._top = self._here = os.open(".", _DIRECTORY, dir_fd=top)
        self._levels: list[_Level] = []

    @property
    def fd(self) -> int:
        """Of the directory; its owner is the descent."""
        return self._here

    @property
    def depth(self) -> int:
        """0 at the top."""
        return len(self._levels)

    @property
    def name(self) -> str:
        """Of the directory in the one above it; not for the top."""
        return self._levels[-1].name

    @property
    def path(self) -> str:
        """From the top, which is ""."""
        return "/".join(level.name for level in self._levels)

    def down(self, name: str) -> None:
        """Into a directory of this one. Raises OSError, of `NO_DIRECTORY` where it is none."""
        fd = os.open(name, _DIRECTORY, dir_fd=self._here)
        status = os.fstat(fd)
        self._levels.append(_Level(name, status.st_dev, status.st_ino))
        self._set(fd)

    def up(self) -> None:
        """To the directory above, or to the nearest one that is still where it was: `depth` tells."""
        self._levels.pop()
        if not self._levels:
            self._set(self._top)
            return
        above = os.open("..", _DIRECTORY, dir_fd=self._here)
        if _is(above, self._levels[-1]):
            self._set(above)
        else:
            os.close(above)
            self._again()

    def close(self) -> None:
        self._set(self._top)
        os.close(self._top)

    def _again(self) -> None:
        """By name from the top, as far as that leads to where we have been."""
        levels, self._levels = self._levels, []
        self._set(self._top)
        for level in levels:
            try:
                fd = os.open(level.name, _DIRECTORY, dir_fd=self._here)
            except NO_DIRECTORY:
                return
            if not _is(fd, level):
                os.close(fd)
                return
            self._levels.append(level)
            self._set(fd)

    def _set(self, fd: int) -> None:
        if self._here not in (fd, self._top):
            os.close(self._here)
        self._here = fd


def _is(fd: int, level: _Level) -> bool:
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino) == (level.device, level.inode)


@dataclass(slots=True)
class Place:
    """A directory of a walk, valid until the next one is asked for."""

    at: Descent
    below: list[str] = field(default_factory=list)
    """Names of the directories in it that the walk shall go into next: for who looks at it to fill in."""


def walk(top: int, missed: Callable[[str], None] = lambda path: None) -> Iterator[Place]:
    """Each directory before what is below it, the `top` first. What is moved away meanwhile is `missed`.
    Raises OSError."""
    at = Descent(top)
    try:
        pending: list[list[str]] = []
        place = Place(at)
        while True:
            yield place
            pending.append(place.below[::-1])
            while not _next(at, pending[-1], missed):
                if not at.depth:
                    return
                at.up()
                for _ in range(at.depth + 1, len(pending)):
                    for name in pending.pop():
                        missed(f"{at.path}/…/{name}")
            place = Place(at)
    finally:
        at.close()


def _next(at: Descent, names: list[str], missed: Callable[[str], None]) -> bool:
    """Goes into the first of them that is still a directory."""
    while names:
        name = names.pop()
        try:
            at.down(name)
        except NO_DIRECTORY:
            missed(f"{at.path}/{name}" if at.depth else name)
            continue
        return True
    return False
