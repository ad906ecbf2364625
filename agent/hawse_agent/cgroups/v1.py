"""cgroup v1: a directory in each controller's hierarchy."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Sequence

from hawse_agent.cgroups import files
from hawse_agent.cgroups.devices import DeviceRule
from hawse_agent.cgroups.group import BlockIo, Cgroup, OomNotifier, Stats
from hawse_agent.cgroups.limits import (
    CFS_PERIOD,
    DEFAULT_SHARES,
    Limit,
    device_number,
    device_path,
    maximum,
    quota_of,
)
from hawse_agent.errors import HostRefused
from hawse_agent.spec.container import DeviceRate, Resources

_UNLIMITED_MEMORY = 1 << 60
"""The kernel says "unlimited" as the largest multiple of a page below 2^63."""

FREEZE_TIMEOUT = 10.0


class CgroupV1(Cgroup):
    def allow_devices(self, rules: Sequence[DeviceRule]) -> None:
        directory = self.directory("devices")
        if directory is None:
            raise HostRefused("this machine has no devices cgroup: a container could open the host's disks")
        if any(rule.kind == "a" for rule in rules):
            return  # that is how it starts
        files.write(f"{directory}/devices.deny", "a")
        for rule in rules:
            try:
                files.write(f"{directory}/devices.allow", str(rule))
            except PermissionError:
                continue  # the agent itself may not use this device, so there is nothing to pass on

    def open_to_enter(self) -> tuple[int, ...]:
        """By its thread: for a whole process the kernel holds up all forks first, which takes it 10 ms."""
        return tuple(os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in self.paths)

    def stats(self) -> Stats:
        account, cpu, memory = (self._where(name) for name in ("cpuacct", "cpu", "memory"))
        pids, blkio = self._where("pids"), self._where("blkio")
        throttling = files.read_pairs(f"{cpu}/cpu.stat")
        limit = files.read_number(f"{memory}/memory.limit_in_bytes")
        return Stats(
            cpu_total_ns=files.read_number(f"{account}/cpuacct.usage"),
            cpu_user_ns=files.read_number(f"{account}/cpuacct.usage_user"),
            cpu_system_ns=files.read_number(f"{account}/cpuacct.usage_sys"),
            cpu_percpu_ns=_numbers(f"{account}/cpuacct.usage_percpu"),
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled_ns=throttling.get("throttled_time", 0),
            memory_usage=files.read_number(f"{memory}/memory.usage_in_bytes"),
            memory_limit=0 if limit >= _UNLIMITED_MEMORY else limit,
            memory_max_usage=files.read_number(f"{memory}/memory.max_usage_in_bytes"),
            memory_failures=files.read_number(f"{memory}/memory.failcnt"),
            memory_stat=files.read_pairs(f"{memory}/memory.stat"),
            pids_current=files.read_number(f"{pids}/pids.current"),
            pids_limit=files.read_number(f"{pids}/pids.max"),
            blkio_bytes=_block_counters(f"{blkio}/blkio.throttle.io_service_bytes_recursive"),
            blkio_operations=_block_counters(f"{blkio}/blkio.throttle.io_serviced_recursive"),
        )

    def freeze(self) -> None:
        directory = self.directory("freezer")
        if directory is None:
            return
        path = f"{directory}/freezer.state"
        files.write(path, "FROZEN")
        deadline = time.monotonic() + FREEZE_TIMEOUT
        while files.read(path) != "FROZEN":  # FREEZING; reading it lets the kernel look again
            if time.monotonic() > deadline:
                files.write(path, "THAWED")
                raise HostRefused(f"cannot freeze {self.name}: a process in it does not stop")
            time.sleep(0.001)  # v1 has no event for it

    def thaw(self) -> None:
        directory = self.directory("freezer")
        if directory is not None:
            files.write(f"{directory}/freezer.state", "THAWED")

    def oom_kills(self) -> int:
        directory = self.directory("memory")
        return files.read_pairs(f"{directory}/memory.oom_control").get("oom_kill", 0) if directory else 0

    def oom_notifier(self) -> OomNotifier | None:
        directory = self.directory("memory")
        if directory is None:
            return None
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            files.write(f"{directory}/cgroup.event_control", f"{event} {control}")
        finally:
            os.close(control)
        return OomNotifier(fd=event, events=select.POLLIN)

    def _process_directory(self) -> str:
        return self.directory("freezer") or self.directory("pids") or self.paths[0]

    def _in_order(self, resources: Resources) -> Sequence[Limit]:
        # memory ≤ memory+swap holds at every moment, so the larger of the two goes first when they grow.
        swap = self.directory("memory")
        now = files.read_number(f"{swap}/memory.memsw.limit_in_bytes") if swap else 0
        if resources.memory is not None and now and resources.memory > now:
            return sorted(self._limits, key=lambda limit: limit.field != "memory_swap")
        return self._limits

    def _limit_table(self) -> tuple[Limit, ...]:
        memory = self._where("memory")
        cpu, cpuset, pids, blkio = (self._where(name) for name in ("cpu", "cpuset", "pids", "blkio"))
        return (
            Limit(
                field="memory",
                directory=memory,
                file="memory.limit_in_bytes",
                render=lambda r: () if r.memory is None else (str(r.memory),),
                reset=lambda _: ("-1",),
                parse=_parse_memory,
            ),
            Limit(
                field="memory_swap",
                directory=memory,
                file="memory.memsw.limit_in_bytes",
                render=lambda r: () if r.memory_swap is None else (str(r.memory_swap),),
                reset=lambda _: ("-1",),
                parse=_parse_memory,
                optional=True,
            ),
            Limit(
                field="memory_reservation",
                directory=memory,
                file="memory.soft_limit_in_bytes",
                render=lambda r: () if r.memory_reservation is None else (str(r.memory_reservation),),
                reset=lambda _: ("-1",),
                parse=_parse_memory,
            ),
            Limit(
                field="cpu_period",
                directory=cpu,
                file="cpu.cfs_period_us",
                render=lambda r: () if r.cpu_period is None else (str(r.cpu_period),),
                reset=lambda _: (str(CFS_PERIOD),),
                parse=lambda text: None if int(text) == CFS_PERIOD else int(text),
            ),
            Limit(
                field="cpus",
                directory=cpu,
                file="cpu.cfs_quota_us",
                render=lambda r: () if (quota := quota_of(r)) is None else (str(quota),),
                reset=lambda _: ("-1",),
                parse=lambda text: _parse_quota(text, f"{cpu}/cpu.cfs_period_us"),
            ),
            Limit(
                field="cpu_shares",
                directory=cpu,
                file="cpu.shares",
                render=lambda r: () if r.cpu_shares is None else (str(r.cpu_shares),),
                reset=lambda _: (str(DEFAULT_SHARES),),
                parse=lambda text: None if int(text) == DEFAULT_SHARES else int(text),
            ),
            self._cpuset_limit(cpuset, "cpuset_cpus", "cpuset.cpus"),
            self._cpuset_limit(cpuset, "cpuset_mems", "cpuset.mems"),
            Limit(
                field="pids",
                directory=pids,
                file="pids.max",
                render=lambda r: () if r.pids is None else (str(r.pids),),
                reset=lambda _: ("max",),
                parse=maximum,
            ),
            _throttle(blkio, "read_bps"),
            _throttle(blkio, "write_bps"),
            _throttle(blkio, "read_iops"),
            _throttle(blkio, "write_iops"),
        )

    def _where(self, controller: str) -> str:
        """A directory that is not there makes each of its limits "not supported" by name."""
        return self.directory(controller) or f"/sys/fs/cgroup/{controller} (not mounted)"

    def _cpuset_limit(self, directory: str, field: str, file: str) -> Limit:
        inherited = f"{os.path.dirname(directory)}/{file}"

        def parse(text: str) -> str:
            return "" if text == files.read(inherited) else text

        def render(resources: Resources) -> tuple[str, ...]:
            value: str = getattr(resources, field)
            return (value,) if value else ()

        return Limit(
            field=field,
            directory=directory,
            file=file,
            render=render,
            reset=lambda _: (files.read(inherited),),
            parse=parse,
        )


def _parse_quota(text: str, period: str) -> float | None:
    return None if int(text) < 0 else int(text) / int(files.read(period))


def _parse_memory(text: str) -> int | None:
    return None if int(text) >= _UNLIMITED_MEMORY else int(text)


def _throttle(directory: str, field: str) -> Limit:
    operation, unit = field.split("_")

    def rates(resources: Resources) -> tuple[DeviceRate, ...]:
        value: tuple[DeviceRate, ...] = getattr(resources, field)
        return value

    def parse(text: str) -> tuple[DeviceRate, ...]:
        pairs = (line.split() for line in text.splitlines())
        return tuple(DeviceRate(path=device_path(number), rate=int(rate)) for number, rate in pairs)

    return Limit(
        field=field,
        directory=directory,
        file=f"blkio.throttle.{operation}_{unit}_device",
        render=lambda r: tuple(f"{device_number(rate.path)} {rate.rate}" for rate in rates(r)),
        reset=lambda text: tuple(f"{line.split()[0]} 0" for line in text.splitlines()),
        parse=parse,
    )


def _numbers(path: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in files.read(path).split())
    except FileNotFoundError:
        return ()


def _block_counters(path: str) -> tuple[BlockIo, ...]:
    """Lines of `MAJ:MIN Read N`, and a last one `Total N`."""
    try:
        lines = [line.split() for line in files.read(path).splitlines()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return ()
        raise
    counters = []
    for words in lines:
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            counters.append(
                BlockIo(major=int(major), minor=int(minor), operation=words[1], value=int(words[2]))
            )
    return tuple(counters)
