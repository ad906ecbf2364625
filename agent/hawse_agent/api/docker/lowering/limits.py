"""Limits of a create or update request. Asks how many CPUs and memory nodes there are."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hawse_agent.api.docker.fields import Fields
from hawse_agent.errors import InputError
from hawse_agent.spec.container import DeviceRate, Resources, Ulimit

_CPU_PERIOD = 100_000
_LEAST_MEMORY = 6 * 1024 * 1024
_UNLIMITED = Resources()
_NANO = 1_000_000_000


def resources(given: Fields, now: Resources = _UNLIMITED) -> Resources:
    """Limits of a create request, or of an update: what is not given stays as it is `now`."""
    memory, reservation = limit(given, "Memory"), limit(given, "MemoryReservation")
    swap, pids = given.number("MemorySwap"), given.number("PidsLimit")
    if now.memory_swap is not None and not swap and 0 < now.memory_swap < memory:
        raise InputError(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the "
            "same time"
        )
    cpus, period = _cpus(given, now)
    limits = Resources(
        memory=memory or now.memory,
        memory_swap=swap or now.memory_swap,
        memory_reservation=reservation or now.memory_reservation,
        cpus=cpus,
        cpu_period=period,
        cpu_shares=limit(given, "CpuShares") or now.cpu_shares,
        cpuset_cpus=_cpuset(given, "CpusetCpus") or now.cpuset_cpus,
        cpuset_mems=_cpuset(given, "CpusetMems") or now.cpuset_mems,
        pids=(pids or now.pids) if pids >= 0 else None,
        read_bps=_rates(given.objects("BlkioDeviceReadBps")) or now.read_bps,
        write_bps=_rates(given.objects("BlkioDeviceWriteBps")) or now.write_bps,
        read_iops=_rates(given.objects("BlkioDeviceReadIOps")) or now.read_iops,
        write_iops=_rates(given.objects("BlkioDeviceWriteIOps")) or now.write_iops,
    )
    _check_memory(limits)
    return limits


def _cpus(given: Fields, now: Resources) -> tuple[float | None, int | None]:
    """How many, and the period in which they are counted when it is a container's own."""
    nano, quota, period = limit(given, "NanoCpus"), given.number("CpuQuota"), limit(given, "CpuPeriod")
    if nano and (quota or period):
        raise InputError("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nano:
        available = len(os.sched_getaffinity(0))
        if not _NANO // 100 <= nano <= available * _NANO:
            raise InputError(
                f"range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
            )
        if now.cpu_period is not None:
            raise InputError(
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"
            )
        return nano / _NANO, None
    if not quota and not period:
        return now.cpus, now.cpu_period
    if quota < 0 and not period:
        return None, now.cpu_period
    if now.cpus is not None and now.cpu_period is None:
        name = "CPU Quota" if quota else "CPU Period"
        raise InputError(f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set")
    if period and not 1_000 <= period <= 1_000_000:
        raise InputError(
            "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1_000:
        raise InputError("CPU cfs quota cannot be less than 1ms (i.e. 1000)")
    before = now.cpu_period or _CPU_PERIOD
    period = period or before
    if not quota and now.cpus is not None:
        quota = round(now.cpus * before)
    return (quota / period if quota > 0 else None), period


def _cpuset(given: Fields, key: str) -> str:
    """`0-2,4`, of those that the machine has."""
    text = given.text(key)
    kind = key.removeprefix("Cpuset")
    if not re.fullmatch(r"(N(-N)?(,N(-N)?)*)?".replace("N", "[0-9]{1,18}"), text):
        raise InputError(f"Invalid value {text} for cpuset {kind.lower()}")
    try:
        available = _ONLINE[key].read_text().strip()
    except FileNotFoundError:  # a machine without NUMA has one node
        available = "0"
    if not _numbers(text) <= _numbers(available):
        noun = {"Cpus": "CPUs", "Mems": "memory nodes"}[kind]
        raise InputError(f"Requested {noun} are not available - requested {text}, available: {available}")
    return text


_ONLINE = {
    "CpusetCpus": Path("/sys/devices/system/cpu/online"),
    "CpusetMems": Path("/sys/devices/system/node/online"),
}


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise InputError(f"{text}: {part} goes backwards")
        found.update(range(low, min(high, _MOST_NUMBERS) + 1))
        found.update((low, high))
    return found


_MOST_NUMBERS = 8191
"""Of processors that a kernel can be built for."""


def _check_memory(limits: Resources) -> None:
    swap = limits.memory_swap
    if swap is not None and swap > 0 and limits.memory is None:
        raise InputError("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory is None:
        return
    if limits.memory < _LEAST_MEMORY:
        raise InputError("Minimum memory limit allowed is 6MB")
    if swap is not None and 0 < swap < limits.memory:
        raise InputError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory_reservation is not None and limits.memory_reservation > limits.memory:
        raise InputError("Minimum memory limit should be larger than memory reservation limit, see usage")


def _rates(given: list[Any]) -> tuple[DeviceRate, ...]:
    found = []
    for entry in given:
        fields = Fields(entry, "BlkioDevice")
        found.append(DeviceRate(path=fields.text("Path"), rate=fields.number("Rate")))
        fields.rest()
    return tuple(found)


def limit(given: Fields, key: str) -> int:
    number = given.number(key)
    if number < 0:
        raise InputError(f"{key}: {number} is not a limit")
    return number


def oom_score(number: int) -> int:
    if not -1000 <= number <= 1000:
        raise InputError(f"Invalid value {number}, range for oom score adj is [-1000, 1000]")
    return number


def ulimits(given: list[Any]) -> tuple[Ulimit, ...]:
    found = []
    for entry in given:
        fields = Fields(entry, "Ulimits")
        found.append(Ulimit(name=fields.text("Name"), soft=fields.number("Soft"), hard=fields.number("Hard")))
        fields.rest()
    return tuple(found)
