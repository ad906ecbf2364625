"""A cgroup subtree of one's own in every hierarchy of the machine, v1, v2 or both.

A session and a test host each get one below the cgroup of whoever makes it, enter it, unshare their
cgroup namespace and mount every hierarchy again, so that they see nothing else. Standard library only.
Refuses to touch anything but directories that it has made.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support import linux


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """One mounted cgroup hierarchy, and where this process stands in it."""

    version: int
    mountpoint: Path
    options: str
    """What mounts the same hierarchy again: `memory`, `cpu,cpuacct`, `none,name=systemd`; empty for v2."""
    own: Path

    def child(self, name: str) -> Path:
        return self.own / name


@dataclass(frozen=True, kw_only=True)
class Subtree:
    """The directories of one subtree, and the hierarchies they lie in."""

    directories: tuple[Path, ...]

    def enter(self) -> None:
        """Moves this process, and all that it forks from now on, into the subtree."""
        for directory in self.directories:
            _write(directory / "cgroup.procs", "0")

    def remove(self, timeout: float = 5.0) -> None:
        """Removes the subtree with all that is below; its processes must be gone or going."""
        deadline = time.monotonic() + timeout
        for directory in self.directories:
            _remove(directory, deadline)


def hierarchies() -> list[Hierarchy]:
    """Every hierarchy mounted here; a hierarchy mounted twice counts once."""
    own_paths = _own_paths()
    found: dict[str, Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, (fstype, _, super_options) = left.split(), right.split(" ", 2)
        if fstype not in ("cgroup", "cgroup2"):
            continue
        mountpoint, root = Path(fields[4]), fields[3]
        if fstype == "cgroup2":
            options, own = "", own_paths.get("", "/")
        else:
            words = super_options.split(",")
            named = [word for word in words if word.startswith("name=")]
            controllers = [word for word in words if word in own_paths and word not in named]
            options = ",".join([*(controllers or ["none"]), *named])
            own = own_paths.get((controllers or named or [""])[0], "/")
        below = os.path.relpath(own, root) if own.startswith(root) else "."
        version = 2 if fstype == "cgroup2" else 1
        own_directory = mountpoint if below == "." else mountpoint / below
        if version == 2 and own != "/" and not _delegates(own_directory):
            own_directory = mountpoint  # v2 allows no processes beside children with controllers
        found[f"{version}:{options}"] = Hierarchy(
            version=version, mountpoint=mountpoint, options=options, own=own_directory
        )
    return list(found.values())


def make_subtree(name: str, where: list[Hierarchy]) -> Subtree:
    directories = []
    for hierarchy in where:
        directory = hierarchy.child(name)
        if hierarchy.version == 2:
            _delegate(hierarchy.own)
        directory.mkdir()
        directories.append(directory)
        if (directory / "cpuset.cpus").exists() and hierarchy.version == 1:
            # A v1 cpuset starts empty, and nothing can be attached before it is seeded (ENOSPC).
            for seed in ("cpuset.cpus", "cpuset.mems"):
                _write(directory / seed, (hierarchy.own / seed).read_text())
    return Subtree(directories=tuple(directories))


def mount_view(where: list[Hierarchy], at: Path) -> None:
    """Mounts every hierarchy below `at` as seen from the own cgroup namespace, like on the machine.

    Call it after `unshare(CLONE_NEWCGROUP)`; `at` must be an empty directory.
    """
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    if len(where) == 1 and where[0].version == 2:
        linux.mount("cgroup2", at, "cgroup2", flags)
        return
    linux.mount("tmpfs", at, "tmpfs", flags, "mode=755")
    for hierarchy in where:
        target = at / hierarchy.mountpoint.name
        target.mkdir()
        fstype = "cgroup" if hierarchy.version == 1 else "cgroup2"
        linux.mount(fstype, target, fstype, flags, hierarchy.options)
        controllers = hierarchy.options.split(",")
        if "," in target.name:  # systemd makes `cpu` a link to `cpu,cpuacct`
            for controller in controllers:
                (at / controller).symlink_to(target.name)


def leave_root(where: list[Hierarchy]) -> None:
    """With v2 alone, moves this process into a leaf of what `mount_view` shows: beside children with
    controllers there can be no processes, and an agent would have to move them."""
    if all(hierarchy.version == 2 for hierarchy in where):
        leaf = Path("/sys/fs/cgroup/session")
        leaf.mkdir()
        _write(leaf / "cgroup.procs", "0")


def _own_paths() -> dict[str, str]:
    """Own cgroup by controller name, by `name=…`, and by the empty string for v2."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _delegate(directory: Path) -> None:
    """Gives children of `directory` all controllers that it has; systemd does so only on demand."""
    names = (directory / "cgroup.controllers").read_text().split()
    for name in names:
        try:
            _write(directory / "cgroup.subtree_control", f"+{name}")
        except OSError:
            continue  # processes live there, or a v1 hierarchy has it: children go without


def _delegates(directory: Path) -> bool:
    control = directory / "cgroup.subtree_control"
    return control.exists() and bool(control.read_text().strip())


def _write(path: Path, text: str) -> None:
    # One write(2): a buffered file would report the kernel's refusal too late or not at all.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.strip().encode() + b"\n")
    finally:
        os.close(fd)


def _remove(directory: Path, deadline: float) -> None:
    for path, _, _ in os.walk(directory, topdown=False):
        while True:
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError:
                # EBUSY while the last processes are still being torn down; cgroup v1 has no event for it.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
                continue
            break
