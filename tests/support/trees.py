"""Directory trees: one of everything that a file can be, and what is in one, to compare two of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
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


def make_one_of_everything(upper: Path) -> None:
    """An overlay's upper directory, whiteouts and an opaque directory included."""
    (upper / "bin").mkdir(parents=True, mode=0o755)
    upper.chmod(0o750)
    os.chown(upper, 7, 8)
    ping = upper / "bin/ping"
    ping.write_bytes(b"elf" * 1000)
    os.chown(ping, 70000, 2_100_000)
    ping.chmod(0o6755)
    os.setxattr(ping, "security.capability", CAPABILITY)
    os.setxattr(ping, "user.note", b"\0\n=\xff")
    os.setxattr(upper / "bin", "trusted.overlay.origin", b"x")
    os.setxattr(upper / "bin", "user.note", b"d")
    os.link(ping, upper / "zz-linked")
    os.link(ping, upper / "bin/linked")
    with (upper / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
        file.truncate(9_000_000)
    for name, kind, device in (
        ("fifo", stat.S_IFIFO | 0o620, 0),
        ("null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        ("disk", stat.S_IFBLK | 0o640, os.makedev(8, 300)),
        ("gone", stat.S_IFCHR, 0),
    ):
        os.mknod(upper / name, kind, device)
    os.link(upper / "gone", upper / "bin/gone-too")  # the kernel shares the inodes of whiteouts
    (upper / "opaque").mkdir()
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    (upper / "opaque/.hidden").write_text("x")
    (upper / "tmp").mkdir()
    (upper / "tmp").chmod(0o1777)
    (upper / "a" / ("n" * 200)).mkdir(parents=True)
    (upper / "a" / ("n" * 200) / ("m" * 250)).write_text("long")
    (upper / "link").symlink_to("../" * 60 + "etc")
    Path(os.fsdecode(os.fsencode(upper) + b"/\xff\xfe name")).write_text("not UTF-8")
    (upper / "new\nline").touch()
    os.utime(upper / "new\nline", ns=(0, -1_500_000_000))
    os.utime(ping, ns=(0, 1_700_000_000_123_456_789))
