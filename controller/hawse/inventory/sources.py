"""Where inventories come from: files (INI or YAML), programs, directories of these, and lists of hosts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from hawse import yamlmarks
from hawse.inventory import ini, yamlfile
from hawse.inventory.graph import Graph
from hawse.inventory.ranges import parse_address
from hawse.variables import Variable, written
from hawse.yamlmarks import Marks
from hawse_agent.errors import InputError, NotSupported

_IGNORED_DIRECTORIES = ("group_vars", "host_vars", "vars_plugins")
_IGNORED_ENDINGS = (
    "~", ".orig", ".cfg", ".retry", ".bak", ".swp", ".rpm", ".md", ".txt", ".rst", ".pyc", ".pyo",
)  # fmt: skip
_YAML = (".yml", ".yaml", ".json")

PROGRAM_TIMEOUT = 60.0
"""Seconds that an inventory program may take."""


def read(source: str | Path, graph: Graph) -> Path | None:
    """Add one source to the graph; the directory whose group_vars and host_vars belong to it, or None."""
    if isinstance(source, str) and "," in source and not Path(source).exists():
        _host_list(source, graph)
        return None
    path = Path(source)
    if path.is_dir():
        _directory(path, graph)
        return path
    if not path.exists():
        raise InputError(f"no such inventory: {path}", hint="a list of hosts needs a comma: -i web1,")
    _file(path, graph)
    return path.parent


def _directory(path: Path, graph: Graph) -> None:
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in _IGNORED_DIRECTORIES:
            continue
        if entry.name.endswith(_IGNORED_ENDINGS):
            continue
        if entry.is_dir():
            _directory(entry, graph)
        else:
            _file(entry, graph)


def _file(path: Path, graph: Graph) -> None:
    if path.suffix == ".toml":
        raise NotSupported("TOML inventories are not supported", where=str(path), hint="write INI or YAML")
    if os.access(path, os.X_OK) and path.suffix not in _YAML and _is_program(path):
        _program(path, graph)
        return
    text = yamlmarks.read_text(path)
    if path.suffix in _YAML or (not path.suffix and _looks_like_yaml(text)):
        yamlfile.read(yamlmarks.load(text, str(path)), graph)
    else:
        ini.read(text, str(path), graph)


def _looks_like_yaml(text: str) -> bool:
    """A name without extension may be either: only YAML begins with `---` or with `group:` alone."""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and stripped[0] not in "#;":
            return stripped == "---" or (stripped.endswith(":") and " " not in stripped)
    return False


def _host_list(text: str, graph: Graph) -> None:
    for item in text.split(","):
        if name := item.strip():
            host, port = parse_address(name)
            added = graph.host(host, graph.ungrouped)
            if port is not None:
                added.variables["ansible_port"] = Variable(port)


def _is_program(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    return start.startswith((b"#!", b"\x7fELF"))


def _program(path: Path, graph: Graph) -> None:
    """Run `path --list` and read the JSON that it prints."""
    try:
        done = subprocess.run(
            [str(path.absolute()), "--list"], capture_output=True, timeout=PROGRAM_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"the program took longer than {PROGRAM_TIMEOUT:.0f} s", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot run the program: {error.strerror}", where=str(path)) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise InputError(f"the program ended with {done.returncode}: {lines[-1]}", where=str(path))
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise InputError(f"the program did not print JSON: {error}", where=str(path)) from None
    if not isinstance(answer, dict):
        raise InputError("the program did not print a JSON object of groups", where=str(path))
    _Answer(path, graph).read(answer)


class _Answer:
    """What an inventory program printed: `{group: {hosts, vars, children}, _meta: {hostvars}}`."""

    def __init__(self, path: Path, graph: Graph) -> None:
        self._graph = graph
        self._marks = Marks(file=str(path), lines={})

    def read(self, answer: dict[str, Any]) -> None:
        meta = self._mapping(answer.pop("_meta", None) or {}, "_meta")
        hostvars = meta.get("hostvars")
        if hostvars is None:
            raise NotSupported(
                "inventory programs without _meta.hostvars are not supported", where=self._marks.file
            )
        for name, body in answer.items():
            group = self._graph.group(name)
            body = {"hosts": body} if isinstance(body, list) else self._mapping(body, name)
            for host in self._names(body.get("hosts"), name):
                self._graph.host(host, group)
            for key, variable in written(self._mapping(body.get("vars") or {}, name), self._marks).items():
                self._graph.set_group_variable(group, key, variable)
            for child in self._names(body.get("children"), name):
                self._graph.hold(group, self._graph.group(child))
        for host, values in self._mapping(hostvars, "hostvars").items():
            if host in self._graph.hosts:
                self._graph.hosts[host].variables.update(written(self._mapping(values, host), self._marks))

    def _names(self, value: Any, name: str) -> list[str]:
        if value is None:
            return []
        if isinstance(value, list | dict):
            return [str(item) for item in value]
        raise self._marks.error((), f"expected a list of names in {name!r}")

    def _mapping(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._marks.error((), f"expected a mapping as {name!r}")
        return value
