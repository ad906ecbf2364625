"""Where an agent's containers live: one directory in each hierarchy, below the agent's own cgroup.

v1 counts wherever it has the controllers, a mostly empty v2 tree beside it included. The place is remembered
in `paths.cgroup_base`, because a daemon that is started again from elsewhere must find its containers.

On v2 the kernel allows no processes in a cgroup whose children have controllers, so the daemon moves into a
leaf `daemon` beside the containers. Two cases differ. A systemd service that runs in such a leaf already
(DelegateSubgroup=daemon) is content; without it systemd could not put the daemon back into the service's
cgroup at a restart while containers live below it, so they live in the service's slice. And where strangers
share the cgroup (a login session) the base lies in the hierarchy's root; in a container that root is not the
real one, and all that live in it move.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hawse_agent.cgroups import files
from hawse_agent.errors import HostRefused, InputError
from hawse_agent.paths import Paths
from hawse_agent.spec import codec

V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")
UNIFIED = "unified"
LEAF = "daemon"


Ability = Literal["memory", "swap", "quota", "shares", "cpuset", "pids"]
_FILES: Mapping[int, Mapping[Ability, tuple[str, str]]] = {
    1: {
        "memory": ("memory", "memory.limit_in_bytes"),
        "swap": ("memory", "memory.memsw.limit_in_bytes"),
        "quota": ("cpu", "cpu.cfs_quota_us"),
        "shares": ("cpu", "cpu.shares"),
        "cpuset": ("cpuset", "cpuset.cpus"),
        "pids": ("pids", "cgroup.procs"),
    },
    2: {
        "memory": (UNIFIED, "memory.max"),
        "swap": (UNIFIED, "memory.swap.max"),
        "quota": (UNIFIED, "cpu.max"),
        "shares": (UNIFIED, "cpu.weight"),
        "cpuset": (UNIFIED, "cpuset.cpus"),
        "pids": (UNIFIED, "pids.max"),
    },
}


@dataclass(frozen=True, kw_only=True)
class Base:
    version: Literal[1, 2]
    hierarchies: Mapping[str, str]
    """Controller → directory; several may share one. On v2 there is one: `unified`."""

    def directories(self) -> list[str]:
        """Each directory once."""
        return list(dict.fromkeys(self.hierarchies.values()))

    def can(self, ability: Ability) -> bool:
        """Whether this machine's cgroups can limit it."""
        controller, file = _FILES[self.version][ability]
        directory = self.hierarchies.get(UNIFIED if self.version == 2 else controller)
        return directory is not None and os.path.exists(f"{directory}/{file}")


def find_base(paths: Paths) -> Base:
    """Of this instance: remembered, or made and remembered now."""
    remembered = _remembered(paths)
    if remembered is not None:
        return remembered
    base = _make_v1(paths) or _make_v2(paths)
    if base is None:
        raise HostRefused(
            "no cgroups are mounted", hint="containers need /sys/fs/cgroup: mount cgroup2 there"
        )
    paths.cgroup_base.parent.mkdir(parents=True, exist_ok=True)
    paths.cgroup_base.write_text(codec.dumps(base))
    return base


def leave_session(base: Base) -> None:
    """Move this process, and so all that it will fork, out of the cgroup of the login that started it, which
    may be killed as a whole when the login ends. On v2: v1 tells logins apart in a hierarchy without
    controllers, which is not ours."""
    if base.version == 2:
        leaf = f"{base.hierarchies[UNIFIED]}/{LEAF}"
        os.makedirs(leaf, exist_ok=True)
        files.write(f"{leaf}/cgroup.procs", str(os.getpid()))


def release_base(paths: Paths, base: Base) -> None:
    """Remove the instance's directories and forget them; containers must be gone."""
    for directory in base.directories():
        files.remove(directory)
    paths.cgroup_base.unlink(missing_ok=True)


def _remembered(paths: Paths) -> Base | None:
    try:
        base = codec.loads(Base, paths.cgroup_base.read_bytes())
    except (FileNotFoundError, InputError):  # InputError: half a file after a power cut
        return None
    if not all(os.path.isfile(f"{directory}/cgroup.procs") for directory in base.directories()):
        return None
    return base


@dataclass(frozen=True, kw_only=True)
class _Mounted:
    mountpoint: str
    root: str
    controllers: tuple[str, ...]
    """Empty for v2."""


