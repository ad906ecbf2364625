"""The first-use copy: what an image has at a path, with owners, modes, times, attributes and links.

The image's layers are stacked by the kernel in a mount that nobody else sees, and the path is resolved
inside of it, so a link in an image cannot make the host's files be copied.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hawse_agent.linux import apart, mount, tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 24
_LEFT_OUT = ("trusted.overlay.", "security.selinux")


def copy(layers: tuple[Path, ...], target: str, into: Path) -> bool:
    """Copy the directory `target` of the image; False when the image has no directory there."""
    root = _open_root(layers, into)
    try:
        source = tree.open_in(root, target.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    finally:
        os.close(root)
    destination = os.open(into, _DIRECTORY)
    try:
        _Copier(destination).directory(source, destination, "")
    finally:
        os.close(source)
        os.close(destination)
    return True


def copy_attributes(source: int | str, target: int | str) -> None:
    """Owner before mode, since a change of owner drops setuid; then attributes, which hold capabilities.
    A path is never followed when it is a link."""
    follow = isinstance(source, int)
    status = os.stat(source, follow_symlinks=follow)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=follow)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=follow):
        if name.startswith(_LEFT_OUT):
            continue
        try:
            value = os.getxattr(source, name, follow_symlinks=follow)
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.ENOTSUP:  # the volume's file system may know fewer kinds
                raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=follow)


def _open_root(layers: tuple[Path, ...], point: Path) -> int:
    """The layers as one tree; one layer alone is that tree already. Returns an owned fd."""
    if len(layers) == 1:
        return os.open(layers[0], _DIRECTORY)

    def stacked() -> int:
        apart.own_mounts()
        apart.stack([str(layer) for layer in layers], str(point), flags=mount.MS_RDONLY)
        return mount.clone(str(point))

    return apart.in_thread(stacked)


class _Copier:
    def __init__(self, top: int) -> None:
        self._top = top
        self._links: dict[tuple[int, int], str] = {}
        """First copy of each file that has several names, as a path from the top."""

    def directory(self, source: int, target: int, path: str) -> None:
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            here = f"{path}{name}"
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                inner = os.open(name, _DIRECTORY, dir_fd=source)
                made = os.open(name, _DIRECTORY, dir_fd=target)
                try:
                    self.directory(inner, made, f"{here}/")
                finally:
                    os.close(inner)
                    os.close(made)
            elif first := self._links.get((status.st_dev, status.st_ino)):
                os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
            elif not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):  # a layer's whiteout
                if status.st_nlink > 1:
                    self._links[status.st_dev, status.st_ino] = here
                _copy_one(source, target, name, status)
        copy_attributes(source, target)


def _copy_one(source: int, target: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        write = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while os.sendfile(write, read, None, _PIECE):
                pass
            copy_attributes(read, write)
        finally:
            os.close(read)
            os.close(write)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    copy_attributes(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}")
