"""Options of a tmpfs: which are attributes of the mount, and which the file system's own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hawse_agent.linux import mount

DEFAULTS = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
_ATIME = mount.MOUNT_ATTR_ATIME

FLAGS: Mapping[str, tuple[int, int]] = {
    "ro": (mount.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, mount.MOUNT_ATTR_RDONLY),
    "noexec": (mount.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, mount.MOUNT_ATTR_NOEXEC),
    "nosuid": (mount.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, mount.MOUNT_ATTR_NOSUID),
    "nodev": (mount.MOUNT_ATTR_NODEV, 0),
    "dev": (0, mount.MOUNT_ATTR_NODEV),
    "relatime": (0, _ATIME),
    "noatime": (mount.MOUNT_ATTR_NOATIME, _ATIME),
    "strictatime": (mount.MOUNT_ATTR_STRICTATIME, _ATIME),
    "nodiratime": (mount.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, mount.MOUNT_ATTR_NODIRATIME),
}
"""Option (those of `spec.tmpfs`) → attributes to set, attributes to clear."""


def parsed(options: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """Attributes of the mount, and what is the file system's own."""
    attributes, own = DEFAULTS, []
    for option in options:
        flag = FLAGS.get(option)
        if flag is None:
            own.append(option)
        else:
            attributes = (attributes & ~flag[1]) | flag[0]
    return attributes, tuple(own)
