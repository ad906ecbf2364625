"""Where `cp` puts what it copies: Docker's rules for paths, which cp's own are. Pure.

SRC a file   DST missing                its name is DST's
             DST missing, DST/ asked    an error
             DST a file                 it replaces that
             DST a directory            it goes in there
SRC a tree   DST missing                it becomes DST
             DST a file                 an error
             DST a directory            it goes in there; of SRC/. only what is in it
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from hawse_agent.errors import InputError, ProtocolError


@dataclass(frozen=True, kw_only=True)
class Source:
    """`name` is what it keeps being called when a link was followed to it."""

    path: str
    is_directory: bool
    name: str = ""

    @property
    def base(self) -> str:
        """What the entries of its archive begin with."""
        return entry(self.path)[1]


@dataclass(frozen=True, kw_only=True)
class Destination:
    path: str
    exists: bool = False
    is_directory: bool = False


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an archive is unpacked, and what its entries, which begin with `base`, begin with then (`name`,
    unless it is empty)."""

    directory: str
    base: str
    name: str = ""

    def renamed(self, path: str) -> tuple[str, ...]:
        """The parts of an entry's path below the directory; none for the directory itself."""
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if ".." in parts:
            raise ProtocolError(f"an archive leads out of its directory: {path!r}")
        if not self.name:
            return parts
        if self.base in (".", "/"):
            return (self.name, *parts)
        if parts[:1] != (self.base,):
            raise ProtocolError(f"an archive of {self.base!r} has {path!r} in it")
        return (self.name, *parts[1:])


def split(text: str) -> tuple[str, str]:
    """`CONTAINER:PATH`; the container is empty for a path here: `/a:b`, `./a:b`, `a`."""
    container, colon, path = text.partition(":")
    if text.startswith("/") or not colon or container.startswith("."):
        return "", text
    return container, path


def placed(source: Source, destination: Destination) -> Placement:
    directory, name = entry(destination.path)
    if destination.exists and destination.is_directory:
        return Placement(directory=destination.path, base=source.base, name=source.name)
    if destination.exists and source.is_directory:
        raise InputError("cannot copy a directory onto a file", where=destination.path)
    if not destination.exists and not source.is_directory and asks_for_directory(destination.path):
        raise InputError("no such directory", where=destination.path)
    return Placement(directory=directory, base=source.base, name=name)


def entry(path: str) -> tuple[str, str]:
    """The directory that a path is in, and its name there: `.` for what is in `path/.`."""
    clean = normal(path)
    if is_current(path):
        return clean, "."
    return posixpath.dirname(clean) or ".", posixpath.basename(clean) or "/"


def followed(path: str, target: str) -> tuple[str, str]:
    """What is copied for a link that is followed: its target, as `path` is asked for (`/`, `/.`), and the
    name that it keeps, if that is another one."""
    if is_current(path) and not is_current(target):
        target += "/."
    if path.endswith("/") and not target.endswith("/"):
        target += "/"
    return target, "" if last(path) == last(target) else last(path)


def beside(path: str, target: str) -> str:
    """Where the link `path` leads to."""
    return target if target.startswith("/") else normal(posixpath.join(entry(path)[0], target))


def asks_for_directory(path: str) -> bool:
    return path.endswith("/") or is_current(path)


def is_current(path: str) -> bool:
    return last(path) == "."


def last(path: str) -> str:
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def normal(path: str) -> str:
    return posixpath.normpath(path).replace("//", "/")
