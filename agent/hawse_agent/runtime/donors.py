"""Other containers whose namespaces are shared, as they are at this moment.

Each start looks for their first process anew, those that a shim does by itself, too: the number that it had
can be anybody's by now, a process of the host's among them. What their shims have written says which it is;
it must be in their cgroup, and live still when its namespaces have been opened.
"""

from __future__ import annotations

import contextlib
import json
import os

from hawse_agent.cgroups import Base, Tree
from hawse_agent.errors import Conflict, NotFound
from hawse_agent.linux import namespace
from hawse_agent.spec import codec
from hawse_agent.spec.runtime import RuntimeConfig

_PREFIX = "container:"


class Donors:
    """Those that `config` names as `container:ID`. Descriptors are closed with `opened`."""

    def __init__(self, config: RuntimeConfig, opened: contextlib.ExitStack) -> None:
        self._config, self._opened = config, opened
        self._found: dict[str, tuple[int, int]] = {}

    def open(self, mode: str, kind: str) -> int | None:
        """Its namespace of that kind (net, pid, ipc, uts, mnt, user); None when `mode` is no `container:ID`.
        Raises Conflict when that container does not run."""
        if not mode.startswith(_PREFIX):
            return None
        container_id = mode.removeprefix(_PREFIX)
        pid, pidfd = self._found.get(container_id) or self._find(container_id)
        try:
            fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise _not_running(container_id) from None
        self._opened.callback(os.close, fd)
        if namespace.has_ended(pidfd):  # else that number has been its own until now
            raise _not_running(container_id)
        return fd

    def _find(self, container_id: str) -> tuple[int, int]:
        pid = self._told_pid(container_id)
        try:
            pidfd = namespace.pidfd_open(pid) if pid > 0 else -1
        except ProcessLookupError:
            pidfd = -1
        if pidfd < 0:
            raise _not_running(container_id)
        self._opened.callback(os.close, pidfd)
        base = codec.loads(Base, self._config.cgroup_base)
        try:
            inside = pid in Tree(base).open(container_id).pids()
        except (NotFound, FileNotFoundError):
            inside = False
        if not inside or namespace.has_ended(pidfd):
            raise _not_running(container_id)
        self._found[container_id] = pid, pidfd
        return pid, pidfd

    def _told_pid(self, container_id: str) -> int:
        """0 when it does not run."""
        path = os.path.join(os.path.dirname(self._config.run_dir), container_id, "state.json")
        try:
            with open(path, "rb") as file:
                return int(json.loads(file.read()).get("pid") or 0)
        except (FileNotFoundError, ValueError):
            return 0


def _not_running(container_id: str) -> Conflict:
    return Conflict(f"cannot join the namespaces of container {container_id}: it is not running")
