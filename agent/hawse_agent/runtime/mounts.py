"""Mounts below a container's root: proc, sys, dev, cgroups, binds, tmpfs, masks.

Every target is opened inside the root first, and the mount is attached to what was opened: no link of an
image or volume leads out.

(CVE-2021-30465, CVE-2019-19921, CVE-2023-27561, CVE-2025-31133, CVE-2026-41579 are what comes of doing it
by path.)
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

from hawse_agent.errors import HostRefused, InputError
from hawse_agent.linux import mount, namespace, tree
from hawse_agent.runtime import tmpfs
from hawse_agent.spec.runtime import BindMount, RuntimeConfig, TmpfsMount
from hawse_agent.spec.volume import Propagation

_SAFE = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC

_PROPAGATION: Mapping[Propagation, tuple[int, bool]] = {
    "private": (mount.MS_PRIVATE, False),
    "rprivate": (mount.MS_PRIVATE, True),
    "slave": (mount.MS_SLAVE, False),
    "rslave": (mount.MS_SLAVE, True),
    "shared": (mount.MS_SHARED, False),
    "rshared": (mount.MS_SHARED, True),
}

PROC_TARGETS = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)
"""What may be mounted below /proc: the files that lxcfs replaces."""

_NULL_DEVICE = os.makedev(1, 3)
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_OVERLAY_OPTIONS = "index=off,redirect_dir=nofollow,metacopy=off"
"""redirect_dir=nofollow: an image's xattr must not redirect a lookup into another layer's directory."""
_NONE: Mapping[str, int] = {}


def user_targets(config: RuntimeConfig) -> frozenset[str]:
    """Where the spec mounts something itself: there the default mount is left out."""
    return frozenset(
        "/" + mounted.target.strip("/") for several in (config.binds, config.tmpfs) for mounted in several
    )


def keep_to_ourselves(config: RuntimeConfig) -> None:
    """End the propagation of mounts between the host and this mount namespace, as far as no bind needs it."""
    wanted = {bind.propagation.lstrip("r") for bind in config.binds}
    if "shared" in wanted:
        return  # binds stay peers of the host's mounts; the container's root is made private by itself
    flag = mount.MS_SLAVE if "slave" in wanted else mount.MS_PRIVATE
    mount.mount("none", "/", None, flag | mount.MS_REC)


def make_private(path: str) -> None:
    """Make the mount that `path` lies on private, in this namespace: what we mount there stays here."""
    while True:
        try:
            mount.mount("none", path, None, mount.MS_PRIVATE)
            return
        except OSError:
            if path == "/":
                raise
            path = os.path.dirname(path)  # EINVAL: not a mount point itself


def mount_proc(root_fd: int) -> int:
    """Returns an owned fd of the new /proc's root, which tells what is procfs."""
    fd = mount.new("proc", _SAFE, source="proc")
    _attach_top(fd, root_fd, "proc")
    return fd


def mount_sys(root_fd: int, *, read_only: bool) -> None:
    fd = mount.new("sysfs", _SAFE | _read_only(read_only), source="sysfs")
    _attach_top(fd, root_fd, "sys")
    os.close(fd)


def mount_dev(root_fd: int) -> int:
    """Returns an owned fd of the new, empty /dev."""
    options = ("mode=755", "size=65536k")
    attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_STRICTATIME
    fd = mount.new("tmpfs", attributes, source="tmpfs", options=options)
    _attach_top(fd, root_fd, "dev")
    return fd


