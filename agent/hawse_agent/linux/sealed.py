"""This program, run from an interpreter that nobody can write to (CVE-2019-5736).

While a container starts, a process of ours is inside it, and for what an image executes /proc/self/exe leads
to our interpreter, which is the host's: run once with the image's own libraries, then written to. So daemon
and zygote, and with them all shims and all processes that enter a container, run from a file that is the
host's interpreter to read, and none to write:

    overlay   of its directory, read-only, without an upper, mounted nowhere: shares the host's page cache
    memfd     a sealed copy, where the overlay cannot be had (too many of them on top of each other)

`argv[0]` stays the interpreter's path, so that it finds its library and `sys.executable` is what it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Sequence

from hawse_agent.errors import HostRefused
from hawse_agent.linux import mount

_OWN = "/proc/self/exe"
_AGAIN = "HAWSE_SEALED"
"""Set for the moment of the exec: a process that finds it and is not sealed must not try for ever."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10  # Linux 6.3; where vm.memfd_noexec is set, a memfd without it cannot be executed


def is_sealed() -> bool:
    with open(_OWN, "rb") as file:
        try:
            return fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        except OSError as error:
            if error.errno != errno.EINVAL:  # no memfd
                raise
        own, host = os.fstat(file.fileno()), os.stat(sys.executable)
        read_only = os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY
    return bool(read_only) and (own.st_dev, own.st_ino) != (host.st_dev, host.st_ino)


def ensure() -> None:
    """Returns when this process is sealed; else it is executed again, with the same arguments. To be called
    early: what has been imported is imported twice. Raises HostRefused."""
    again = os.environ.pop(_AGAIN, "")
    if is_sealed():
        return
    if again:
        raise HostRefused(
            f"{sys.executable} cannot be run from a sealed copy: /proc/self/exe is another file"
        )
    fd = seal()
    os.execve(fd, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _AGAIN: "1"})


def seal(path: str = "") -> int:
    """An executable fd (close-on-exec) of `path`, by default of this interpreter."""
    path = os.path.realpath(path or sys.executable)
    refused: list[OSError] = []
    for way in WAYS:
        try:
            return way(path)
        except OSError as error:
            refused.append(error)
    raise HostRefused(f"no sealed copy of {path} can be had: {'; '.join(map(str, refused))}")


def overlay(path: str) -> int:
    directory, name = os.path.split(path)
    # An overlay without an upper wants two lower directories. The other one is a directory that we know to be
    # there and to lie neither above nor below the interpreter's.
    lower = ":".join(part.replace("\\", "\\\\").replace(":", "\\:") for part in (directory, _here()))
    attributes = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV
    mounted = mount.new("overlay", attributes, source="overlay", options=(f"lowerdir={lower}",))
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)


def memfd(path: str) -> int:
    with open(path, "rb") as file:

        def fill(copy: int) -> None:
            while os.sendfile(copy, file.fileno(), None, 1 << 30):
                pass

        return _sealed("hawse-agent", fill)


def program(name: str, data: bytes) -> int:
    """An executable fd (close-on-exec) of these bytes. Raises HostRefused."""
    try:
        return _sealed(name, lambda copy: os.write(copy, data))
    except PermissionError as error:
        raise HostRefused(
            "this host executes no program from memory", hint="the sysctl vm.memfd_noexec must not be 2"
        ) from error


def _sealed(name: str, fill: Callable[[int], object]) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        copy = os.memfd_create(name, flags)
    try:
        fill(copy)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        # Executed through a descriptor that cannot write, or the kernel would find the file busy.
        return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(copy)


def _here() -> str:
    return os.path.dirname(os.path.realpath(__file__))


WAYS: Sequence[Callable[[str], int]] = (overlay, memfd)
