"""Limits, statistics, freezing and killing of containers by cgroups, v1 and v2 behind one interface.

    find_base(paths) → Base      where this agent's containers live in each hierarchy
    Tree(base).create(…) → Cgroup    one container's directories

Touches nothing but directories below the base that it has made itself.
"""

from hawse_agent.cgroups.base import Base, find_base, leave_session, release_base
from hawse_agent.cgroups.devices import DeviceRule, device_rules
from hawse_agent.cgroups.group import BlockIo, Cgroup, OomNotifier, Stats
from hawse_agent.cgroups.tree import Tree

__all__ = [
    "Base",
    "BlockIo",
    "Cgroup",
    "DeviceRule",
    "OomNotifier",
    "Stats",
    "Tree",
    "device_rules",
    "find_base",
    "leave_session",
    "release_base",
]
