"""The container's root: an overlay of its layers, and the change into it."""

from __future__ import annotations

import os

from hawse_agent.linux import mount
from hawse_agent.runtime import mounts
from hawse_agent.spec.runtime import RuntimeConfig

_PATH = os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY


def mount_overlay(config: RuntimeConfig) -> int:
    """Mount it on `root` beside the upper directory, in this mount namespace only. Returns an owned fd."""
    make_directories(config)
    home = os.path.dirname(config.upper)
    point = f"{home}/root"
    mounts.make_private(home)
    mounts.mount_overlay(point, _layers(config), config.upper, config.work)
    root_fd = os.open(point, _PATH)
    mount.set_attributes(root_fd, propagation=mount.MS_PRIVATE)
    return root_fd


def make_directories(config: RuntimeConfig) -> None:
    """What `mount_overlay` needs, unless it is there."""
    layers = _layers(config)
    for directory in (f"{os.path.dirname(config.upper)}/root", config.work):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    if not config.layers:
        os.makedirs(layers[0], exist_ok=True)
    _make_upper(config.upper, layers[0])


def _make_upper(path: str, topmost: str) -> None:
    """The upper directory is what the container sees as `/`: owner and mode come from the image's."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    status = os.stat(topmost)
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, status.st_mode & 0o7777)


def _layers(config: RuntimeConfig) -> tuple[str, ...]:
    """An image without layers (scratch) still needs a lower directory."""
    return config.layers or (f"{os.path.dirname(config.upper)}/empty",)


def pivot(root_fd: int) -> None:
    """Make `root_fd` the root, and let go of the host's tree."""
    old = os.open("/", _PATH)
    os.fchdir(root_fd)
    mount.pivot_root(".", ".")  # both on one place: the old root now lies on top of the new one
    os.fchdir(old)
    os.close(old)
    # Slave first: unmounting must not propagate to the host.
    mount.mount("none", ".", None, mount.MS_SLAVE | mount.MS_REC)
    mount.umount(".", mount.MNT_DETACH)
    os.chdir("/")
