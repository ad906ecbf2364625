"""A container's root as the daemon sees it: an opened directory, below which `linux.tree` resolves paths.

    running   the root of PID 1's mounts, with volumes, binds and tmpfs as the container has them
    bare      the same root without what is mounted on it
    stopped   layers and upper directory stacked once more, with its binds, where nobody else sees them
    written   the same without the binds
    image     the layers alone

Nothing of a container is executed or loaded here, and no path of it is looked up on the host
(CVE-2018-15664, CVE-2019-14271). What is mounted for a view is gone with the view's descriptor, even when the
daemon is killed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from hawse_agent.linux import apart, mount, tree
from hawse_agent.runtime import mounts
from hawse_agent.spec.runtime import BindMount

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CLOSED = mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What a container's root is made of, on the disk."""

    home: str
    """The container's directory, with `upper` and `work`; `root` in it is what is mounted on."""
    layers: tuple[str, ...]
    """Topmost first."""
    binds: tuple[BindMount, ...] = ()
    read_only: bool = False

    @property
    def upper(self) -> str:
        return f"{self.home}/upper"

    @property
    def point(self) -> str:
        return f"{self.home}/root"


def running(pidfd: int) -> int:
    """Returns an owned fd. Raises ProcessLookupError when the process has ended."""

    def enter() -> int:
        apart.enter_mounts(pidfd)
        return os.open("/", _PATH)

    return apart.in_thread(enter)


def bare(pidfd: int) -> int:
    """Returns an owned fd. Raises ProcessLookupError when the process has ended."""

    def enter() -> int:
        apart.enter_mounts(pidfd)
        return mount.clone("/")

    return apart.in_thread(enter)


def image(stack: Stack) -> int:
    """The layers alone, to compare with. Returns an owned fd."""

    def make() -> int:
        apart.own_mounts()
        if len(stack.layers) == 1:
            return mount.clone(stack.layers[0])
        apart.stack(stack.layers, stack.point, flags=mount.MS_RDONLY)
        return mount.clone(stack.point)

    return _made(stack, make)


def written(stack: Stack) -> int:
    """The root without what is mounted on it, to read. Returns an owned fd."""

    def make() -> int:
        apart.own_mounts()
        apart.stack((stack.upper, *stack.layers), stack.point, flags=mount.MS_RDONLY)
        return mount.clone(stack.point)

    return _made(stack, make)


def stopped(stack: Stack) -> int:
    """To read: its own upper directory is only one more layer here, so that a start meanwhile does no harm,
    and what is missing to mount on is made in memory. Returns an owned fd."""

    def make() -> int:
        apart.own_mounts()
        scratch = mount.new("tmpfs", options=("mode=700", "size=4m"))
        _attach(scratch, os.open(stack.point, _PATH))
        upper, work, point = (f"{stack.point}/{name}" for name in ("upper", "work", "root"))
        for directory in (upper, work, point):
            os.mkdir(directory)
        apart.stack((stack.upper, *stack.layers), point, upper=upper, work=work)
        fd = _with_binds(stack, point)
        look_alike(stack.upper, upper)
        return fd

    return _made(stack, make)


def stopped_to_write(stack: Stack) -> int:
    """What is written is the container's. It must not be started meanwhile. Returns an owned fd."""

    def make() -> int:
        apart.own_mounts()
        apart.stack(stack.layers, stack.point, upper=stack.upper, work=f"{stack.home}/work")
        fd = _with_binds(stack, stack.point)
        if stack.read_only:
            mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY)
        return fd

    return _made(stack, make)


def _made(stack: Stack, make: Callable[[], int]) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(stack.point, 0o700)
    fd = apart.in_thread(make)
    try:
        mount.set_attributes(fd, _CLOSED, recursive=True)
    except OSError:
        os.close(fd)
        raise
    return fd


def _with_binds(stack: Stack, point: str) -> int:
    """Mounts them as a start does, parents first; a source that is gone is left out."""
    root = os.open(point, _PATH)
    try:
        for bind in sorted(stack.binds, key=lambda bind: bind.target.rstrip("/").count("/")):
            try:
                source = mounts.clone_source(bind)
            except FileNotFoundError:
                continue
            directory = stat.S_ISDIR(os.fstat(source).st_mode)
            target = tree.make_in(root, bind.target, directory=directory)
            attributes = mount.MOUNT_ATTR_RDONLY if bind.read_only else 0
            mount.set_attributes(source, attributes, propagation=mount.MS_PRIVATE, recursive=True)
            if stat.S_ISDIR(os.fstat(target).st_mode) == directory:
                _attach(source, target)
            else:
                os.close(source)
                os.close(target)
        return mount.clone(point, recursive=True)
    finally:
        os.close(root)


def _attach(fd: int, target: int) -> None:
    """Attach and close both."""
    try:
        mount.attach(fd, target)
    finally:
        os.close(fd)
        os.close(target)


def look_alike(one: str, other: str) -> None:
    status = os.stat(one)
    os.chown(other, status.st_uid, status.st_gid)
    os.chmod(other, stat.S_IMODE(status.st_mode))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
