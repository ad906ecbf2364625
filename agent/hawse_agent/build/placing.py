"""COPY and ADD: where files go below an opened root, and as whose.

    source a directory                   what is in it goes into the destination, a directory
    destination ends in / or is one      the file goes into it, by its name
    else                                 the file becomes the destination

Links in the destination are followed inside the root, the last one too; missing directories are made. As with
Docker, what is there already gives way, except that directories are merged.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import BinaryIO

from hawse_agent.build import values
from hawse_agent.build.walk import Found
from hawse_agent.errors import InputError, ProtocolError
from hawse_agent.images.compression import plain
from hawse_agent.images.extract import Extractor
from hawse_agent.images.tar import Entry, TarError, TarReader
from hawse_agent.linux import tree
from hawse_agent.runtime import identity

Owner = tuple[int, int]
_ROOT = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """How things are put somewhere. `destination` is absolute; a `/` at its end counts."""

    destination: str
    owner: Owner | None
    """None: everything keeps its own."""
    mode: values.Mode | None = None


def destination(working_directory: str, path: str) -> str:
    """Absolute and clean, but for a `/` at its end."""
    joined = posixpath.normpath(posixpath.join("/", working_directory, path))
    joined = "/" + joined.lstrip("/")
    into = path.endswith(("/", "/.")) or path == "."
    return f"{joined.rstrip('/')}/" if into else joined


def owner(root: int, chown: str) -> Owner:
    """uid and gid of `user[:group]`, names and numbers, by the root's own /etc; a user alone is its
    group, too."""
    user, colon, group = chown.partition(":")
    uid, _ = identity.owner_in(root, f"{user}:0")
    if colon and group:
        return identity.owner_in(root, f"{uid}:{group}")
    try:
        return identity.owner_in(root, f"{uid}:{user}")
    except InputError:  # no group of that name: then of that number
        return uid, uid


def put_directory(root: int, placed: Placed, found: Iterable[Found]) -> None:
    """What was missing above the destination is root's; the destination itself is as its content is."""
    target = tree.follow(root, placed.destination)
    if not is_directory(root, target):
        make_directory(root, posixpath.dirname(target))
        make_directory(root, target, placed.owner or _ROOT, placed.mode)
    _extract(root, target, placed, found)


def put_file(root: int, placed: Placed, found: Found) -> None:
    """All that was missing above it is its owner's."""
    target = tree.follow(root, placed.destination)
    name = found.entry.name
    if not placed.destination.endswith("/") and not is_directory(root, target):
        target, _, name = target.rpartition("/")
    target = make_directory(root, target or "/", placed.owner or _ROOT)
    entry = replace(found.entry, name=name)
    _extract(root, target, placed, [Found(entry=entry, data=found.data)])


def put_archive(root: int, placed: Placed, archive: BinaryIO, what: str) -> None:
    """Unpack a tar, compressed or not; owners are those that it says, unless others are wanted."""
    target = make_directory(root, placed.destination, placed.owner or _ROOT)
    extractor = Extractor(root, what=what, below=target, owner=placed.owner)
    try:
        reader = TarReader(plain(archive))
        for entry in reader:
            extractor.extract(_as_placed(entry, placed), reader.data())
        extractor.finish()
    except (TarError, EOFError) as error:
        raise InputError(f"{what}: {error}") from error
    finally:
        extractor.close()


def is_archive(file: BinaryIO) -> bool:
    """Whether its first entry can be read; the file stands at its beginning afterwards."""
    try:
        return next(iter(TarReader(plain(file))), None) is not None
    except (TarError, EOFError, ProtocolError):
        return False
    finally:
        file.seek(0)


def make_directory(root: int, path: str, who: Owner = _ROOT, mode: values.Mode | None = None) -> str:
    """With all above it that is missing, as his. Returns the path with its links followed; raises InputError
    for what is no directory."""
    real = tree.follow(root, path)
    made = ""
    for name in real.strip("/").split("/") if real != "/" else []:
        made += f"/{name}"
        if is_directory(root, made):
            continue
        parent = tree.open_in(root, posixpath.dirname(made))
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            os.chown(name, *who, dir_fd=parent, follow_symlinks=False)
            bits = 0o755 if mode is None else mode.of(0o755, directory=True)
            os.chmod(f"/proc/self/fd/{parent}/{name}", bits)
        except FileExistsError:
            raise InputError(f"{made} is no directory in the image: nothing can be put into it") from None
        finally:
            os.close(parent)
    return real


def exists(root: int, path: str) -> bool:
    """Links are followed inside the root."""
    try:
        os.close(tree.open_in(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _as_placed(entry: Entry, placed: Placed) -> Entry:
    if entry.kind in ("symlink", "hardlink"):
        return entry
    mode, xattrs = entry.mode, entry.xattrs
    if placed.owner is not None and entry.kind != "directory":
        # Docker's builder changes owners last, and with that the kernel takes these away.
        mode &= ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
        xattrs = {name: value for name, value in xattrs.items() if name != "security.capability"}
    if placed.mode is not None:
        mode = placed.mode.of(mode, directory=entry.kind == "directory")
    return replace(entry, mode=mode, xattrs=xattrs)


def _extract(root: int, target: str, placed: Placed, several: Iterable[Found]) -> None:
    extractor = Extractor(root, what="the build", below=target, owner=placed.owner)
    try:
        for found in several:
            extractor.extract(_as_placed(found.entry, placed), found.data)
        extractor.finish()
    finally:
        extractor.close()


def is_directory(root: int, path: str) -> bool:
    try:
        fd = tree.open_in(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
