"""The inventory as the rest sees it: hosts by pattern, and the variables of each, by Ansible's precedence.

Low to high, of what an inventory gives:

    inline `all` vars < inline vars of other groups < group_vars/all beside the inventory < …beside the
    playbook < group_vars/* inventory < group_vars/* playbook < inline host vars < host_vars/* inventory <
    host_vars/* playbook

Groups are laid over each other by depth, then `ansible_group_priority`, then name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hawse.inventory import patterns, sources
from hawse.inventory.graph import LOCAL_NAMES, Graph, Group, Host
from hawse.inventory.varsfiles import VarsFiles
from hawse.variables import Variable, Variables, data
from hawse_agent.errors import InputError


class Inventory:
    def __init__(self, graph: Graph, directories: Iterable[Path], paths: Sequence[str] = ()) -> None:
        """`directories` hold the group_vars and host_vars of the inventory."""
        self._graph = graph
        once = {directory.absolute(): directory for directory in directories}
        self._beside = [VarsFiles(directory) for directory in once.values()]
        self._playbooks: dict[Path, VarsFiles] = {}
        self._paths = tuple(paths)
        self._implicit: dict[str, Host] = {}
        self._layers: dict[tuple[str, Path | None], dict[str, Variable]] = {}

    @property
    def hosts(self) -> list[Host]:
        return self._graph.hosts_of(self._graph.all)

    def host(self, name: str) -> Host:
        """Raises InputError for a name that is not in the inventory."""
        found = self._graph.hosts.get(name) or self._local(name)
        if found is None:
            raise InputError(f"no such host in the inventory: {name}")
        return found

    def match(self, pattern: str | Sequence[str], limit: str | Sequence[str] = ()) -> list[Host]:
        """The hosts of a pattern, in its order; `limit` leaves only those that it matches as well.

        `@file` in a limit stands for the patterns in the file, one a line. Raises InputError for a term that
        means nothing.
        """
        hosts = patterns.match(self._graph, pattern, self._local)
        wanted = _from_files(patterns.split(limit))
        if not wanted:
            return hosts
        allowed = patterns.match(self._graph, wanted, self._local)
        return [host for host in hosts if host in allowed]

    def matches(self, pattern: str, host: str) -> bool:
        return any(found.name == host for found in self.match(pattern))

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Every group with the names of its hosts: the magic variable `groups`."""
        return {
            name: [host.name for host in self._graph.hosts_of(group)]
            for name, group in self._graph.groups.items()
        }

    def variables(self, host: Host, playbook_dir: Path | None = None) -> dict[str, Variable]:
        """What inventory and vars files say about a host; facts, plays and `-e` come on top of it."""
        key = (host.name, playbook_dir)
        if key not in self._layers:
            self._layers[key] = self._merged(host, playbook_dir)
        return self._layers[key]

    def magic(self, host: Host) -> dict[str, Variable]:
        """The names that nothing can override."""
        groups = sorted(group.name for group in self._graph.groups_of(host) if group is not self._graph.all)
        return {
            "inventory_hostname": data(host.name),
            "inventory_hostname_short": data(host.name.partition(".")[0]),
            "group_names": data(groups),
            "groups": data(self.groups),
            "inventory_file": data(self._paths[-1] if self._paths else None),
            "inventory_dir": data(str(Path(self._paths[-1]).absolute().parent) if self._paths else None),
        }

    # as ansible-inventory shows it

    def list_json(self) -> dict[str, Any]:
        """`ansible-inventory --list`: groups with hosts and children, and the variables of each host."""
        shown: dict[str, Any] = {"_meta": {"hostvars": {}}}
        for host in self.hosts:
            if variables := self.host_json(host.name):
                shown["_meta"]["hostvars"][host.name] = variables
        self._list_group(self._graph.all, shown)
        return shown

    def host_json(self, name: str) -> dict[str, Any]:
        """`ansible-inventory --host`: its variables, as they are written."""
        return {key: variable.value for key, variable in self.variables(self.host(name)).items()}

    def graph_text(self, pattern: str = "all") -> str:
        """`ansible-inventory --graph`: a tree of groups and hosts."""
        group = self._graph.groups.get(pattern)
        if group is None:
            raise InputError(f"no such group in the inventory: {pattern}")
        return "\n".join(_tree(group, 0))

    # steps

    def _list_group(self, group: Group, shown: dict[str, Any]) -> None:
        if group.name in shown:
            return
        entry: dict[str, Any] = {}
        shown[group.name] = entry
        children = [child.name for child in group.children]
        hosts = [host.name for host in group.hosts]
        if hosts and group is not self._graph.all:
            entry["hosts"] = hosts
        if children:
            entry["children"] = children
        for child in group.children:
            self._list_group(child, shown)
        if not entry:
            del shown[group.name]

    def _local(self, name: str) -> Host | None:
        if name not in LOCAL_NAMES:
            return None
        if name not in self._implicit:
            local = {"ansible_connection": data("local")}
            self._implicit[name] = Host(name=name, variables=local, implicit=True)
        return self._implicit[name]

    def _merged(self, host: Host, playbook_dir: Path | None) -> dict[str, Variable]:
        groups = self._graph.groups_of(host)
        others = [group for group in groups if group is not self._graph.all]
        beside = self._beside
        play = [self._playbook(playbook_dir)] if playbook_dir is not None else []
        layers: list[Variables] = [
            *(group.variables for group in groups),
            *(files.group("all") for files in beside + play),
            *(files.group(group.name) for files in beside for group in others),
            *(files.group(group.name) for files in play for group in others),
            host.variables,
            *(files.host(host.name) for files in beside + play),
        ]
        merged: dict[str, Variable] = {}
        for layer in layers:
            merged.update(layer)
        return merged

    def _playbook(self, directory: Path) -> VarsFiles:
        same = next(
            (files for files in self._beside if files.directory.absolute() == directory.absolute()), None
        )
        return same or self._playbooks.setdefault(directory, VarsFiles(directory))


def load(inventory_sources: Sequence[str | Path]) -> Inventory:
    """The inventory of all sources, later ones winning. Raises InputError with file and line."""
    graph = Graph()
    directories: list[Path] = []
    for source in inventory_sources:
        directory = sources.read(source, graph)
        if directory is not None:
            directories.append(directory)
    graph.settle()
    return Inventory(graph, directories, [str(source) for source in inventory_sources])


def _from_files(terms: Sequence[str]) -> list[str]:
    result: list[str] = []
    for term in terms:
        if not term.startswith("@"):
            result.append(term)
            continue
        try:
            lines = Path(term[1:]).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"cannot read the limit: {error.strerror}", where=term[1:]) from error
        result += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return result


def _tree(group: Group, depth: int) -> list[str]:
    indent = "  |" * depth + ("--" if depth else "")
    lines = [f"{indent}@{group.name}:"]
    for child in group.children:
        lines += _tree(child, depth + 1)
    if group.name != "all":
        lines += ["  |" * (depth + 1) + "--" + host.name for host in group.hosts]
    return lines
