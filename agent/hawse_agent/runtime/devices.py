"""Device nodes of a container: the default set, those asked for, all of the host's when privileged."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from hawse_agent.errors import HostRefused, InputError
from hawse_agent.linux import mount, tree
from hawse_agent.spec.runtime import RuntimeConfig

_DEFAULT = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_NOT_THE_HOSTS = frozenset(("pts", "shm", "fd", "mqueue", "console", "ptmx", "stdin", "stdout", "stderr"))


def make_default_nodes(dev_fd: int) -> None:
    for name, (major, minor) in _DEFAULT.items():
        _make_node(dev_fd, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), source=f"/dev/{name}")
    for name, target in _LINKS.items():
        os.symlink(target, name, dir_fd=dev_fd)
    if os.path.exists("/proc/kcore"):
        os.symlink("/proc/kcore", "core", dir_fd=dev_fd)


def make_wanted_nodes(root_fd: int, config: RuntimeConfig) -> None:
    """Copies of the host's nodes, with their owner and mode."""
    if config.privileged:
        for source in _host_nodes("/dev", skip=_NOT_THE_HOSTS):
            _copy_node(root_fd, source, source)
    for device in config.devices:
        if not os.path.isdir(device.host):
            _copy_node(root_fd, device.host, device.target)
            continue
        for source in _host_nodes(device.host):
            _copy_node(root_fd, source, device.target + source.removeprefix(device.host.rstrip("/")))


def _host_nodes(directory: str, skip: frozenset[str] = frozenset()) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in skip:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _host_nodes(entry.path)
            elif _is_device(entry.stat(follow_symlinks=False).st_mode):
                yield entry.path


def _copy_node(root_fd: int, source: str, target: str) -> None:
    try:
        status = os.stat(source)
    except FileNotFoundError:
        raise InputError(f"no such device: {source}") from None
    if not _is_device(status.st_mode):
        raise InputError(f"{source} is not a device node")
    parent, _, name = target.strip("/").rpartition("/")
    if not name:
        raise InputError(f"device target {target!r} is not a path")
    parent_fd = tree.make_in(root_fd, parent, directory=True)
    try:
        if _make_node(parent_fd, name, status.st_mode, status.st_rdev, source=source):
            os.chown(name, status.st_uid, status.st_gid, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def _make_node(dir_fd: int, name: str, mode: int, number: int, *, source: str) -> bool:
    """False when the node was there already, or had to be bound from the host."""
    try:
        os.mknod(name, mode, number, dir_fd=dir_fd)
    except FileExistsError:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode) or status.st_rdev != number:
            raise HostRefused(f"{name} exists in the container and is another thing than {source}") from None
        return False
    except PermissionError:  # a user namespace, or the agent's own device cgroup
        target = tree.make_in(dir_fd, name, directory=False)
        fd = mount.clone(source)
        mount.attach(fd, target)
        os.close(fd)
        os.close(target)
        return False
    return True


def _is_device(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
