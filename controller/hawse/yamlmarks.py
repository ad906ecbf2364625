"""YAML whose every value knows where it was written: `load` gives plain values and their `Marks`.

Read as Ansible reads it: YAML 1.1 scalars (`yes` is true, `010` is 8), anchors, `<<` merges. Refused, each
with file and line: what is not YAML, duplicate keys, keys that are not plain, and tags other than
`!unsafe`. Compose files have their own reader (`stack.document`): Compose reads YAML 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hawse_agent.errors import InputError, NotSupported

Place = tuple[str | int, ...]
"""The way to a value from the top: keys of mappings and indexes of lists."""


class Unsafe(str):
    """Text that is never a template: `!unsafe`."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Where things stand in one file; `lines` counts from 1."""

    file: str
    lines: Mapping[Place, int]
    texts: Mapping[Place, int] = field(default_factory=dict)
    """Where the text of a block scalar (`|`, `>`) begins."""

    def line(self, place: Sequence[str | int] = ()) -> int:
        """The line of the value at `place`, or of the nearest thing around it."""
        known = tuple(place)
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines.get(known, 1)

    def text_line(self, place: Place, line: int) -> int:
        """The line of the file where the text at `place` has its own line `line`, from 1."""
        return self.texts.get(place, self.line(place)) + line - 1

    def where(self, place: Sequence[str | int] = ()) -> str:
        return f"{self.file}:{self.line(place)}"

    def error(self, place: Sequence[str | int], message: str, *, hint: str = "") -> InputError:
        return InputError(message, where=self.where(place), hint=hint)


@dataclass(frozen=True, kw_only=True)
class Marked:
    value: Any
    marks: Marks


def load(text: str, filename: str) -> Marked:
    """The one document of `text`; None when it holds nothing. Raises InputError with file and line."""
    lines: dict[Place, int] = {}
    texts: dict[Place, int] = {}
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        value = _Reader(loader, filename, lines, texts).read(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{filename}:{mark.line + 1}" if mark else filename
        hint = "quote a value that begins with {{" if "{{" in _line(text, mark) else ""
        raise InputError(f"not YAML: {error.problem or error.context}", where=where, hint=hint) from error
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {error}", where=filename) from error
    finally:
        loader.dispose()
    return Marked(value=value, marks=Marks(file=filename, lines=lines, texts=texts))


def load_file(path: Path) -> Marked:
    return load(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Raises InputError that names the file when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("expected UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", where=str(path)) from error


def _line(text: str, mark: yaml.Mark | None) -> str:
    lines = text.splitlines()
    return lines[mark.line] if mark is not None and mark.line < len(lines) else ""


class _Reader:
    """Walks the node tree once, noting lines; scalars are built by PyYAML's own constructors."""

    def __init__(
        self, loader: yaml.SafeLoader, file: str, lines: dict[Place, int], texts: dict[Place, int]
    ) -> None:
        self._loader = loader
        self._file = file
        self._lines = lines
        self._texts = texts
        self._open: list[yaml.Node] = []

    def read(self, node: yaml.Node, place: Place) -> Any:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if node.tag == "!vault":
            raise NotSupported("vaulted values are not supported yet", where=self._at(node))
        if isinstance(node, yaml.ScalarNode):
            if node.style in ("|", ">"):
                self._texts[place] = node.start_mark.line + 2
            return self._scalar(node)
        if any(node is outer for outer in self._open):
            raise InputError("an anchor that contains itself", where=self._at(node))
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                self._plain(node, "tag:yaml.org,2002:seq")
                return [self.read(item, (*place, index)) for index, item in enumerate(node.value)]
            self._plain(node, "tag:yaml.org,2002:map")
            return self._mapping(node, place)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.Node, place: Place) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                hint = "quote a value that begins with {{" if isinstance(key_node, yaml.MappingNode) else ""
                raise InputError("expected a plain key", where=self._at(key_node), hint=hint)
            key = self._scalar(key_node)
            if key in result:
                raise InputError(f"duplicate key {key!r}", where=self._at(key_node))
            self._lines[(*place, key)] = key_node.start_mark.line + 1
            result[key] = self.read(value_node, (*place, key))
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise InputError("expected a mapping to merge with <<", where=self._at(other))
            inner = _Reader(self._loader, self._file, {}, {})
            inner._open = self._open
            for key, value in inner.read(other, place).items():
                if key not in result:
                    result[key] = value
                    at = (*place, key)
                    self._lines |= {p: n for p, n in inner._lines.items() if p[: len(at)] == at}
                    self._texts |= {p: n for p, n in inner._texts.items() if p[: len(at)] == at}
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == "!unsafe":
            return Unsafe(node.value)
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise NotSupported(f"YAML tag {node.tag} is not supported", where=self._at(node))
        try:
            return self._loader.construct_object(node, deep=True)
        except (ValueError, yaml.constructor.ConstructorError) as error:
            raise InputError(f"not a valid {node.tag.rpartition(':')[2]}", where=self._at(node)) from error

    def _plain(self, node: yaml.Node, tag: str) -> None:
        if node.tag != tag:
            raise NotSupported(f"YAML tag {node.tag} is not supported", where=self._at(node))

    def _at(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"
