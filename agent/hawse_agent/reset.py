"""Removes everything of one instance: containers, networks, cgroups, files. Volumes only when asked."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from pathlib import Path

from hawse_agent.build import secrets
from hawse_agent.cgroups import Tree, find_base, release_base
from hawse_agent.daemon import take_lock
from hawse_agent.errors import Conflict, HostRefused
from hawse_agent.linux import tree
from hawse_agent.network.manager import NetworkManager
from hawse_agent.paths import Paths, paths_for
from hawse_agent.runtime import ids
from hawse_agent.supervise.client import ShimClient

PATIENCE = 30.0
"""Seconds for a daemon, and for each container, to end."""


def main(root: str, *, volumes: bool) -> int:
    """Prints what is kept. Raises HostRefused when something does not end."""
    paths = paths_for(Path(root) if root else None)
    if not paths.run.exists() and not paths.lib.exists():
        return 0
    paths.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    lock = _stop_daemon(paths)
    try:
        _stop_containers(paths)
        NetworkManager(paths, _no_name_server).remove_all()
        base = find_base(paths)
        tree = Tree(base)
        for name in tree.names():
            cgroup = tree.open(name)
            cgroup.kill()
            cgroup.remove()
        release_base(paths, base)
        secrets.sweep(paths)
        kept = _remove_files(paths, volumes=volumes)
        ids.forget(paths.containers)
    finally:
        os.close(lock)
    for path in kept:
        print(f"kept {path}")
    return 0


def _stop_daemon(paths: Paths) -> int:
    """Ends a running daemon and takes its lock, so that no other starts in between."""
    try:
        return take_lock(paths)
    except Conflict:
        pid = int(paths.daemon_lock.read_text().split()[0])
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return take_lock(paths)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], PATIENCE)[0]:
            raise HostRefused(f"the daemon (process {pid}) does not end")
    finally:
        os.close(pidfd)
    return take_lock(paths)


def _stop_containers(paths: Paths) -> None:
    if not paths.shims.exists():
        return
    for directory in paths.shims.iterdir():
        shim = ShimClient(directory / "shim.sock")
        with contextlib.suppress(FileNotFoundError, ConnectionError):  # it has ended by itself
            _, watch = shim.watch()
            with watch:
                shim.stop(signal=signal.SIGKILL, timeout=0)
                watch.settimeout(PATIENCE)
                try:
                    while watch.recv(1 << 16):
                        continue
                except TimeoutError:
                    raise HostRefused(f"container {directory.name} does not end") from None


def _no_name_server(listener: socket.socket) -> None:
    raise HostRefused("no name server is started while the instance is removed")


def _remove_files(paths: Paths, *, volumes: bool) -> list[Path]:
    """The bundle that runs this stays: who sent it removes it."""
    kept = [] if volumes else [paths.volumes, paths.backups]
    left = []
    for entry in sorted(paths.lib.iterdir()) if paths.lib.exists() else []:
        if entry == paths.bundles:
            continue
        if entry in kept and any(entry.iterdir()):
            left += sorted(entry.iterdir())
        elif entry.is_dir() and not entry.is_symlink():
            tree.remove(entry)
        else:
            entry.unlink()
    tree.remove(paths.run)
    for directory in (paths.lib, paths.etc, paths.lib.parent if paths.instance else paths.lib):
        with contextlib.suppress(OSError):  # not empty, or never made
            directory.rmdir()
    return left