def _mounted() -> list[_Mounted]:
    found = []
    for line in files.read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, (fstype, _, options) = left.split(), right.split(" ", 2)
        if fstype not in ("cgroup", "cgroup2"):
            continue
        words = set(options.split(","))
        controllers = tuple(name for name in V1_CONTROLLERS if name in words) if fstype == "cgroup" else ()
        if fstype == "cgroup" and not controllers:  # name=systemd, net_cls…
            continue
        found.append(_Mounted(mountpoint=fields[4], root=fields[3], controllers=controllers))
    return found


def _own() -> dict[str, str]:
    """Own cgroup by v1 controller, and by `unified`."""
    own = {}
    for line in files.read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else (UNIFIED,):
            own[controller] = path
    return own


def _directory(mounted: _Mounted, own: str) -> str:
    """The own cgroup as a directory; the mount's root when the own cgroup is not below it."""
    below = os.path.relpath(own, mounted.root)
    if below == "." or below.startswith(".."):
        return mounted.mountpoint
    return os.path.join(mounted.mountpoint, below)


def _make_v1(paths: Paths) -> Base | None:
    own = _own()
    hierarchies: dict[str, str] = {}
    for mounted in _mounted():
        for controller in mounted.controllers:
            parent = _directory(mounted, own.get(controller, "/"))
            hierarchies.setdefault(controller, f"{parent}/{paths.name()}")
    if "memory" not in hierarchies and "pids" not in hierarchies:
        return None
    base = Base(version=1, hierarchies=hierarchies)
    for directory in base.directories():
        os.makedirs(directory, exist_ok=True)
    if "cpuset" in hierarchies:
        _seed_cpuset(hierarchies["cpuset"])
    if "memory" in hierarchies:
        hierarchical = f"{hierarchies['memory']}/memory.use_hierarchy"  # always on since Linux 5.11
        if os.path.exists(hierarchical) and files.read(hierarchical) == "0":
            files.write(hierarchical, "1")
    return base


def _seed_cpuset(directory: str) -> None:
    """A v1 cpuset starts empty, and nothing can be attached to it before it is filled (ENOSPC)."""
    parent = os.path.dirname(directory)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(f"{directory}/{name}"):
            files.write(f"{directory}/{name}", files.read(f"{parent}/{name}"))
    files.write(f"{directory}/cgroup.clone_children", "1")  # containers' cpusets start as copies


def _make_v2(paths: Paths) -> Base | None:
    for mounted in _mounted():
        if mounted.controllers:
            continue
        own = _directory(mounted, _own().get(UNIFIED, "/"))
        for parent in v2_parents(own, mounted.mountpoint):
            if _open_for_children(parent, whole=parent == mounted.mountpoint):
                directory = f"{parent}/{paths.name()}"
                os.makedirs(directory, exist_ok=True)
                _enable(directory)
                return Base(version=2, hierarchies={UNIFIED: directory})
        raise HostRefused(
            f"cannot enable cgroup controllers in {own}: other processes live there",
            hint="start the agent as a systemd service with Delegate=yes",
        )
    return None


def v2_parents(own: str, root: str) -> list[str]:
    """Where the base may lie, best first."""
    if os.path.basename(own) == LEAF or own.endswith(".service"):
        own = os.path.dirname(own)
    return list(dict.fromkeys((own, root)))


def _open_for_children(directory: str, *, whole: bool) -> bool:
    """Make the directory fit for children with controllers: move the daemon out of it (with `whole` all who
    are in it), enable them."""
    if os.path.exists(f"{directory}/cgroup.type"):  # not the real root, which may have both
        inside = files.pids_here(directory)
        if not whole and any(pid != os.getpid() for pid in inside):
            return False
        leaf = f"{directory}/{LEAF}"
        if inside:
            os.makedirs(leaf, exist_ok=True)
        for pid in inside:
            files.write(f"{leaf}/cgroup.procs", str(pid))
    try:
        _enable(directory)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _enable(directory: str) -> None:
    available = set(files.read(f"{directory}/cgroup.controllers").split())
    enabled = set(files.read(f"{directory}/cgroup.subtree_control").split())
    wanted = [f"+{name}" for name in V2_CONTROLLERS if name in available - enabled]
    if wanted:
        files.write(f"{directory}/cgroup.subtree_control", " ".join(wanted))
