"""YAML inventories: groups at the top, each with `hosts`, `vars` and `children`. Other keys are refused."""

from __future__ import annotations

import difflib
from typing import Any

from hawse.inventory.graph import Graph, Group
from hawse.inventory.ranges import expand, parse_address
from hawse.variables import Variable, written
from hawse.yamlmarks import Marked, Marks, Place
from hawse_agent.errors import InputError, NotSupported

_KEYS = ("hosts", "vars", "children")


def read(document: Marked, graph: Graph) -> None:
    """Add what the document declares to the graph. Raises InputError with file and line."""
    value, marks = document.value, document.marks
    if value is None:
        return
    if not isinstance(value, dict):
        raise marks.error((), "expected groups: a mapping from names to their hosts, vars and children")
    if "plugin" in value:
        raise NotSupported("inventory plugins are not supported", where=marks.where(("plugin",)))
    for name, body in value.items():
        _group(name, body, (name,), marks, graph)


def _group(name: Any, body: Any, place: Place, marks: Marks, graph: Graph) -> Group:
    if not isinstance(name, str):
        raise marks.error(place, f"expected the name of a group, not {name!r}", hint="quote it")
    group = graph.group(name)
    sections = _mapping(body, place, marks, f"group {name!r}")
    for key, inner in sections.items():
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "known here: hosts, vars, children"
            raise marks.error((*place, key), f"unknown key {key!r} of group {name!r}", hint=hint)
        entries = _mapping(inner, (*place, key), marks, f"{key} of group {name!r}")
        for entry, content in entries.items():
            at = (*place, key, entry)
            if key == "hosts":
                _hosts(entry, content, at, group, marks, graph)
            elif key == "vars":
                for name_, variable in written({entry: content}, marks, at[:-1]).items():
                    graph.set_group_variable(group, name_, variable)
            else:
                child = _group(entry, content, at, marks, graph)
                try:
                    graph.hold(group, child)
                except InputError as error:
                    raise marks.error(at, error.message) from None
    return group


def _hosts(entry: Any, content: Any, place: Place, group: Group, marks: Marks, graph: Graph) -> None:
    if not isinstance(entry, str):
        raise marks.error(place, f"expected the name of a host, not {entry!r}", hint="quote it")
    variables = written(_mapping(content, place, marks, f"host {entry!r}"), marks, place)
    pattern, port = parse_address(entry)
    if port is not None:
        variables = {"ansible_port": Variable(port, marks, place), **variables}
    try:
        names = expand(pattern)
    except InputError as error:
        raise marks.error(place, error.message, hint=error.hint) from None
    for name in names:
        graph.host(name, group).variables.update(variables)


def _mapping(value: Any, place: Place, marks: Marks, what: str) -> dict[Any, Any]:
    """A mapping, nothing, or one name alone."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {value: None}
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else repr(value)
        raise marks.error(place, f"expected a mapping as {what}, not {kind}", hint="write `name:` for each")
    return value
