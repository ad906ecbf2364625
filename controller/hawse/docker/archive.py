"""Files of this machine as tar streams, and back: what `cp` sends and receives. Nothing is held in memory.

What a container sends is not trusted: every directory on the way to an entry is opened without following
links, so that nothing is written outside of where it was asked for; owners are ours, and no file becomes
set-uid or set-gid.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from hawse.docker import copying
from hawse.docker.copying import Destination, Placement, Source
from hawse_agent.errors import HostRefused, InputError, ProtocolError

_PIECE = 256 * 1024
_MOST_LINKS = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# what is here


def source(path: str, *, follow: bool) -> Source:
    """A file or tree to copy. Links on the way are followed, one at the end of `path` when `follow`."""
    absolute = _absolute(path)
    try:
        if follow:
            real, name = copying.followed(absolute, os.path.realpath(absolute, strict=True))
        else:
            directory, base = os.path.split(absolute)
            real = f"{os.path.realpath(directory, strict=True).rstrip('/')}/{base}"
            renamed = absolute.endswith("/") and copying.last(absolute) != copying.last(real)
            name = copying.last(absolute) if renamed else ""
        found = os.lstat(real)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    return Source(path=real, is_directory=stat.S_ISDIR(found.st_mode), name=name)


def destination(path: str) -> Destination:
    """Where to copy to: a link at the end is followed, also to what is not there yet."""
    absolute = _absolute(path)
    parent = Path(copying.entry(absolute)[0])
    if not parent.is_dir():
        raise InputError(f"invalid output path: directory {str(parent)!r} does not exist")
    for _ in range(_MOST_LINKS):
        try:
            target = os.readlink(absolute)
        except FileNotFoundError:
            return Destination(path=absolute)
        except OSError:  # no link
            mode = os.stat(absolute).st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise InputError(
                    f"invalid output path: {path!r} must be a directory or a regular file"
                ) from None
            return Destination(path=absolute, exists=True, is_directory=stat.S_ISDIR(mode))
        absolute = copying.beside(absolute, target)
    raise InputError(f"too many links in {path}")


def _absolute(path: str) -> str:
    """`/` and `/.` at its end stay: they say what is meant."""
    whole = os.path.abspath(path)
    if copying.is_current(path) and path:
        return f"{whole.rstrip('/')}/."
    return f"{whole.rstrip('/')}/" if path.endswith("/") else whole


# packing


def packed(source: Source, placement: Placement) -> Iterator[bytes]:
    """A tar of it, its entries named as the placement says."""
    top = "/".join(placement.renamed(source.base)) or "."
    return tar_of(_walk(source.path.rstrip("/") or "/", top))


def tar_of(
    files: Iterable[tuple[str, str]], *, change: Callable[[tarfile.TarInfo], None] = lambda entry: None
) -> Iterator[bytes]:
    """A tar of files, each with its name in it; `change` may alter their entries."""
    seen: dict[tuple[int, int], str] = {}
    for path, name in files:
        try:
            found = os.lstat(path)
            info = _info(path, name, found)
        except OSError as error:
            raise HostRefused(f"{path}: {error.strerror}") from error
        if info is None:
            continue
        change(info)
        if found.st_nlink > 1 and info.isreg():
            first = seen.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg() and info.size:
            yield from _content(path, info.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    """A file, or a directory before what is in it."""
    pending = [(path, name)]
    while pending:
        path, name = pending.pop()
        yield path, name
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                names = sorted(os.listdir(path), reverse=True)
                pending += [(f"{path}/{each}", f"{name}/{each}") for each in names]
        except OSError as error:
            raise HostRefused(f"{path}: {error.strerror}") from error


def _info(path: str, name: str, found: os.stat_result) -> tarfile.TarInfo | None:
    """None for a socket, which no archive can hold."""
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.mtime = found.st_mtime
    match stat.S_IFMT(found.st_mode):
        case stat.S_IFREG:
            info.size = found.st_size
        case stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
        case stat.S_IFLNK:
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        case stat.S_IFIFO:
            info.type = tarfile.FIFOTYPE
        case stat.S_IFCHR | stat.S_IFBLK as kind:
            info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        case _:
            return None
    return info


def _content(path: str, size: int) -> Iterator[bytes]:
    """As many bytes as were announced: of a file that grows no more, of one that shrinks an error."""
    left = size
    try:
        with open(path, "rb") as file:
            while left and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece
    except OSError as error:
        raise HostRefused(f"{path}: {error.strerror}") from error
    if left:
        raise HostRefused(f"{path}: it has become shorter while it was copied")
    yield bytes(-size % tarfile.BLOCKSIZE)


# unpacking


def unpack(chunks: Iterable[bytes], placement: Placement) -> None:
    """Puts the entries of a tar where the placement says."""
    root = os.open(placement.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    directories: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _Reader(chunks)), mode="r|", bufsize=_PIECE) as tar:
            for info in tar:
                parts = placement.renamed(info.name)
                if not parts:
                    continue
                with _at(root, parts[:-1]) as parent:
                    if info.isdir():
                        _make_directory(parent, parts)
                        directories.append((parts, info))
                    else:
                        _make_other(parent, parts, info, tar, root, placement)
        for parts, info in reversed(directories):
            with _at(root, parts) as directory:
                os.fchmod(directory, info.mode & 0o1777)
                _set_time(directory, info)
    except tarfile.TarError as error:
        raise ProtocolError(f"what the agent sent is no tar: {error}") from error
    except OSError as error:
        raise HostRefused(f"{placement.directory}: {error.strerror}: {error.filename or ''}") from error
    finally:
        os.close(root)


@contextlib.contextmanager
def _at(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """The directory with this path below `root`, made where it is missing. No link is followed."""
    current = os.dup(root)
    try:
        for part in parts:
            try:
                below = os.open(part, _DIRECTORY, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=current)
                below = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _make_directory(parent: int, parts: tuple[str, ...]) -> None:
    name = parts[-1]
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            shown = "/".join(parts)
            raise HostRefused(f"cannot overwrite non-directory {shown!r} with a directory") from None


def _make_other(
    parent: int,
    parts: tuple[str, ...],
    info: tarfile.TarInfo,
    tar: tarfile.TarFile,
    root: int,
    placement: Placement,
) -> None:
    """A file, link or device, in the place of one that is there already."""
    name = parts[-1]
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            shown = "/".join(parts)
            raise HostRefused(f"cannot overwrite directory {shown!r} with a non-directory")
        os.unlink(name, dir_fd=parent)
    if info.isreg():
        _make_file(parent, name, info, tar)
    elif info.issym():
        os.symlink(info.linkname, name, dir_fd=parent)
        _set_time(name, info, parent)
    elif info.islnk():
        target = placement.renamed(info.linkname)
        if not target:
            raise ProtocolError(f"an archive has a link to its directory: {info.name!r}")
        with _at(root, target[:-1]) as there:
            os.link(target[-1], name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
    elif info.isfifo():
        os.mkfifo(name, info.mode & 0o777, dir_fd=parent)
    elif info.ischr() or info.isblk():
        kind = stat.S_IFCHR if info.ischr() else stat.S_IFBLK
        device = os.makedev(info.devmajor, info.devminor)
        os.mknod(name, kind | info.mode & 0o777, device, dir_fd=parent)
    else:
        raise ProtocolError(f"an archive has an entry of an unknown kind: {info.name!r}")


def _make_file(parent: int, name: str, info: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    content = tar.extractfile(info)
    with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        while content is not None and (piece := content.read(_PIECE)):
            file.write(piece)
        file.flush()
        os.fchmod(file.fileno(), info.mode & 0o777)
        _set_time(file.fileno(), info)


def _set_time(file: int | str, info: tarfile.TarInfo, parent: int | None = None) -> None:
    nanoseconds = int(info.mtime * 1_000_000_000)
    times = (nanoseconds, nanoseconds)
    if isinstance(file, int):
        os.utime(file, ns=times)
    else:
        os.utime(file, ns=times, dir_fd=parent, follow_symlinks=False)


class _Reader:
    """Chunks as a file that is read once."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while not self._rest:
            piece = next(self._chunks, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
