"""Groups and hosts while an inventory is read, and their order once it is.

`all` holds every group that no other group holds, and `ungrouped` the hosts that are in no other group.
A group's depth is its longest way from `all`: variables of deeper groups win.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hawse.variables import Variable
from hawse_agent.errors import InputError

PRIORITY = "ansible_group_priority"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(kw_only=True, eq=False)
class Host:
    name: str
    variables: dict[str, Variable] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    """Groups that name the host themselves."""
    implicit: bool = False
    """This machine, named by nobody but the pattern."""

    def __repr__(self) -> str:
        return f"Host({self.name!r})"


@dataclass(kw_only=True, eq=False)
class Group:
    name: str
    variables: dict[str, Variable] = field(default_factory=dict)
    hosts: list[Host] = field(default_factory=list)
    children: list[Group] = field(default_factory=list)
    parents: list[Group] = field(default_factory=list)
    depth: int = 0
    priority: int = 1

    def __repr__(self) -> str:
        return f"Group({self.name!r})"


class Graph:
    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.groups: dict[str, Group] = {}
        self.all = self.group("all")
        self.ungrouped = self.group("ungrouped")
        self.hold(self.all, self.ungrouped)

    def group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group(name=name))

    def host(self, name: str, group: Group) -> Host:
        """The host of this name, now in the group as well."""
        host = self.hosts.setdefault(name, Host(name=name))
        if group not in host.groups:
            host.groups.append(group)
            group.hosts.append(host)
        return host

    def hold(self, parent: Group, child: Group) -> None:
        """Make `child` a child of `parent`; raises InputError when that closes a circle."""
        if child in parent.children:
            return
        if parent is child or parent in descendants(child):
            raise InputError(f"group {child.name!r} cannot be a child of {parent.name!r}: it contains it")
        parent.children.append(child)
        child.parents.append(parent)

    def set_group_variable(self, group: Group, name: str, variable: Variable) -> None:
        if name != PRIORITY:
            group.variables[name] = variable
            return
        try:
            group.priority = int(variable.value)
        except (TypeError, ValueError):
            raise InputError(f"{PRIORITY} is a number", where=variable.where()) from None

    def settle(self) -> None:
        """Put every group below `all` and every host without a group into `ungrouped`; find the depths."""
        for group in self.groups.values():
            if group is not self.all and not group.parents:
                self.hold(self.all, group)
        for host in self.hosts.values():
            named = [group for group in host.groups if group not in (self.all, self.ungrouped)]
            if named and self.ungrouped in host.groups:
                host.groups.remove(self.ungrouped)
                self.ungrouped.hosts.remove(host)
            elif not named and self.ungrouped not in host.groups:
                self.host(host.name, self.ungrouped)
        depths: dict[Group, int] = {}
        for group in self.groups.values():
            group.depth = _depth(group, depths)

    def hosts_of(self, group: Group) -> list[Host]:
        """The hosts of a group and of all groups below it: its own first, then level by level."""
        return list(dict.fromkeys(host for inner in descendants(group) for host in inner.hosts))

    def groups_of(self, host: Host) -> list[Group]:
        """Every group that a host is in, in the order in which their variables are laid over each other."""
        found = {self.all: None} | dict.fromkeys(outer for group in host.groups for outer in ancestors(group))
        return sorted(found, key=lambda group: (group.depth, group.priority, group.name))


def descendants(group: Group) -> list[Group]:
    """The group, its children, their children, …: breadth first, each once."""
    return _walk(group, "children")


def ancestors(group: Group) -> list[Group]:
    return _walk(group, "parents")


def _walk(group: Group, relation: str) -> list[Group]:
    found, level = {group: None}, [group]
    while level:
        level = [near for far in level for near in getattr(far, relation) if near not in found]
        found |= dict.fromkeys(level)
    return list(found)


def _depth(group: Group, known: dict[Group, int]) -> int:
    if group not in known:
        known[group] = max((_depth(parent, known) + 1 for parent in group.parents), default=0)
    return known[group]
