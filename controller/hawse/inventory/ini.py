"""INI inventories, exactly as Ansible reads them, except that an error anywhere refuses the whole file.

    web1 ansible_host=10.0.0.1        a host in the group of the section, `[ungrouped]` at the start
    [web]                             hosts       [web:children]  groups       [web:vars]  name = value

Values are Python literals where they can be read as one (`8080`, `True`, `[1, 2]`), text otherwise.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from typing import Any

from hawse.inventory.graph import Graph, Group
from hawse.inventory.ranges import expand, parse_address
from hawse.variables import Variable
from hawse.yamlmarks import Marks
from hawse_agent.errors import InputError

_SECTION = re.compile(r"\[(?P<name>[^:\]\s]+)(?::(?P<kind>\w+))?\]\s*(?:#.*)?")


def read(text: str, file: str, graph: Graph) -> None:
    """Add what `text` declares to the graph. Raises InputError with file and line."""
    _Reader(file, graph).read(text)


class _Reader:
    def __init__(self, file: str, graph: Graph) -> None:
        self._file = file
        self._graph = graph
        self._declared: set[str] = {"all", "ungrouped"}
        self._wanted: dict[str, str] = {}
        """Groups that are used but not declared yet, and where."""

    def read(self, text: str) -> None:
        group, kind = self._graph.ungrouped, "hosts"
        for number, raw in enumerate(text.splitlines(), start=1):
            line = raw.strip()
            where = f"{self._file}:{number}"
            if not line or line[0] in "#;":
                continue
            try:
                if (match := _SECTION.fullmatch(line)) is not None:
                    group, kind = self._section(match["name"], match["kind"] or "hosts", where)
                elif line.startswith("[") and line.endswith("]"):
                    raise InputError(f"not a valid section: {line}")
                elif kind == "hosts":
                    self._hosts(line, group, number)
                elif kind == "children":
                    self._child(line, group, where)
                else:
                    self._variable(line, group, number)
            except InputError as error:
                if error.where:
                    raise
                raise type(error)(error.message, where=where, hint=error.hint) from None
        for name, where in self._wanted.items():
            if name not in self._declared:
                raise InputError(f"group {name!r} is not declared in this file", where=where)

    def _section(self, name: str, kind: str, where: str) -> tuple[Group, str]:
        if kind not in ("hosts", "children", "vars"):
            raise InputError(f"unknown kind of section: {kind}", hint="known: hosts, children, vars")
        if kind == "vars":
            self._wanted.setdefault(name, where)
        else:
            self._declared.add(name)
        return self._graph.group(name), kind

    def _hosts(self, line: str, group: Group, number: int) -> None:
        try:
            first, *rest = shlex.split(line, comments=True)
        except ValueError as error:
            raise InputError(f"not a valid host line: {error}") from None
        variables = {}
        for token in rest:
            name, equals, value = token.partition("=")
            if not equals:
                raise InputError(f"expected key=value, not {token!r}", hint="quote a value with spaces")
            variables[name] = self._value(value, number)
        pattern, port = parse_address(first)
        if port is not None:
            variables = {"ansible_port": self._plain(port, number), **variables}
        for name in expand(pattern):
            self._graph.host(name, group).variables.update(variables)

    def _child(self, line: str, group: Group, where: str) -> None:
        name = line.partition("#")[0].strip()
        if not name or re.search(r"\s", name):
            raise InputError(f"expected the name of a group, not {line!r}")
        self._wanted.setdefault(name, where)
        self._graph.hold(group, self._graph.group(name))

    def _variable(self, line: str, group: Group, number: int) -> None:
        name, equals, value = line.partition("=")
        if not equals:
            raise InputError(f"expected key=value, not {line!r}")
        self._graph.set_group_variable(group, name.strip(), self._value(value.strip(), number))

    def _value(self, text: str, number: int) -> Variable:
        return self._plain(literal(text), number)

    def _plain(self, value: Any, number: int) -> Variable:
        return Variable(value, Marks(file=self._file, lines={(): number}))


def literal(text: str) -> Any:
    """A Python literal as a plain value; anything else stays text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return _listed(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _listed(value: Any) -> Any:
    """Tuples and sets as lists; raises ValueError for what inventories have no word for."""
    if isinstance(value, tuple | set | list):
        return [_listed(item) for item in value]
    if isinstance(value, dict):
        return {_listed(key): _listed(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(type(value).__name__)
