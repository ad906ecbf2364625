"""What this host has of what the agent needs: a list of checks, each with what to do when it fails."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hawse_agent import __version__, launch
from hawse_agent.errors import HawseError
from hawse_agent.linux import mount, zstd
from hawse_agent.network import libnftables
from hawse_agent.paths import Paths, paths_for
from hawse_agent.runtime import ids

Status = Literal["ok", "warning", "failed"]
LITTLE_SPACE = 1 << 30
CONTROLLERS = ("memory", "cpu", "pids", "cpuset")


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    status: Status
    detail: str
    hint: str = ""


def main(root: str, *, as_json: bool) -> int:
    """1 when a check has failed; warnings are fine."""
    checks = examine(paths_for(Path(root) if root else None))
    failed = any(check.status == "failed" for check in checks)
    if as_json:
        print(
            json.dumps(
                {
                    "version": __version__,
                    "bundle": launch.bundle(),
                    "ok": not failed,
                    "checks": [asdict(check) for check in checks],
                }
            )
        )
        return int(failed)
    for check in checks:
        print(f"{check.status:8} {check.name}: {check.detail}")
        if check.status != "ok" and check.hint:
            print(f"         {check.hint}")
    return int(failed)


def examine(paths: Paths) -> list[Check]:
    """Looks, changes nothing; the kernel may load modules for it."""
    return [
        _python(),
        _root(),
        _cgroups(),
        _overlay(),
        _namespaces(),
        _user_namespaces(paths),
        _seccomp(),
        _nftables(),
        _zstd(),
        _space(paths),
        _daemon(paths),
    ]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(name="python", status="ok", detail=f"{version} ({sys.executable})")


def _root() -> Check:
    uid = os.geteuid()
    if uid == 0:
        return Check(name="root", status="ok", detail="uid 0")
    return Check(name="root", status="failed", detail=f"uid {uid}", hint="run the agent as root")


def _cgroups() -> Check:
    mounts = [line.split(" - ")[1].split() for line in _lines("/proc/self/mountinfo")]
    version_1 = {word for kind in mounts if kind[0] == "cgroup" for word in kind[2].split(",")}
    if not version_1.isdisjoint(CONTROLLERS):
        missing = [name for name in CONTROLLERS if name not in version_1]
        version = "version 1"
    elif any(kind[0] == "cgroup2" for kind in mounts):
        words = _text("/sys/fs/cgroup/cgroup.controllers").split()
        missing = [name for name in CONTROLLERS if name not in words]
        version = "version 2"
    else:
        return Check(
            name="cgroups", status="failed", detail="none are mounted", hint="mount cgroup2 at /sys/fs/cgroup"
        )
    if missing:
        return Check(
            name="cgroups",
            status="warning",
            detail=f"{version} without {', '.join(missing)}",
            hint="limits of these kinds are not possible",
        )
    return Check(name="cgroups", status="ok", detail=version)


def _overlay() -> Check:
    if not any(line.split()[-1] == "overlay" for line in _lines("/proc/filesystems")):
        try:
            mount.require("overlay")  # a module is loaded at its first use only
        except OSError as error:
            return Check(
                name="overlay",
                status="failed",
                detail=f"not in this kernel ({error.strerror})",
                hint="modprobe overlay, then try again",
            )
    return Check(name="overlay", status="ok", detail="in the kernel")


def _namespaces() -> Check:
    wanted = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    missing = [name for name in wanted if not os.path.exists(f"/proc/self/ns/{name}")]
    if missing:
        return Check(name="namespaces", status="failed", detail=f"without {', '.join(missing)}")
    return Check(name="namespaces", status="ok", detail=", ".join(wanted))


def _user_namespaces(paths: Paths) -> Check:
    directory = paths.lib
    while not directory.exists():
        directory = directory.parent
    try:
        ids.probe(str(directory))
    except (HawseError, OSError) as error:
        return Check(
            name="user namespaces",
            status="warning",
            detail=str(error),
            hint="containers start with --userns=host only",
        )
    return Check(name="user namespaces", status="ok", detail=f"{directory} can map ids")


def _seccomp() -> Check:
    if os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return Check(name="seccomp", status="ok", detail="filters are possible")
    return Check(
        name="seccomp",
        status="failed",
        detail="not in this kernel",
        hint="containers start with seccomp=unconfined only",
    )


def _nftables() -> Check:
    return _tried(
        "nftables",
        lambda: libnftables.run("list tables"),
        "libnftables and the kernel answer",
    )


def _tried(name: str, work: Callable[[], None], detail: str) -> Check:
    try:
        work()
    except HawseError as error:
        return Check(name=name, status="failed", detail=error.message, hint=error.hint)
    return Check(name=name, status="ok", detail=detail)


def _zstd() -> Check:
    if zstd.available():
        return Check(name="zstd", status="ok", detail="libzstd is there")
    return Check(
        name="zstd",
        status="warning",
        detail="libzstd is missing",
        hint="backups are gzip, and zstd layers are refused: install libzstd1",
    )


def _space(paths: Paths) -> Check:
    directory = paths.lib
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    detail = f"{free / (1 << 30):.1f} GiB free at {paths.lib}"
    if free < LITTLE_SPACE:
        return Check(name="space", status="warning", detail=detail, hint="hawse image prune")
    return Check(name="space", status="ok", detail=detail)


def _daemon(paths: Paths) -> Check:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(paths.socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return Check(name="daemon", status="ok", detail="not running; the next command starts it")
        except PermissionError:
            return Check(name="daemon", status="ok", detail="running; only root may ask it")
    pid, version, *_ = _text(str(paths.daemon_lock)).split()
    return Check(name="daemon", status="ok", detail=f"process {pid}, version {version}")


def _lines(path: str) -> list[str]:
    return _text(path).splitlines()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""
