"""What is in a directory tree, one row for each file, to compare two of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_LEFT_OUT = ("trusted.overlay.origin", "trusted.overlay.impure", "security.selinux")


def listing(root: Path, *, times: bool = True) -> list[tuple[object, ...]]:
    """Name, mode, owner, links, time, device, size, content, target, attributes of each, no link followed."""
    found = []
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        regular = stat.S_ISREG(status.st_mode)
        found.append(
            (
                os.fsencode(path.relative_to(root)),
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                0 if stat.S_ISDIR(status.st_mode) or is_whiteout(status) else status.st_nlink,
                0 if not times or is_whiteout(status) else status.st_mtime_ns,
                status.st_rdev,
                status.st_size if regular else 0,
                path.read_bytes()[:10_000] if regular else b"",
                os.readlink(path) if path.is_symlink() else "",
                sorted(
                    (name, os.getxattr(path, name, follow_symlinks=False))
                    for name in os.listxattr(path, follow_symlinks=False)
                    if name not in _LEFT_OUT
                ),
            )
        )
    return found


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
