"""Makes the entries of a tar below an opened directory: what a layer and `docker cp` have in common.

Both the entries and the tree are untrusted, and the tree may be in use. Every parent is opened inside the
root, links included, so that nothing leads out of it; every entry is made anew in its opened parent and
reached by its own descriptor from then on, never through a link that has taken its place. `..` in a name is
refused. Owners are numbers. `trusted.*` xattrs of the tar are dropped: they could redirect overlayfs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TypeVar

from hawse_agent.errors import HostRefused, InputError
from hawse_agent.images.tar import Entry
from hawse_agent.linux import files, tree
from hawse_agent.linux.descent import Descent
from hawse_agent.spec.records import IdRange

T = TypeVar("T")

_DROPPED_XATTRS = ("trusted.", "user.overlay.", "security.selinux")
"""The last is a label of the machine that built the image."""
_OPEN_DIRECTORIES = 64
_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_SPECIAL = {"character": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Entries go below `below` in `root`, which stays the caller's; directories get their times in `finish`,
    when all is in them. A directory that is there is merged with one that comes; anything else is replaced.

    `what` names the tar in messages; `owner` is who owns everything, instead of whom the tar says.
    `keep_kinds`: a directory never gives way to a file, nor a file to a directory. `ids`: those of a running
    container that counts its own; who extracts makes files as its root (`privilege.making_files_as`).
    """

    def __init__(
        self,
        root: int,
        *,
        what: str,
        below: str = "/",
        owner: tuple[int, int] | None = None,
        keep_kinds: bool = False,
        ids: IdRange | None = None,
    ) -> None:
        self._root = root
        self._what = what
        self._below = below.strip("/")
        self._owner = owner
        self._keep_kinds = keep_kinds
        self._ids = ids
        self._parents: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._at = ""
        """The entry that is being made, from the root."""
        self.content_size = 0

    def extract(self, entry: Entry, data: Iterator[bytes]) -> None:
        """Raises InputError for an entry that cannot be, HostRefused, OSError."""
        path = self._clean(entry.name)
        parent_path, _, name = path.rpartition("/")
        self._at = self._inside(path)
        if not name:
            self._top(entry)
            return
        parent = self._parent(parent_path)
        if self._is_special(parent, name, entry):
            return
        match entry.kind:
            case "file":
                self._file(parent, name, entry, data)
            case "directory":
                self._directory(parent, name, path, entry)
            case "symlink":
                self._fresh(parent, name, lambda: os.symlink(entry.link, name, dir_fd=parent))
                self._set_by_name(parent, name, entry, stat.S_IFLNK)
            case "hardlink":
                self._hardlink(parent, name, entry)
            case "character" | "block" | "fifo":
                kind = _SPECIAL[entry.kind]
                self._fresh(parent, name, lambda: os.mknod(name, kind | 0o600, entry.device, dir_fd=parent))
                self._set_by_name(parent, name, entry, kind)

    def finish(self) -> None:
        for path, mtime in self._times.items():
            with suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later entry
                fd = tree.open_in(self._root, self._inside(path), os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.utime(fd, ns=(mtime, mtime))
                finally:
                    os.close(fd)

    def close(self) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    # -- what a layer does differently -----------------------------------------------------------

    def _is_special(self, parent: int, name: str, entry: Entry) -> bool:
        """Whether the entry was no file but a word about others, and has been dealt with."""
        return False

    def _top(self, entry: Entry) -> None:
        """The entry of the root itself: the directory that things are put into stays as it is."""
        if entry.kind != "directory":
            raise InputError(f"{self._what} has an entry without a name ({entry.name!r})")

    def _took_place(self, directory: int, of: os.stat_result) -> None:
        """A directory was made where something else was."""

    # -- one kind each ---------------------------------------------------------------------------

    def _file(self, parent: int, name: str, entry: Entry, data: Iterator[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self._fresh(parent, name, lambda: os.open(name, flags, 0o600, dir_fd=parent))
        try:
            if entry.segments is None:
                for piece in data:
                    _write_with_holes(fd, piece)
                if entry.size >= _HOLE:
                    os.ftruncate(fd, entry.size)  # it may end in a hole
            else:
                _write_sparse(fd, entry, data)
            self.content_size += entry.size
            self._set(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, parent: int, name: str, path: str, entry: Entry) -> None:
        replaced = None
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            present = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(present.st_mode):
                if self._keep_kinds:
                    raise InputError(
                        f'cannot overwrite non-directory "/{self._at}" with directory "/{self._below}"'
                    ) from None
                self._remove(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
                replaced = present
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self._set(fd, entry)
            if replaced is not None:
                self._took_place(fd, replaced)
        finally:
            os.close(fd)
        self._times[path] = entry.mtime_ns

    def _hardlink(self, parent: int, name: str, entry: Entry) -> None:
        target_parent, _, target = self._clean(entry.link).rpartition("/")
        try:
            source = tree.open_in(self._root, self._inside(target_parent))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._no_target(entry) from error
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
            raise self._no_target(entry) from error
        finally:
            os.close(source)

    # -- what all have ---------------------------------------------------------------------------

    def _set(self, target: int | str, entry: Entry) -> None:
        """Owner, then mode, since a change of owner drops setuid; then capabilities, which it drops too."""
        uid, gid = self._owner or (entry.uid, entry.gid)
        if self._ids is not None:
            uid, gid = self._ids.outside(uid), self._ids.outside(gid)
        os.chown(target, uid, gid)
        if entry.kind != "symlink":
            os.chmod(target, entry.mode)
        if entry.xattrs:
            _set_xattrs(target, entry)

    def _set_by_name(self, parent: int, name: str, entry: Entry, kind: int) -> None:
        """For what cannot be opened without effect: by a path that is the inode itself, whatever has the name
        meanwhile."""
        fd = os.open(name, tree.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
                raise HostRefused(f"{entry.name!r} was replaced while it was made")
            itself = f"/proc/self/fd/{fd}"
            self._set(itself, entry)
            os.utime(itself, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _parent(self, path: str) -> int:
        """An fd of the directory; missing ones are made, links are followed inside the root."""
        fd = self._parents.get(path)
        if fd is None:
            if len(self._parents) >= _OPEN_DIRECTORIES:
                self.close()
            fd = self._open_parent(path)
            self._parents[path] = fd
        return fd

    def _open_parent(self, path: str) -> int:
        try:
            fd = tree.make_in(self._root, self._inside(path), directory=True)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
                raise
            raise InputError(f"{self._what} has an entry below {path!r}, which is no directory") from error
        refusal = None
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            refusal = f"{self._what} has an entry below {path!r}, which is no directory"
        elif files.is_of_the_kernel(fd):
            refusal = f"/{self._inside(path)} is the kernel's: nothing can be put there"
        if refusal:
            os.close(fd)
            raise InputError(refusal)
        return fd

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
        if self._keep_kinds and stat.S_ISDIR(present.st_mode):
            raise InputError(f'cannot overwrite directory "/{self._at}" with non-directory "/{self._below}"')
        _remove_all(parent, name)
        for path, fd in list(self._parents.items()):
            if fd != parent:
                os.close(fd)
                del self._parents[path]

    def _clean(self, name: str) -> str:
        """Relative to the top, without `.`; raises InputError for `..`."""
        if "\0" in name:
            raise InputError(f"{self._what} has an entry with a NUL in its name: {name!r}")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InputError(f"{self._what} has an entry that leads out of it: {name!r}")
        return "/".join(parts)

    def _inside(self, path: str) -> str:
        """The same path, from the root."""
        return f"{self._below}/{path}" if self._below else path

    def _no_target(self, entry: Entry) -> InputError:
        return InputError(
            f"{self._what} has a hard link {entry.name!r} to {entry.link!r}, which is not in it"
        )


def _remove_all(parent: int, name: str) -> None:
    """Neither through a link nor what something is mounted on, which would unmount it."""
    fd = os.open(name, tree.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
    try:
        _check_unmounted(fd, name)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        with closing(Descent(fd)) as at:
            pending = [_unlink_files(at.fd)]
            while at.depth or pending[-1]:
                if pending[-1]:
                    at.down(pending[-1].pop())
                    _check_unmounted(at.fd, at.path)
                    pending.append(_unlink_files(at.fd))
                else:
                    emptied = at.name
                    pending.pop()
                    at.up()
                    if at.depth != len(pending) - 1:
                        raise OSError(errno.EBUSY, "it is moved while it is removed", name)
                    os.rmdir(emptied, dir_fd=at.fd)
        os.rmdir(name, dir_fd=parent)
    finally:
        os.close(fd)


def _check_unmounted(fd: int, name: str) -> None:
    if files.is_mount_root(fd):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)


def _unlink_files(directory: int) -> list[str]:
    """All but directories, whose names are returned."""
    below = []
    for name in os.listdir(directory):
        fd = os.open(name, tree.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                below.append(name)
                continue
            _check_unmounted(fd, name)
        finally:
            os.close(fd)
        os.unlink(name, dir_fd=directory)
    return below


def _set_xattrs(target: int | str, entry: Entry) -> None:
    for name, value in entry.xattrs.items():
        if name.startswith(_DROPPED_XATTRS):
            continue
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            # Without capabilities a program breaks; other attributes only some file systems have, and
            # user.* none on links and devices. Docker does the same.
            if name == "security.capability" or error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _write_with_holes(fd: int, piece: bytes) -> None:
    """What is zero for long becomes a hole."""
    if 0 not in piece[:: _HOLE // 2] or (start := piece.find(_ZEROS)) < 0:
        files.write_all(fd, piece)
        return
    view = memoryview(piece)
    files.write_all(fd, view[:start])
    while start < len(piece):
        chunk = view[start : start + _HOLE]
        if chunk == _ZEROS:
            os.lseek(fd, _HOLE, os.SEEK_CUR)
        else:
            files.write_all(fd, chunk)
        start += _HOLE


def _write_sparse(fd: int, entry: Entry, data: Iterator[bytes]) -> None:
    os.ftruncate(fd, entry.size)
    segments = iter(entry.segments or ())
    offset = left = 0
    for piece in data:
        while piece:
            if not left:
                offset, left = next(segments)
                os.lseek(fd, offset, os.SEEK_SET)
            part, piece = piece[:left], piece[left:]
            files.write_all(fd, part)
            left -= len(part)
