"""`/containers/{id}/stats`: counters of one moment, and those of the moment before, in Docker's JSON."""

from __future__ import annotations

import os
import time
from typing import Any

from hawse_agent.api.docker.views.times import NEVER, stamp
from hawse_agent.cgroups import Stats
from hawse_agent.cgroups.group import BlockIo
from hawse_agent.engine.views import ContainerView

_NO_CPU: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_BLKIO = (
    *("io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive"),
    *("io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive"),
    *("io_time_recursive", "sectors_recursive"),
)


def as_json(view: ContainerView, now: Stats | None, before: dict[str, Any] | None) -> dict[str, Any]:
    """`now` is None for a container that has no processes, `before` for the first of a series."""
    last = before or {"read": NEVER, "cpu_stats": _NO_CPU}
    shown = {
        "id": view.id,
        "name": f"/{view.name}",
        "preread": last["read"],
        "precpu_stats": last["cpu_stats"],
        "num_procs": 0,
        "storage_stats": {},
    }
    if now is None:
        nothing = {"cpu_stats": _NO_CPU, "memory_stats": {}, "pids_stats": {}}
        return {**shown, "read": NEVER, **nothing, "blkio_stats": dict.fromkeys(_BLKIO)}
    io = {"io_service_bytes_recursive": now.blkio_bytes, "io_serviced_recursive": now.blkio_operations}
    networks = _networks(view)
    return {
        **shown,
        "read": stamp(time.time()),
        "cpu_stats": _cpu(now),
        "memory_stats": {
            "usage": now.memory_usage,
            "max_usage": now.memory_max_usage,
            "limit": now.memory_limit or _total_memory(),
            "failcnt": now.memory_failures,
            "stats": dict(now.memory_stat),
        },
        "pids_stats": {"current": now.pids_current, **({"limit": now.pids_limit} if now.pids_limit else {})},
        "blkio_stats": {name: [_blkio(entry) for entry in io.get(name, ())] for name in _BLKIO},
        **({"networks": networks} if networks else {}),
    }


def _cpu(now: Stats) -> dict[str, Any]:
    return {
        "cpu_usage": {
            "total_usage": now.cpu_total_ns,
            "usage_in_usermode": now.cpu_user_ns,
            "usage_in_kernelmode": now.cpu_system_ns,
            **({"percpu_usage": list(now.cpu_percpu_ns)} if now.cpu_percpu_ns else {}),
        },
        "system_cpu_usage": _system_cpu(),
        "online_cpus": os.cpu_count(),
        "throttling_data": {
            "periods": now.periods,
            "throttled_periods": now.throttled_periods,
            "throttled_time": now.throttled_ns,
        },
    }


def _system_cpu() -> int:
    """Nanoseconds of all CPUs together since the boot, as Docker counts them: without stolen time."""
    with open("/proc/stat") as file:
        ticks = sum(int(word) for word in file.readline().split()[1:8])
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _blkio(entry: BlockIo) -> dict[str, Any]:
    return {"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value}


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _networks(view: ContainerView) -> dict[str, dict[str, int]]:
    """Of the container's own interfaces, by its PID 1."""
    if not view.state.pid or not view.endpoints:
        return {}
    try:
        with open(f"/proc/{view.state.pid}/net/dev") as file:
            lines = file.read().splitlines()[2:]
    except OSError:  # it has just ended
        return {}
    found = {}
    names = ("bytes", "packets", "errors", "dropped")
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        if name.strip() != "lo":
            found[name.strip()] = {
                **{f"rx_{key}": value for key, value in zip(names, numbers[:4], strict=True)},
                **{f"tx_{key}": value for key, value in zip(names, numbers[8:12], strict=True)},
            }
    return found