def mount_in_dev(
    dev_fd: int, config: RuntimeConfig, targets: frozenset[str], shared: Callable[[], int]
) -> None:
    """/dev/pts, /dev/shm, /dev/mqueue. `shared` opens what becomes /dev/shm."""
    if "/dev/pts" not in targets:
        attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
        options = ("newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
        _mount_on_new(dev_fd, "pts", mount.new("devpts", attributes, source="devpts", options=options))
    without = config.ipc_namespace == "new" and not config.shm_size  # --ipc none
    if "/dev/shm" not in targets and not without:
        _mount_on_new(dev_fd, "shm", shared())
    if "/dev/mqueue" not in targets:
        _mount_on_new(dev_fd, "mqueue", mount.new("mqueue", _SAFE, source="mqueue"))


def mount_cgroups(root_fd: int, hierarchies: Mapping[str, str], version: int, *, read_only: bool) -> None:
    """/sys/fs/cgroup as seen from the container's own cgroup namespace."""
    attributes = _SAFE | _read_only(read_only)
    target = tree.open_in(root_fd, "/sys/fs/cgroup")
    if version == 2:
        _attach(mount.new("cgroup2", attributes, source="cgroup"), target)
        return
    parent = mount.new("tmpfs", _SAFE, source="tmpfs", options=("mode=755",))
    mount.attach(parent, target)
    os.close(target)
    together: dict[str, list[str]] = {}
    for controller, directory in hierarchies.items():
        together.setdefault(directory, []).append(controller)
    for controllers in together.values():
        name = ",".join(controllers)
        fd = mount.new("cgroup", attributes, source="cgroup", options=tuple(controllers))
        _mount_on_new(parent, name, fd)
        if len(controllers) > 1:
            for controller in controllers:
                os.symlink(name, controller, dir_fd=parent)
    mount.set_attributes(parent, _read_only(read_only))
    os.close(parent)


def mount_user_mounts(
    root_fd: int, config: RuntimeConfig, proc_fd: int, opened: Mapping[str, int] = _NONE
) -> None:
    """Binds and tmpfs, those of parents before those below them. `opened`: sources of binds, by target."""
    several: list[BindMount | TmpfsMount] = [*config.binds, *config.tmpfs]
    for wanted in sorted(several, key=lambda one: one.target.rstrip("/").count("/")):
        with _named(wanted):
            if isinstance(wanted, BindMount):
                fd = opened.get(wanted.target)
                _bind(root_fd, wanted, _open_source(wanted) if fd is None else fd, proc_fd)
            else:
                _tmpfs(root_fd, wanted, proc_fd)


def open_sources(config: RuntimeConfig, userns_fd: int | None) -> dict[str, int]:
    """Detached mounts of what shall be bound, as owned fds, by target."""
    opened = {}
    for bind in config.binds:
        with _named(bind):
            opened[bind.target] = _open_source(bind, userns_fd)
    return opened


@contextlib.contextmanager
def _named(wanted: BindMount | TmpfsMount) -> Iterator[None]:
    """An error says what was to be mounted where."""
    try:
        yield
    except OSError as error:
        source = f"{wanted.source}/{wanted.inside}".rstrip("/") if isinstance(wanted, BindMount) else "tmpfs"
        reason = os.strerror(error.errno or 0)
        raise HostRefused(f"mount {source} on {wanted.target}: {reason}") from error


def _open_source(bind: BindMount, userns_fd: int | None = None) -> int:
    """What shall be bound, as a detached mount. Returns an owned fd."""
    propagation, recursive = _PROPAGATION[bind.propagation]
    fd = clone_source(bind)
    if propagation != mount.MS_SHARED:  # a bind that shall be shared stays the host's peer
        mount.set_attributes(fd, propagation=propagation, recursive=recursive)
    if bind.read_only:
        mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY, recursive=bind.recursive)
    if bind.map_ids and userns_fd is not None:
        map_ids(fd, bind.source, userns_fd, recursive=bind.recursive)
    return fd


def clone_source(bind: BindMount) -> int:
    """As a detached mount, an owned fd. No link in a volume leads out of it (CVE-2017-1002101)."""
    if bind.layers:
        return _clone_of_layers(bind)
    if not bind.inside:
        return mount.clone(bind.source, recursive=bind.recursive)
    return _clone_inside(bind.source, bind.inside, recursive=bind.recursive)


def _clone_inside(directory: str, path: str, *, recursive: bool) -> int:
    source = os.open(directory, _PATH)
    try:
        found = tree.open_in(source, path)
        try:
            return mount.clone("", dir_fd=found, recursive=recursive)
        finally:
            os.close(found)
    finally:
        os.close(source)


def _clone_of_layers(bind: BindMount) -> int:
    """Of an overlay that is seen in this mount namespace only, and only until it is cloned."""
    if bind.read_only and len(bind.layers) == 1:  # overlayfs wants two
        return _clone_inside(bind.layers[0], bind.inside, recursive=False)
    point = f"{bind.source}/point"
    above = () if bind.read_only else (f"{bind.source}/upper", f"{bind.source}/work")
    make_private(point)
    mount_overlay(point, bind.layers, *above)
    try:
        return _clone_inside(point, bind.inside, recursive=False)
    finally:
        mount.umount(point, mount.MNT_DETACH)


def mount_overlay(point: str, layers: Sequence[str], upper: str = "", work: str = "") -> None:
    """Layers, topmost first; read-only without an upper directory.

    The options of mount(2) are one page, so layers are given as the numbers of opened directories,
    relative to /proc/self/fd: short enough for 500 layers, and no character of a path needs quoting.
    """
    opened: list[int] = []
    back = os.open(".", _PATH)
    try:
        for directory in (*layers, *((upper, work) if upper else ())):
            opened.append(os.open(directory, _PATH))
        numbers = [str(fd) for fd in opened]
        options = f"lowerdir={':'.join(numbers[: len(layers)])},{_OVERLAY_OPTIONS}"
        if upper:
            options += f",upperdir={numbers[-2]},workdir={numbers[-1]}"
        os.chdir("/proc/self/fd")
        mount.mount("overlay", point, "overlay", 0 if upper else mount.MS_RDONLY, options)
        os.fchdir(back)
    finally:
        for fd in (*opened, back):
            os.close(fd)


def map_ids(fd: int, path: str, userns_fd: int, *, recursive: bool) -> int:
    """Returns `fd`, a detached mount of `path`; raises HostRefused where the kernel cannot."""
    try:
        mount.map_ids(fd, userns_fd, recursive=recursive)
    except OSError as error:
        raise HostRefused(
            f"the file system of {path} cannot map ids, so no container with ids of its own can use it",
            hint="start it with --userns=host, or keep the files on ext4, xfs, btrfs or tmpfs",
        ) from error
    return fd


