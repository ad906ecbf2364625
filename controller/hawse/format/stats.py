"""A row of `stats`: what a container uses, computed from two samples as docker's client does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hawse.format.listing import Listing
from hawse.format.units import bytes_size, human_size, short_id
from hawse.format.values import Row

STATS = Listing(
    headings={
        "Container": "CONTAINER",
        "Name": "NAME",
        "ID": "CONTAINER ID",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
    table="{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
)

Sample = Mapping[str, Any]


def stats_row(name: str, sample: Sample, before: Sample | None, *, cut: bool) -> Row:
    """`name` is what the container was asked for by; without a sample `before` it has used no CPU yet."""
    memory = sample.get("memory_stats") or {}
    used, limit = _memory(memory), memory.get("limit", 0)
    networks = (sample.get("networks") or {}).values()
    received, sent = (sum(network[key] for network in networks) for key in ("rx_bytes", "tx_bytes"))
    read, written = _blocks(sample)
    return Row(
        {
            "Container": name,
            "Name": sample["name"].removeprefix("/") or "--",
            "ID": short_id(sample["id"]) if cut else sample["id"],
            "CPUPerc": f"{_cpu(sample, before or sample):.2f}%",
            "MemUsage": f"{bytes_size(used)} / {bytes_size(limit)}",
            "MemPerc": f"{used / limit * 100.0 if limit else 0.0:.2f}%",
            "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}",
            "BlockIO": f"{human_size(read, 3)} / {human_size(written, 3)}",
            "PIDs": str((sample.get("pids_stats") or {}).get("current", 0)),
        }
    )


def _cpu(sample: Sample, before: Sample) -> float:
    """Of one CPU, in per cent."""
    now, then = sample["cpu_stats"], before["cpu_stats"]
    used = now["cpu_usage"]["total_usage"] - then["cpu_usage"]["total_usage"]
    passed = (now.get("system_cpu_usage") or 0) - (then.get("system_cpu_usage") or 0)
    count = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ())
    return used / passed * count * 100.0 if passed > 0 and used > 0 else 0.0


def _memory(memory: Mapping[str, Any]) -> int:
    """Without the page cache that can go at any time: cgroup v1 calls it total_inactive_file."""
    usage, stats = memory.get("usage", 0), memory.get("stats") or {}
    idle = stats.get("total_inactive_file", usage)
    if idle >= usage:
        idle = stats.get("inactive_file", 0)
    return int(usage - idle if idle < usage else usage)


def _blocks(sample: Sample) -> tuple[int, int]:
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    read, written = (sum(e["value"] for e in entries if e["op"][:1].lower() == kind) for kind in "rw")
    return read, written
