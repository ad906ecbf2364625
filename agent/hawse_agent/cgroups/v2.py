"""cgroup v2: one directory in the unified hierarchy."""

from __future__ import annotations

import math
import os
import select
from collections.abc import Sequence

from hawse_agent.cgroups import files
from hawse_agent.cgroups.base import UNIFIED
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
from hawse_agent.linux import bpf
from hawse_agent.spec.container import DeviceRate, Resources

FREEZE_TIMEOUT_MS = 10_000
DEFAULT_WEIGHT = 100


class CgroupV2(Cgroup):
    @property
    def path(self) -> str:
        return self._directories[UNIFIED]

    def allow_devices(self, rules: Sequence[DeviceRule]) -> None:
        if any(rule.kind == "a" for rule in rules):
            return
        allowed = [
            bpf.DeviceAccess(kind=rule.kind, major=rule.major, minor=rule.minor, access=rule.access)
            for rule in rules
        ]
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bpf.attach_device_program(directory, bpf.device_program(allowed))
        finally:
            os.close(directory)

    def open_for_clone(self) -> int | None:
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def freeze(self) -> None:
        self._freeze(True)

    def thaw(self) -> None:
        self._freeze(False)

    def kill(self) -> None:
        try:
            files.write(f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:  # before Linux 5.14
            super().kill()

    def stats(self) -> Stats:
        cpu = files.read_pairs(f"{self.path}/cpu.stat")
        bytes_, operations = self._block_stats()
        return Stats(
            cpu_total_ns=cpu.get("usage_usec", 0) * 1000,
            cpu_user_ns=cpu.get("user_usec", 0) * 1000,
            cpu_system_ns=cpu.get("system_usec", 0) * 1000,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_ns=cpu.get("throttled_usec", 0) * 1000,
            memory_usage=files.read_number(f"{self.path}/memory.current"),
            memory_limit=files.read_number(f"{self.path}/memory.max"),
            memory_max_usage=files.read_number(f"{self.path}/memory.peak"),
            memory_failures=files.read_pairs(f"{self.path}/memory.events").get("max", 0),
            memory_stat=files.read_pairs(f"{self.path}/memory.stat"),
            pids_current=files.read_number(f"{self.path}/pids.current"),
            pids_limit=files.read_number(f"{self.path}/pids.max"),
            blkio_bytes=bytes_,
            blkio_operations=operations,
        )

    def oom_kills(self) -> int:
        return files.read_pairs(f"{self.path}/memory.events").get("oom_kill", 0)

    def oom_notifier(self) -> OomNotifier | None:
        try:
            fd = os.open(f"{self.path}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        os.read(fd, 4096)  # from here on a change makes the file ready
        return OomNotifier(fd=fd, events=select.POLLPRI)

    def _process_directory(self) -> str:
        return self.path

    def _freeze(self, frozen: bool) -> None:
        files.write(f"{self.path}/cgroup.freeze", "1" if frozen else "0")
        events = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while f"frozen {int(frozen)}" not in os.pread(events, 4096, 0).decode():
                if not poll.poll(FREEZE_TIMEOUT_MS):
                    files.write(f"{self.path}/cgroup.freeze", "0")
                    raise HostRefused(f"cannot freeze {self.name}: a process in it does not stop")
        finally:
            os.close(events)

    def _limit_table(self) -> tuple[Limit, ...]:
        return (
            Limit(
                field="memory",
                directory=self.path,
                file="memory.max",
                render=lambda r: () if r.memory is None else (str(r.memory),),
                reset=lambda _: ("max",),
                parse=maximum,
            ),
            Limit(
                field="memory_swap",
                directory=self.path,
                file="memory.swap.max",
                render=_render_swap,
                reset=lambda _: ("max",),
                parse=self._parse_swap,
                optional=True,
            ),
            Limit(
                field="memory_reservation",
                directory=self.path,
                file="memory.low",
                render=lambda r: () if r.memory_reservation is None else (str(r.memory_reservation),),
                reset=lambda _: ("0",),
                parse=lambda text: None if text == "0" else int(text),
            ),
            Limit(
                field="cpus",
                directory=self.path,
                file="cpu.max",
                render=_render_cpu_max,
                reset=lambda _: ("max",),
                parse=_parse_cpu_max,
            ),
            Limit(
                field="cpu_shares",
                directory=self.path,
                file="cpu.weight",
                render=lambda r: () if r.cpu_shares is None else (str(weight_of(r.cpu_shares)),),
                reset=lambda _: (str(DEFAULT_WEIGHT),),
                parse=lambda text: None if int(text) == DEFAULT_WEIGHT else shares_of(int(text)),
            ),
            _cpuset(self.path, "cpuset_cpus", "cpuset.cpus"),
            _cpuset(self.path, "cpuset_mems", "cpuset.mems"),
            Limit(
                field="pids",
                directory=self.path,
                file="pids.max",
                render=lambda r: () if r.pids is None else (str(r.pids),),
                reset=lambda _: ("max",),
                parse=maximum,
            ),
            _io_max(self.path, "read_bps", "rbps"),
            _io_max(self.path, "write_bps", "wbps"),
            _io_max(self.path, "read_iops", "riops"),
            _io_max(self.path, "write_iops", "wiops"),
        )

    def _parse_swap(self, text: str) -> int | None:
        """The spec counts memory and swap together, the file swap alone."""
        memory = maximum(files.read(f"{self.path}/memory.max"))
        swap = maximum(text)
        return None if memory is None or swap is None else memory + swap

    def _block_stats(self) -> tuple[tuple[BlockIo, ...], tuple[BlockIo, ...]]:
        try:
            lines = files.read(f"{self.path}/io.stat").splitlines()
        except FileNotFoundError:
            return (), ()
        bytes_: list[BlockIo] = []
        operations: list[BlockIo] = []
        for number, *words in map(str.split, lines):
            major, minor = (int(part) for part in number.split(":"))
            counters = dict(word.split("=", 1) for word in words if "=" in word)
            for key, operation, kind in (
                ("rbytes", "Read", bytes_),
                ("wbytes", "Write", bytes_),
                ("rios", "Read", operations),
                ("wios", "Write", operations),
            ):
                value = int(counters.get(key, 0))
                kind.append(BlockIo(major=major, minor=minor, operation=operation, value=value))
        return tuple(bytes_), tuple(operations)


def weight_of(shares: int) -> int:
    """v1 shares (2…262144, default 1024) to v2 weight (1…10000, default 100): the curve that runc 1.3 and
    crun use, which maps minimum, default and maximum onto each other."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def shares_of(weight: int) -> int:
    """The smallest shares that give at least `weight`."""
    low, high = 2, 262144
    while low < high:
        middle = (low + high) // 2
        if weight_of(middle) >= weight:
            high = middle
        else:
            low = middle + 1
    return DEFAULT_SHARES if weight == DEFAULT_WEIGHT else low


def _render_swap(resources: Resources) -> tuple[str, ...]:
    if resources.memory_swap is None:
        return ()
    if resources.memory_swap < 0 or resources.memory is None:
        return ("max",)
    return (str(resources.memory_swap - resources.memory),)


def _render_cpu_max(resources: Resources) -> tuple[str, ...]:
    quota = quota_of(resources)
    return () if quota is None else (f"{quota} {resources.cpu_period or CFS_PERIOD}",)


def _parse_cpu_max(text: str) -> float | None:
    quota, period = text.split()
    return None if quota == "max" else int(quota) / int(period)


def _cpuset(directory: str, field: str, file: str) -> Limit:
    """Empty is all that the parent has. With processes inside, Linux 6.1 and others refuse to make it empty
    again: it then names all that the parent has, and reads as unlimited, too."""
    inherited = f"{os.path.dirname(directory)}/{file}.effective"

    def render(resources: Resources) -> tuple[str, ...]:
        value: str = getattr(resources, field)
        return (value,) if value else ()

    def reset(text: str) -> tuple[str, ...]:
        if not text:
            return ()
        if files.read_pairs(f"{directory}/cgroup.events").get("populated"):
            return (files.read(inherited),)
        return ("\n",)

    def parse(text: str) -> str:
        return "" if not text or text == files.read(inherited) else text

    return Limit(field=field, directory=directory, file=file, render=render, reset=reset, parse=parse)


def _io_max(directory: str, field: str, key: str) -> Limit:
    """Four limits share one file, a line a device: `8:0 rbps=1024 wbps=max riops=max wiops=max`."""

    def render(resources: Resources) -> tuple[str, ...]:
        rates: tuple[DeviceRate, ...] = getattr(resources, field)
        return tuple(f"{device_number(rate.path)} {key}={rate.rate}" for rate in rates)

    def limited(text: str) -> list[tuple[str, int]]:
        found = []
        for number, *words in map(str.split, text.splitlines()):
            value = dict(word.split("=", 1) for word in words).get(key, "max")
            if value != "max":
                found.append((number, int(value)))
        return found

    return Limit(
        field=field,
        directory=directory,
        file="io.max",
        render=render,
        reset=lambda text: tuple(f"{number} {key}=max" for number, _ in limited(text)),
        parse=lambda text: tuple(
            DeviceRate(path=device_path(number), rate=rate) for number, rate in limited(text)
        ),
    )
