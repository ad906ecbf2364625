"""`group_vars/` and `host_vars/` beside an inventory or a playbook.

For each name the first of `name`, `name.yml`, `name.yaml`, `name.json` counts. A directory holds any number
of files, read in order of name, the later one wins.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from hawse import yamlmarks
from hawse.variables import Variable, written

_EXTENSIONS = ("", ".yml", ".yaml", ".json")

Kind = Literal["group_vars", "host_vars"]


class VarsFiles:
    """The variables that stand beside one inventory or playbook; each file is read once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._read: dict[tuple[Kind, str], dict[str, Variable]] = {}

    def group(self, name: str) -> dict[str, Variable]:
        return self._variables("group_vars", name)

    def host(self, name: str) -> dict[str, Variable]:
        return self._variables("host_vars", name)

    def _variables(self, kind: Kind, name: str) -> dict[str, Variable]:
        if (kind, name) not in self._read:
            entries = self._groups if kind == "group_vars" else self._hosts
            found = next((name + suffix for suffix in _EXTENSIONS if name + suffix in entries), None)
            path = self.directory / kind / found if found else None
            self._read[kind, name] = _load(path) if path is not None else {}
        return self._read[kind, name]

    @cached_property
    def _groups(self) -> frozenset[str]:
        return _names(self.directory / "group_vars")

    @cached_property
    def _hosts(self) -> frozenset[str]:
        return _names(self.directory / "host_vars")


def load_file(path: Path) -> dict[str, Variable]:
    """The variables of one file. Raises InputError when it holds anything but a mapping."""
    document = yamlmarks.load_file(path)
    if document.value is None:
        return {}
    if not isinstance(document.value, dict):
        raise document.marks.error((), "expected variables: a mapping from names to values")
    return written(document.value, document.marks)


def _names(directory: Path) -> frozenset[str]:
    return frozenset(entry.name for entry in directory.iterdir()) if directory.is_dir() else frozenset()


def _load(path: Path) -> dict[str, Variable]:
    if not path.is_dir():
        return load_file(path)
    variables: dict[str, Variable] = {}
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name.endswith("~"):
            continue
        if entry.is_dir():
            variables |= _load(entry) if not entry.suffix else {}
        elif entry.suffix in _EXTENSIONS:
            variables |= load_file(entry)
    return variables
