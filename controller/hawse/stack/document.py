"""A rendered Compose file as values that know where they stand: `file:line: services.web.ports[0]`.

YAML is read as Compose reads it (YAML 1.2 scalars: only true and false are booleans, `53:53` is text, not a
base-60 number; `0440` is octal), with anchors and `<<` merges, and without duplicate keys. Lines of a
rendered template are traced back to the template where that is certain, else named as rendered lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from hawse.stack.interpolation import interpolate
from hawse.stack.values import Float, Int
from hawse_agent.errors import InputError

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Document:
    file: str
    value: Any
    lines: Mapping[Path, int]
    """Path of a key or item → line in the rendered text, from 1."""
    template: str | None = None
    """Text of the template, when the file is one."""
    rendered: str = ""

    def where(self, path: Sequence[str | int]) -> str:
        """`file:line: key` of the nearest thing around `path` that has a line."""
        line = self.line(path)
        key = path_text(path)
        return f"{self.place(line)}: {key}" if key else self.place(line)

    def line(self, path: Sequence[str | int]) -> int:
        known = tuple(path)
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines.get(known, 1)

    def place(self, line: int) -> str:
        """`file:line` of a line of the rendered text."""
        if self.template is None:
            return f"{self.file}:{line}"
        source = template_line(self.template, self.rendered, line)
        return f"{self.file}:{source}" if source else f"{self.file} (rendered line {line})"

    def error(self, path: Sequence[str | int], message: str, *, hint: str = "") -> InputError:
        return InputError(message, where=self.where(path), hint=hint)


def parse(text: str, file: str, template: str | None = None) -> Document:
    """Raises InputError with file and line for what is not YAML, holds duplicate keys or unknown tags."""
    reader = _Reader(Document(file=file, value=None, lines={}, template=template, rendered=text))
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = reader.document.place(mark.line + 1) if mark else file
        raise InputError(f"not YAML: {error.problem or error.context}", where=where) from error
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {error}", where=file) from error
    value = reader.read(node, ()) if node is not None else None
    return Document(file=file, value=value, lines=reader.lines, template=template, rendered=text)


def interpolated(document: Document, variables: Mapping[str, str]) -> Document:
    """Every value with its `${VAR}` replaced; keys and `x-` fields stay as they are."""

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, str):
            try:
                return interpolate(value, variables)
            except InputError as error:
                raise document.error(path, error.message, hint=error.hint) from None
        if isinstance(value, dict):
            return {
                key: item if str(key).startswith("x-") and key != "x-hawse" else walk(item, (*path, key))
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        return value

    return Document(
        file=document.file,
        value=walk(document.value, ()),
        lines=document.lines,
        template=document.template,
        rendered=document.rendered,
    )


def path_text(path: Sequence[str | int]) -> str:
    """`services.web.ports[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def template_line(template: str, rendered: str, line: int) -> int | None:
    """The line of `template` that made this line of `rendered`; None when that is not certain.

    A template line becomes a pattern in which each `{{ … }}` matches anything. Of several that match, the one
    whose neighbours match best wins; with a tie (a loop's body looks like another's) there is no answer.
    """
    sources, results = template.splitlines(), rendered.splitlines()
    if template == rendered:
        return line
    if not 0 < line <= len(results):
        return None
    patterns = [_line_pattern(source) for source in sources]
    scores = {
        index: _agreement(patterns, results, index, line - 1)
        for index, pattern in enumerate(patterns)
        if pattern is not None and pattern.fullmatch(results[line - 1])
    }
    if not scores:
        return None
    best = max(scores.values())
    winners = [index for index, score in scores.items() if score == best]
    return winners[0] + 1 if len(winners) == 1 else None


_TAG = re.compile(r"\{%.*?%\}|\{#.*?#\}")
_OUTPUT = re.compile(r"\{\{.*?\}\}")


def _line_pattern(source: str) -> re.Pattern[str] | None:
    """None for a line that holds only tags, and so makes nothing."""
    plain = _TAG.sub("", source)
    if not plain.strip() or plain.strip().startswith(("{%", "{#")):
        return None
    return re.compile(".*".join(re.escape(part) for part in _OUTPUT.split(plain)))


def _agreement(patterns: list[re.Pattern[str] | None], results: list[str], source: int, result: int) -> int:
    """Upwards and downwards, how many neighbouring lines agree, plus one for a line without `.*`."""
    score = 0
    for step in (-1, 1):
        at, against = source + step, result + step
        while 0 <= at < len(patterns) and 0 <= against < len(results):
            pattern = patterns[at]
            if not results[against].strip():
                against += step
            elif pattern is None:
                at += step
            elif pattern.fullmatch(results[against]):
                score += 1
                at, against = at + step, against + step
            else:
                break
    literal = patterns[source]
    return 2 * score + int(literal is not None and ".*" not in literal.pattern)


@dataclass(kw_only=False)
class _Reader:
    """Turns YAML nodes into values and notes the line of each path."""

    document: Document
    lines: dict[Path, int] = field(default_factory=dict)
    _open: list[yaml.Node] = field(default_factory=list)

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "tag:yaml.org,2002:map")
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "tag:yaml.org,2002:seq")
            with self._inside(node):
                return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        if any(node is outer for outer in self._open):
            raise self._error(node, "an anchor that contains itself")
        self._open.append(node)
        yield
        self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        with self._inside(node):
            return self._entries(node, path)

    def _entries(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                many = isinstance(value_node, yaml.SequenceNode)
                merged += value_node.value if many else [value_node]
                continue
            key = self._key(key_node)
            if key in result:
                raise self._error(key_node, f"duplicate key {key!r}")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.read(value_node, (*path, key))
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise self._error(other, "expected a mapping to merge with <<")
            for key, value in self._mapping_of(other, path, result).items():
                result.setdefault(key, value)
        return result

    def _mapping_of(self, node: yaml.MappingNode, path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
        """A merged mapping; only the keys that it brings take its lines."""
        inner = _Reader(self.document, _open=self._open)
        value = inner._mapping(node, path)
        for place, line in inner.lines.items():
            if len(place) > len(path) and place[len(path)] not in given:
                self.lines.setdefault(place, line)
        return value

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "expected a plain key")
        return str(node.value)

    def _scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        if node.tag == "tag:yaml.org,2002:str" or node.style in ("'", '"', "|", ">"):  # type: ignore[attr-defined]
            return text
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise self._error(node, f"YAML tag {node.tag} is not supported")
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return text.lower() == "true"
        if len(text) > 1 and _OCTAL.fullmatch(text):
            return _written(Int(int(text, 8)), text)
        if _INT.fullmatch(text):
            return _written(Int(text), text)
        if _FLOAT.fullmatch(text):
            return _written(Float(text), text)
        return text

    def _check_tag(self, node: yaml.Node, plain: str) -> None:
        if node.tag != plain:
            raise self._error(node, f"YAML tag {node.tag} is not supported")

    def _error(self, node: yaml.Node, message: str) -> InputError:
        return InputError(message, where=self.document.place(node.start_mark.line + 1))


def _written(number: Int | Float, text: str) -> Int | Float:
    number.written = text
    return number
