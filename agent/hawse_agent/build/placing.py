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
from hawse_agent.images.tar import TarError, TarReader
from hawse_agent.linux import tree
from hawse_agent.runtime import identity

Owner = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """How things are put somewhere. `destination` is absolute; a `/` at its end counts."""

    destination: str
    owner: Owner | None
    """None: everything keeps its own."""
    mode: values.Mode | None = None

    @property
    def maker(self) -> Owner:
        """Who owns directories that have to be made."""
        return self.owner or (0, 0)


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
    """Directories above the destination are root's; the destination, if it is made, is as what is copied."""
    target = tree.follow(root, placed.destination)
    if not is_directory(root, target):
        make_directory(root, posixpath.dirname(target))
        _directory(root, target, placed)
        if placed.mode is not None:
            fd = tree.open_in(root, target)
            try:
                os.chmod(f"/proc/self/fd/{fd}", placed.mode.of(0o755, directory=True))
            finally:
                os.close(fd)
    _extract(root, target, placed, found)


def put_file(root: int, placed: Placed, found: Found) -> None:
    target = tree.follow(root, placed.destination)
    if placed.destination.endswith("/") or is_directory(root, target):
        target = _directory(root, target, placed)
        name = found.entry.name
    else:
        parent, _, name = target.rpartition("/")
        target = _directory(root, parent or "/", placed)
    entry = replace(found.entry, name=name)
    _extract(root, target, placed, [Found(entry=entry, data=found.data)])


def put_archive(root: int, placed: Placed, archive: BinaryIO, what: str) -> None:
    """Unpack a tar, compressed or not. Owners are those that it says, whatever others are wanted, as with
    dockerd."""
    target = _directory(root, placed.destination, replace(placed, owner=None))
    extractor = Extractor(root, what=what, below=target)
    try:
        reader = TarReader(plain(archive))
        for entry in reader:
            if placed.mode is not None and entry.kind not in ("symlink", "hardlink"):
                entry.mode = placed.mode.of(entry.mode, directory=entry.kind == "directory")
            extractor.extract(entry, reader.data())
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


def make_directory(root: int, path: str, who: Owner = (0, 0)) -> None:
    """With all above it that is missing. Raises InputError for what is no directory."""
    _directory(root, path, Placed(destination=path, owner=who))


def exists(root: int, path: str) -> bool:
    """Links are followed inside the root."""
    try:
        os.close(tree.open_in(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _extract(root: int, target: str, placed: Placed, several: Iterable[Found]) -> None:
    extractor = Extractor(root, what="the build", below=target, owner=placed.owner)
    try:
        for found in several:
            entry = found.entry
            if placed.mode is not None and entry.kind not in ("symlink", "hardlink"):
                entry = replace(entry, mode=placed.mode.of(entry.mode, directory=entry.kind == "directory"))
            elif placed.owner is not None and entry.kind == "file":
                # dockerd gives files away after it has set their modes, which takes set-id bits off them.
                entry = replace(entry, mode=entry.mode & ~(stat.S_ISUID | stat.S_ISGID))
            extractor.extract(entry, found.data)
        extractor.finish()
    finally:
        extractor.close()


def _directory(root: int, path: str, placed: Placed) -> str:
    """The path with its links followed; a directory is there then."""
    real = tree.follow(root, path)
    made = ""
    for name in real.strip("/").split("/") if real != "/" else []:
        made += f"/{name}"
        if is_directory(root, made):
            continue
        parent = tree.open_in(root, posixpath.dirname(made))
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            os.chown(name, *placed.maker, dir_fd=parent, follow_symlinks=False)
            os.chmod(f"/proc/self/fd/{parent}/{name}", 0o755)  # whatever the umask
        except FileExistsError:
            raise InputError(f"{made} is no directory in the image: nothing can be put into it") from None
        finally:
            os.close(parent)
    return real


def is_directory(root: int, path: str) -> bool:
    try:
        fd = tree.open_in(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
