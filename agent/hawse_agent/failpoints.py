"""Places where a test makes a process fail: one before each step of create, start, stop, remove and build.

    reach("start: lease")      # stands directly before the step

Does nothing at all, unless the variable HAWSE_FAILPOINTS names a directory when the process starts; nothing
that a client of the API sends leads here. Then a file in it that is called as the step says, once, what
becomes of whoever comes by first:

    die       the process is killed
    stop      it stops, until somebody continues it
    ENOSPC    (or another error's name) the step fails with it
    (a FIFO)  it waits until somebody has opened the FIFO for writing, and does what was written

The registry below is the list of the steps; `tests/contract` sees to it that each has its place, and that no
step is without one. The steps of PID 1 are those of `runtime.init`, called `init: …`.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping

VARIABLE = "HAWSE_FAILPOINTS"

STEPS: Mapping[str, tuple[str, ...]] = {
    # By the operation; the daemon's.
    "create": ("directory", "volumes", "populate", "ids", "copy", "record", "rename"),
    "start": (
        "sources",
        "ids",
        "lease",
        "record",
        "files",
        "config",
        "shim",
        "network",
        "clients",
        "run",
        "watch",
        "linked",
    ),
    "stop": ("record", "ask", "wait"),
    "remove": ("record", "lease", "run", "files", "volumes", "ids", "forget"),
    "commit": ("pause", "layer", "image", "name"),
    "image": ("unpack", "rename", "sync", "record", "names"),
    "layer": ("blob", "rename"),
    "rmi": ("names", "record", "blobs", "layers", "files"),
    "build": (
        *("context", "begin", "cache mount", "run", "take", "layer"),
        *("keep layers", "keep steps", "image", "tag"),
    ),
    # The shim's, from its birth to its end.
    "shim": (
        *(
            "listen",
            "fork",
            "clone",
            "tell the shim",
            "tell namespaces",
            "make the cgroup",
            "enter the cgroup",
            "tell PID 1 of the cgroup",
            "await readiness",
            "set limits",
        ),
        *(
            "go",
            "tell running",
            "write state",
            "tell started",
            "stop",
            "kill",
            "ended",
            "drain",
            "remove the cgroup",
        ),
        *("write what comes next", "write exit", "tell exited", "restart", "tell restarted"),
        *("clean up", "tell gone"),
    ),
}


def names() -> tuple[str, ...]:
    return tuple(f"{operation}: {step}" for operation, steps in STEPS.items() for step in steps)


def reach(name: str) -> None:
    """The step `name` is next."""
    if _directory >= 0:
        _obey(name)


def descriptors() -> tuple[int, ...]:
    """What a process that closes its descriptors has to keep."""
    return (_directory,) if _directory >= 0 else ()


def _open() -> int:
    """By descriptor: PID 1 of a container does not see the directory any more."""
    path = os.environ.get(VARIABLE, "")
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if path else -1


_directory = _open()


def _obey(name: str) -> None:
    try:
        fd = os.open(name.replace("/", "-"), os.O_RDONLY | os.O_CLOEXEC, dir_fd=_directory)
    except FileNotFoundError:
        return
    try:
        os.unlink(name.replace("/", "-"), dir_fd=_directory)
        order = os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)
    match order:
        case "":
            return
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
            os._exit(137)  # PID 1 of a namespace does not hear its own signals
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            number: int = getattr(errno, order)
            raise OSError(number, os.strerror(number))
