"""Unpacks a layer's tar into a directory that overlayfs can stack.

The entries are untrusted. Every path is resolved below the layer's own directory, links included, so that
nothing is ever opened through a link that leads out. `..` in a name is refused. Whiteouts become what
overlayfs knows: `.wh.NAME` a character device 0:0, `.wh..wh..opq` the xattr trusted.overlay.opaque.
`trusted.*` xattrs of the tar are dropped: an image could otherwise redirect overlayfs.

A layer is complete or absent: the caller unpacks into a temporary directory and renames it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from hawse_agent.errors import InputError, ProtocolError
from hawse_agent.images.compression import Readable, plain
from hawse_agent.images.tar import Entry, TarError, TarReader
from hawse_agent.linux import tree

T = TypeVar("T")

_OPAQUE = "trusted.overlay.opaque"
_WHITEOUT = ".wh."
_WHITEOUT_OPAQUE = ".wh..wh..opq"
_WHITEOUT_META = ".wh..wh."
"""aufs kept its own files under such names; Docker skips them."""
_DROPPED_XATTRS = ("trusted.", "user.overlay.", "security.selinux")
"""The last is a label of the machine that built the image."""
_OPEN_DIRECTORIES = 64


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    diff_id: str
    tar_size: int
    """Bytes of the uncompressed tar."""
    content_size: int
    """Bytes of its files: what Docker calls the size of a layer."""


def unpack(blob: BinaryIO, directory: Path) -> Unpacked:
    """Unpack a layer, compressed or not, into an empty `directory`.

    Raises ProtocolError for damaged data, InputError for an entry that no layer may have, OSError.
    """
    source = _Hashed(plain(blob))
    reader = TarReader(source)
    extractor = Extractor(directory)
    try:
        for entry in reader:
            extractor.extract(entry, reader)
        extractor.finish()
        reader.drain()
    except (TarError, EOFError) as error:
        raise ProtocolError(f"{error}") from error
    finally:
        extractor.close()
    return Unpacked(diff_id=source.digest, tar_size=source.size, content_size=extractor.content_size)


def digest_plain(blob: Readable) -> tuple[str, int]:
    """The diff_id and the size of what is inside a blob, without unpacking it."""
    source = _Hashed(plain(blob))
    while source.read(1 << 20):
        pass
    return source.digest, source.size


class _Hashed:
    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data


class Extractor:
    """Writes entries below a directory; directories get their times in `finish`, when all is in them."""

    def __init__(self, directory: Path) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parents: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self.content_size = 0

    def extract(self, entry: Entry, reader: TarReader) -> None:
        path = _clean(entry.name)
        parent_path, _, name = path.rpartition("/")
        if not name:
            self._set_root(entry)
            return
        parent = self._parent(parent_path)
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name, entry)
            return
        match entry.kind:
            case "file":
                self._file(parent, name, entry, reader)
            case "directory":
                self._directory(parent, name, path, entry)
            case "symlink":
                self._fresh(parent, name, lambda: os.symlink(entry.link, name, dir_fd=parent))
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
                self._set_by_name(parent, name, entry)
            case "hardlink":
                self._hardlink(parent, name, entry)
            case "character" | "block" | "fifo":
                kind = {"character": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}[entry.kind]
                self._fresh(parent, name, lambda: os.mknod(name, kind | 0o600, entry.device, dir_fd=parent))
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
                os.chmod(name, entry.mode, dir_fd=parent)  # made just now, so it is no link
                self._set_by_name(parent, name, entry)

    def finish(self) -> None:
        for path, mtime in self._times.items():
            with suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later entry
                fd = tree.open_in(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.utime(fd, ns=(mtime, mtime))
                finally:
                    os.close(fd)

    def close(self) -> None:
        self._forget_parents()
        os.close(self._root)

    # -- one kind each ---------------------------------------------------------------------------

    def _file(self, parent: int, name: str, entry: Entry, reader: TarReader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self._fresh(parent, name, lambda: os.open(name, flags, 0o600, dir_fd=parent))
        try:
            if entry.segments is None:
                for piece in reader.data():
                    _write(fd, piece)
            else:
                _write_sparse(fd, entry, reader)
            self.content_size += entry.size
            self._set(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, parent: int, name: str, path: str, entry: Entry) -> None:
        opaque = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            present = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(present.st_mode):
                # `.wh.x` before `x/`: the directory hides the lower one whole.
                opaque = _is_whiteout(present)
                self._remove(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._set(fd, entry)
            if opaque:
                os.setxattr(fd, _OPAQUE, b"y")
        finally:
            os.close(fd)
        self._times[path] = entry.mtime_ns

    def _set_root(self, entry: Entry) -> None:
        if entry.kind != "directory":
            raise InputError(f"the layer has an entry without a name ({entry.name!r})")
        self._set(self._root, entry)
        self._times[""] = entry.mtime_ns

    def _hardlink(self, parent: int, name: str, entry: Entry) -> None:
        target_parent, _, target = _clean(entry.link).rpartition("/")
        try:
            source = tree.open_in(self._root, target_parent)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_target(entry) from error
        try:
            present = os.stat(target, dir_fd=source, follow_symlinks=False)
            with suppress(FileNotFoundError):
                if os.path.samestat(present, os.stat(name, dir_fd=parent, follow_symlinks=False)):
                    return  # a link to itself
            self._fresh(
                parent,
                name,
                lambda: os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False),
            )
        except FileNotFoundError as error:
            raise _no_target(entry) from error
        finally:
            os.close(source)

    def _whiteout(self, parent: int, name: str, entry: Entry) -> None:
        if name == _WHITEOUT_OPAQUE:
            os.setxattr(_by_fd(parent), _OPAQUE, b"y")
            return
        if name.startswith(_WHITEOUT_META):
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise InputError(f"the layer has an invalid whiteout: {entry.name!r}")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # A whiteout hides what lower layers have, never what this layer has, whichever comes first.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                os.setxattr(f"{_by_fd(parent)}/{hidden}", _OPAQUE, b"y", follow_symlinks=False)

    # -- what all have ---------------------------------------------------------------------------

    def _set(self, fd: int, entry: Entry) -> None:
        """Owner, then mode, since a change of owner drops setuid; then capabilities, which it drops too."""
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            _set_xattrs(fd, entry)

    def _set_by_name(self, parent: int, name: str, entry: Entry) -> None:
        if entry.xattrs:
            _set_xattrs(f"{_by_fd(parent)}/{name}", entry)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _parent(self, path: str) -> int:
        """An fd of the directory; missing ones are made, links are followed inside the layer."""
        fd = self._parents.get(path)
        if fd is None:
            if len(self._parents) >= _OPEN_DIRECTORIES:
                self._forget_parents()
            fd = self._open_parent(path)
            self._parents[path] = fd
        return fd

    def _open_parent(self, path: str) -> int:
        try:
            fd = tree.make_in(self._root, path, directory=True)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
                raise
            raise InputError(f"the layer has an entry below {path!r}, which is no directory") from error
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise InputError(f"the layer has an entry below {path!r}, which is no directory")
        return fd

    def _forget_parents(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def _fresh(self, parent: int, name: str, make: Callable[[], T]) -> T:
        """Make it; a later entry of the same name replaces the earlier one."""
        try:
            return make()
        except FileExistsError:
            self._remove(parent, name)
            return make()

    def _remove(self, parent: int, name: str) -> None:
        """Whatever is there. Opened directories below it, or reached through it, are out of date then."""
        present = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(present.st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        for path, fd in list(self._parents.items()):
            if fd != parent:
                os.close(fd)
                del self._parents[path]


def _clean(name: str) -> str:
    """Relative to the root, without `.`; raises InputError for `..`."""
    if "\0" in name:
        raise InputError(f"the layer has an entry with a NUL in its name: {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InputError(f"the layer has an entry that leads out of it: {name!r}")
    return "/".join(parts)


def _by_fd(fd: int) -> str:
    """Some calls take no O_PATH fd, but its path."""
    return f"/proc/self/fd/{fd}"


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _no_target(entry: Entry) -> InputError:
    return InputError(f"the layer has a hard link {entry.name!r} to {entry.link!r}, which is not in it")


def _set_xattrs(target: int | str, entry: Entry) -> None:
    for name, value in entry.xattrs.items():
        if name.startswith(_DROPPED_XATTRS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            # Without capabilities a program breaks; other attributes only some file systems have, and
            # user.* none on links and devices. Docker does the same.
            if name == "security.capability" or error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def _write_sparse(fd: int, entry: Entry, reader: TarReader) -> None:
    os.ftruncate(fd, entry.size)
    segments = iter(entry.segments or ())
    offset = left = 0
    for piece in reader.data():
        while piece:
            if not left:
                offset, left = next(segments)
                os.lseek(fd, offset, os.SEEK_SET)
            part, piece = piece[:left], piece[left:]
            _write(fd, part)
            left -= len(part)
