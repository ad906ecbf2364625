"""All cgroups of an instance."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hawse_agent.cgroups import files
from hawse_agent.cgroups.base import Base
from hawse_agent.cgroups.devices import DeviceRule
from hawse_agent.cgroups.group import Cgroup
from hawse_agent.cgroups.v1 import CgroupV1
from hawse_agent.cgroups.v2 import CgroupV2
from hawse_agent.errors import Conflict, NotFound
from hawse_agent.spec.container import Resources


class Tree:
    def __init__(self, base: Base) -> None:
        self._base = base

    def create(self, name: str, resources: Resources, devices: Sequence[DeviceRule] | None = None) -> Cgroup:
        """A fresh cgroup with its limits, before any process is in it. `devices` are the only ones allowed;
        None allows all. What an earlier run left empty is replaced; Conflict when processes
        live in it."""
        cgroup = self._cgroup(name)
        for path in cgroup.paths:
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                if files.pids(path):
                    raise Conflict(f"cgroup {path} has processes of somebody else") from None
                files.remove(path)
                os.mkdir(path, 0o755)
        try:
            if devices is not None:
                cgroup.allow_devices(devices)
            cgroup.set_limits(resources)
        except BaseException:
            cgroup.remove()
            raise
        return cgroup

    def open(self, name: str) -> Cgroup:
        cgroup = self._cgroup(name)
        if not any(os.path.isdir(path) for path in cgroup.paths):
            raise NotFound(f"No such cgroup: {name}")
        return cgroup

    def names(self) -> list[str]:
        found: set[str] = set()
        for directory in self._base.directories():
            if os.path.isdir(directory):
                with os.scandir(directory) as entries:
                    found.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return sorted(found)

    def remove_base(self) -> None:
        """All of the instance's directories; containers must be gone."""
        for directory in self._base.directories():
            files.remove(directory)

    def _cgroup(self, name: str) -> Cgroup:
        directories = {
            controller: f"{directory}/{name}" for controller, directory in self._base.hierarchies.items()
        }
        return (CgroupV1 if self._base.version == 1 else CgroupV2)(name, directories)