def hide(root_fd: int, paths: Sequence[str]) -> None:
    """Masked paths: files become the container's /dev/null, directories one shared empty one."""
    empty = null = -1
    for path in paths:
        try:
            target = tree.open_in(root_fd, path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # nothing to hide on this kernel
        if stat.S_ISDIR(os.fstat(target).st_mode):
            if empty < 0:
                options = ("mode=755", "nr_blocks=1", "nr_inodes=1")
                attributes = _SAFE | mount.MOUNT_ATTR_RDONLY
                empty = mount.new("tmpfs", attributes, source="tmpfs", options=options)
                mount.attach(empty, target)  # itself: before Linux 6.15 a detached mount cannot be cloned
                os.close(target)
            else:
                _attach(mount.clone("", dir_fd=empty), target)
        else:
            if null < 0:
                null = _open_null(root_fd)
            _attach(mount.clone("", dir_fd=null), target)
    for fd in (empty, null):
        if fd >= 0:
            os.close(fd)


def make_read_only(root_fd: int, paths: Sequence[str]) -> None:
    for path in paths:
        try:
            target = tree.open_in(root_fd, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        fd = mount.clone("", dir_fd=target, recursive=True)
        mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY, recursive=True)
        _attach(fd, target)


def _read_only(read_only: bool) -> int:
    return mount.MOUNT_ATTR_RDONLY if read_only else 0


def _attach(fd: int, target: int) -> None:
    """Attach and close both."""
    try:
        mount.attach(fd, target)
    finally:
        os.close(fd)
        os.close(target)


def _attach_top(fd: int, root_fd: int, name: str) -> None:
    """On a real directory of the root: an image whose /proc or /dev is a link is refused."""
    try:
        os.mkdir(name, 0o755, dir_fd=root_fd)
    except FileExistsError:
        pass
    try:
        target = os.open(name, tree.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=root_fd)
    except NotADirectoryError:
        raise InputError(f"/{name} of the image is not a directory") from None
    mount.attach(fd, target)
    os.close(target)


def _mount_on_new(parent: int, name: str, fd: int) -> None:
    os.mkdir(name, 0o755, dir_fd=parent)
    _attach(fd, os.open(name, tree.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent))


def shared_memory(config: RuntimeConfig, donor_mounts: int | None) -> int:
    """/dev/shm goes with the IPC namespace: own, the host's, or that of the container in the mount
    namespace `donor_mounts`."""
    if config.ipc_namespace == "new":
        options = ("mode=1777", f"size={config.shm_size}")
        return mount.new("tmpfs", _SAFE, source="shm", options=options)
    if donor_mounts is None:
        return mount.clone("/dev/shm")
    return _clone_of(donor_mounts, "/dev/shm")


def _clone_of(other: int, path: str) -> int:
    """A mount of another mount namespace; only there it can be cloned."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespace.setns(other, namespace.CLONE_NEWNS)
        try:
            return mount.clone(path)
        finally:
            namespace.setns(own, namespace.CLONE_NEWNS)
    finally:
        os.close(own)


def _bind(root_fd: int, bind: BindMount, fd: int, proc_fd: int) -> None:
    directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    _attach(fd, _target(root_fd, bind.target, proc_fd, directory=directory))


def _tmpfs(root_fd: int, wanted: TmpfsMount, proc_fd: int) -> None:
    attributes, own = tmpfs.parsed(wanted.options)
    size = (f"size={wanted.size}",) if wanted.size else ()
    target = _target(root_fd, wanted.target, proc_fd, directory=True)
    options = (f"mode={wanted.mode:o}", *size, *own)
    _attach(mount.new("tmpfs", attributes, source="tmpfs", options=options), target)


def _target(root_fd: int, path: str, proc_fd: int, *, directory: bool) -> int:
    fd = tree.make_in(root_fd, path, directory=directory)
    status = os.fstat(fd)
    if status.st_dev == os.fstat(proc_fd).st_dev and "/" + path.strip("/") not in PROC_TARGETS:
        # A mount there would make our own checks and the programs inside believe a forged /proc.
        raise InputError(f"{path} is inside /proc: nothing can be mounted there")
    if status.st_dev == os.fstat(root_fd).st_dev and status.st_ino == os.fstat(root_fd).st_ino:
        raise InputError(f"{path} is the container's root: nothing can be mounted there")
    if stat.S_ISDIR(status.st_mode) != directory:
        kind = "a directory" if directory else "a file"
        raise InputError(
            f"mount on {path}: the source is {kind}, the target is not",
            hint="are you trying to mount a directory onto a file (or vice-versa)?",
        )
    return fd


def _open_null(root_fd: int) -> int:
    fd = tree.open_in(root_fd, "/dev/null")
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NULL_DEVICE:
        raise HostRefused("/dev/null of the container is not the null device")
    return fd
