"""Work that changes namespace or working directory, in a thread of its own: it changes for that thread alone.

Whatever is mounted there nobody else sees, and it is gone with the last descriptor of it, however this
process ends. Only system calls belong into such a thread: an import would look for files where it has gone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from hawse_agent.linux import mount, namespace

OVERLAY_OPTIONS = "index=off,redirect_dir=nofollow,metacopy=off"
"""redirect_dir=nofollow: an image's xattr must not redirect a lookup into another layer's directory."""

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def in_thread(work: Callable[[], int]) -> int:
    """What `work` returns; what it raises is raised here."""
    results: list[int] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="apart")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def own_mounts() -> None:
    """In such a thread: from here on its mounts are nobody else's."""
    namespace.unshare(namespace.CLONE_NEWNS)
    mount.mount("none", "/", None, mount.MS_REC | mount.MS_PRIVATE)


def enter_mounts(pidfd: int) -> None:
    """In such a thread: become one that sees what a process sees, `/` being the root of its mounts, whatever
    it has made its own root. Raises ProcessLookupError when it has ended."""
    namespace.unshare(namespace.CLONE_FS)
    namespace.setns(pidfd, namespace.CLONE_NEWNS)


def stack(lower: Sequence[str], point: str, *, upper: str = "", work: str = "", flags: int = 0) -> None:
    """In such a thread, after `own_mounts`: an overlay of directories, topmost first, on `point`."""
    above = (upper, work) if upper else ()
    fds = [os.open(directory, _PATH) for directory in (*lower, *above)]
    try:
        # Numbers of opened directories: 500 layers fit into the one page of options, and need no quoting.
        names = [str(fd) for fd in fds]
        options = f"lowerdir={':'.join(names[: len(lower)])}"
        if upper:
            options += f",upperdir={names[-2]},workdir={names[-1]}"
        os.chdir("/proc/self/fd")
        mount.mount("overlay", point, "overlay", flags, f"{options},{OVERLAY_OPTIONS}")
        os.chdir("/")
    finally:
        for fd in fds:
            os.close(fd)
