"""When the host goes down, containers are stopped while it still has its network and its disks.

The daemon's end alone leaves them be. But at a shutdown systemd would go on to send SIGTERM to every process
on the host, inside containers, too: not the signal that an image asks for, and not to its PID 1 alone. So the
daemon, which is stopped early then, ends them first; restart policies bring them back at the next boot.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from pathlib import Path

from hawse_agent.paths import Paths
from hawse_agent.supervise.client import ShimClient


def is_going_down() -> bool:
    """Whether systemd is shutting this host down; never where there is another init."""
    systemctl = shutil.which("systemctl")
    if systemctl is None or not os.path.isdir("/run/systemd/system"):
        return False
    done = subprocess.run([systemctl, "is-system-running"], stdout=subprocess.PIPE, check=False)
    return done.stdout.strip() == b"stopping"


def stop_containers(paths: Paths) -> None:
    """Returns when all have ended: each has its own stop signal and its own time, and then is killed. systemd
    loses patience first when that takes longer than the unit's TimeoutStopSec."""
    leaving = [_tell(directory / "shim.sock") for directory in _shim_directories(paths)]
    for pidfd in leaving:
        if pidfd is not None:
            ended = select.poll()  # select(2) knows no descriptor above 1023
            ended.register(pidfd, select.POLLIN)
            ended.poll()
            os.close(pidfd)


def _shim_directories(paths: Paths) -> list[Path]:
    return sorted(paths.shims.iterdir()) if paths.shims.exists() else []


def _tell(socket: Path) -> int | None:
    """Tell the shim that the host goes down; returns an owned pidfd, None when it has ended by itself."""
    try:
        pidfd = os.pidfd_open(ShimClient(socket).pid())
    except (FileNotFoundError, ConnectionError, ProcessLookupError, TimeoutError):
        return None
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    return pidfd
