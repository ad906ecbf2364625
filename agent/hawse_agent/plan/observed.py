"""What is: the state of a host as the planner sees it, taken from the kernel, the disk and the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hawse_agent.spec.container import Resources
from hawse_agent.spec.records import ContainerRecord, ContainerStatus, NetworkRecord, PortRecord
from hawse_agent.spec.volume import VolumeSpec


@dataclass(frozen=True, kw_only=True)
class ObservedContainer:
    record: ContainerRecord
    status: ContainerStatus
    exit_code: int = 0
    health: str = ""
    """starting | healthy | unhealthy, or "" without a health check."""
    limits: Resources | None = None
    """What the cgroup's files say now; None when there is no cgroup."""
    ports_lost: tuple[PortRecord, ...] = ()
    """Published ports of a running container whose firewall element is gone from the kernel."""
    links_lost: tuple[str, ...] = ()
    """Host ends of its network links that are gone from the kernel."""


@dataclass(frozen=True, kw_only=True)
class ObservedNetwork:
    record: NetworkRecord
    lost: tuple[str, ...] = ()
    """What the kernel no longer has: "bridge hw1a2b3c", "table inet hawse"."""


@dataclass(frozen=True, kw_only=True)
class ObservedHost:
    containers: Mapping[str, ObservedContainer] = field(default_factory=dict)
    networks: Mapping[str, ObservedNetwork] = field(default_factory=dict)
    volumes: Mapping[str, VolumeSpec] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    """Canonical reference → image id."""
    firewall_lost: tuple[str, ...] = ()
    """Tables and chains of ours that are gone from the kernel."""
