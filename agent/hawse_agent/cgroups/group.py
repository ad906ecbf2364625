"""A container's cgroup, and what both versions have in common."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hawse_agent.cgroups import files
from hawse_agent.cgroups.devices import DeviceRule
from hawse_agent.cgroups.limits import Limit
from hawse_agent.spec.container import Resources


@dataclass(frozen=True, kw_only=True)
class BlockIo:
    major: int
    minor: int
    operation: str
    """Read, Write, Sync, Async, Discard or Total."""
    value: int


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counters of one moment. Limits are 0 when there is none."""

    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_percpu_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_usage: int = 0
    memory_limit: int = 0
    memory_max_usage: int = 0
    memory_failures: int = 0
    memory_stat: Mapping[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int = 0
    blkio_bytes: tuple[BlockIo, ...] = ()
    blkio_operations: tuple[BlockIo, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OomNotifier:
    """An owned fd that becomes ready with `events` (of poll) when the kernel kills for want of memory, and
    when the cgroup is removed: ask `oom_kills()`."""

    fd: int
    events: int


class Cgroup(ABC):
    """`directories` in kernel terms: one on v2, one for each hierarchy on v1."""

    def __init__(self, name: str, directories: Mapping[str, str]) -> None:
        self.name = name
        self._directories = directories
        self._limits = self._limit_table()
        self.warnings: tuple[str, ...] = ()
        """What of the limits that were set last this kernel does not have."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Each directory once."""
        return tuple(dict.fromkeys(self._directories.values()))

    def directory(self, controller: str) -> str | None:
        """The one that has `controller`; None when it is not mounted."""
        return self._directories.get(controller)

    def add(self, pid: int) -> None:
        """Move a process (0: the caller) into it."""
        for path in self.paths:
            files.write(f"{path}/cgroup.procs", str(pid))

    def enter(self) -> None:
        """Move the calling process, which has one thread, into it."""
        for fd in self.open_to_enter():
            try:
                os.write(fd, b"0")
            finally:
                os.close(fd)

    def open_to_enter(self) -> tuple[int, ...]:
        """Owned fds for a process that will not see these files: it enters by writing "0" to each."""
        return tuple(os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for path in self.paths)

    def open_for_clone(self) -> int | None:
        """An owned fd to create a process inside it, which spares the kernel's slow move; None on v1."""
        return None

    def set_limits(self, resources: Resources) -> None:
        """Of a fresh cgroup: write what is asked for."""
        self.warnings = tuple(
            warning for limit in self._in_order(resources) if (warning := limit.set(resources))
        )

    def apply(self, resources: Resources) -> None:
        """Make the limits exactly `resources`: what it does not ask for is lifted."""
        for limit in reversed(self._limits):  # swap before memory: it may never be the smaller
            if not limit.render(resources):
                limit.lift()
        self.set_limits(resources)

    def limits(self) -> Resources:
        """What is in force now, in the spec's own normal form: None is unlimited."""
        values = {limit.field: limit.value() for limit in self._limits}
        if values.get("memory") is None:
            values["memory_swap"] = None
        elif values.get("memory_swap") is None:
            values["memory_swap"] = -1
        return Resources(**values)

    def pids(self) -> list[int]:
        """All processes in it and below."""
        return sorted(set(files.pids(self._process_directory())))

    def kill(self) -> None:
        """SIGKILL to every process in it; frozen so that none can fork away, thawed so that they can die."""
        self.freeze()
        try:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        finally:
            self.thaw()

    def remove(self) -> None:
        """Remove it with all below; its processes must be gone or going."""
        for path in self.paths:
            files.remove(path)

    def _in_order(self, resources: Resources) -> Sequence[Limit]:
        """The order in which the kernel accepts the new values."""
        return self._limits

    @abstractmethod
    def _limit_table(self) -> tuple[Limit, ...]: ...

    @abstractmethod
    def _process_directory(self) -> str: ...

    @abstractmethod
    def allow_devices(self, rules: Sequence[DeviceRule]) -> None:
        """Forbid all devices but these."""

    @abstractmethod
    def stats(self) -> Stats: ...

    @abstractmethod
    def freeze(self) -> None:
        """Returns when everything in it stands still."""

    @abstractmethod
    def thaw(self) -> None: ...

    @abstractmethod
    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""

    @abstractmethod
    def oom_notifier(self) -> OomNotifier | None:
        """None when memory is not controlled here."""
