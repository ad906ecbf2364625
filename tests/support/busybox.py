"""A base image's only layer: static busybox, users, a few files. From Debian's busybox-static."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BUSYBOX = Path("/bin/busybox")

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
bob:x:1000:1000:Bob:/home/bob:/bin/sh
"""
GROUP = """\
root:x:0:
wheel:x:10:bob
audio:x:29:
bob:x:1000:
"""


def available() -> bool:
    """Whether there is a busybox that runs without shared libraries."""
    return BUSYBOX.exists() and b"/ld-linux" not in BUSYBOX.read_bytes()[:4096]


def make_layer(directory: Path) -> Path:
    """`directory`, filled with a small root file system."""
    for name in ("bin", "etc", "root", "tmp", "home/bob"):
        (directory / name).mkdir(parents=True)
    (directory / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for applet in subprocess.run(
        [BUSYBOX, "--list"], check=True, capture_output=True, text=True
    ).stdout.split():
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    return directory
