"""A container's terminal, from the container's own devpts, so that its name means something inside."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios
from dataclasses import dataclass

from hawse_agent.errors import HostRefused
from hawse_agent.linux import mount, tree

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_PTS_MAJORS = range(136, 144)


@dataclass(frozen=True, kw_only=True)
class Console:
    """Two owned fds."""

    master: int
    slave: int


def open_console(uid: int, height: int, width: int) -> Console:
    """With the container's root as `/`; the slave belongs to the process's user."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = os.open("/dev/pts/ptmx", flags)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)  # the peer itself: no path is looked up
    status = os.fstat(slave)
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) not in _PTS_MAJORS:
        raise HostRefused("/dev/pts of the container does not give terminals")
    os.fchown(slave, uid, status.st_gid)
    if height and width:
        resize(master, height, width)
    return Console(master=master, slave=slave)


def mount_on_dev_console(slave: int) -> None:
    dev = os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    target = tree.make_in(dev, "console", directory=False, mode=0o600)
    fd = mount.clone("", dir_fd=slave)
    mount.attach(fd, target)
    for opened in (fd, target, dev):
        os.close(opened)


def resize(fd: int, height: int, width: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def interrupts(master: int, data: bytes) -> int:
    """The process group that the terminal interrupts for these keys; 0 when they mean nothing special now."""
    settings = termios.tcgetattr(master)
    if not settings[3] & termios.ISIG or settings[6][termios.VINTR] not in (bytes([key]) for key in data):
        return 0
    try:
        return os.tcgetpgrp(master)
    except OSError:  # nobody's terminal
        return 0


def control(slave: int) -> None:
    """Make it the controlling terminal of this session."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
