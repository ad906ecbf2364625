"""Dataclasses to JSON and back, strictly: unknown keys, missing keys and wrong types are errors with a path.

Knows what specs are made of: str, int, float, bool, None, Any, Literal, unions with None, tuples,
mappings with string keys, and nested dataclasses. Defaults are left out when writing, so that a spec
stays small and readable on the wire and on disk.

The reader of a type is made once, from its annotations, and is then plain functions: a shim reads its
container's configuration without touching `typing`, whose pages it shares with all others.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from hawse_agent.errors import InputError

T = TypeVar("T")
Reader = Callable[[Any], Any]


def to_json(value: Any) -> Any:
    """JSON values of a dataclass (defaults omitted), tuple or mapping; scalars as they are."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if (known := _written(kind)) is not None:
        return {
            name: to_json(current) for name, f in known if not _is_default(f, current := getattr(value, name))
        }
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return value


def dumps(value: Any) -> str:
    return _encoder.encode(to_json(value))


def from_json(kind: type[T], data: Any, path: str = "") -> T:
    """`data` as a `kind`; raises InputError that names the path of the offending key."""
    wanted: Any = kind
    try:
        return typing.cast(T, _reader(wanted)(data))
    except _Wrong as wrong:
        raise InputError(wrong.problem, where=wrong.path_from(path)) from None


def loads(kind: type[T], text: str | bytes) -> T:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from error
    return from_json(kind, data)


_PLAIN = frozenset((str, int, float, bool, type(None)))
_encoder = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


class _Wrong(Exception):
    """What is wrong, and where: the innermost step of the path comes first."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.steps: list[str | int] = []

    def path_from(self, path: str) -> str:
        for step in reversed(self.steps):
            if isinstance(step, int):
                path += f"[{step}]"
            else:
                path += f".{step}" if path else step
        return path


@cache
def _written(kind: type) -> tuple[tuple[str, Field[Any]], ...] | None:
    return tuple((f.name, f) for f in fields(kind)) if is_dataclass(kind) else None


def _is_default(f: Field[Any], value: Any) -> bool:
    if f.default is not MISSING:
        return bool(value == f.default and type(value) is type(f.default))
    if f.default_factory is not MISSING:
        return bool(value == f.default_factory())
    return False


@cache
def _reader(kind: Any) -> Reader:
    if kind is Any:
        return lambda data: data
    origin = typing.get_origin(kind)
    if origin is typing.Union or origin is types.UnionType:
        return _union(typing.get_args(kind))
    if origin is typing.Literal:
        return _literal(typing.get_args(kind))
    if origin is tuple:
        return _sequence(_reader(typing.get_args(kind)[0]))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_reader(typing.get_args(kind)[1]))
    if is_dataclass(kind):
        return _dataclass(kind)
    return _scalar(kind)


def _union(choices: tuple[Any, ...]) -> Reader:
    readers = [_reader(choice) for choice in choices if choice is not type(None)]
    optional = type(None) in choices
    only = readers[0] if len(readers) == 1 else None

    def read(data: Any) -> Any:
        if data is None:
            if optional:
                return None
            raise _Wrong("may not be empty")
        if only is not None:
            return only(data)
        failure = _Wrong("nothing fits")
        for reader in readers:
            try:
                return reader(data)
            except _Wrong as wrong:
                failure = wrong
        raise failure

    return read


def _literal(choices: tuple[Any, ...]) -> Reader:
    def read(data: Any) -> Any:
        if data in choices and not isinstance(data, bool):
            return data
        raise _Wrong(f"expected one of {', '.join(map(str, choices))}, not {data!r}")

    return read


def _sequence(item: Reader) -> Reader:
    def read(data: Any) -> Any:
        if not isinstance(data, list | tuple):
            raise _Wrong(f"expected a list, not {_kind(data)}")
        values = []
        for value in data:
            try:
                values.append(item(value))
            except _Wrong as wrong:
                wrong.steps.append(len(values))
                raise
        return tuple(values)

    return read


def _mapping(item: Reader) -> Reader:
    def read(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise _Wrong(f"expected a mapping, not {_kind(data)}")
        values = {}
        for key, value in data.items():
            try:
                values[str(key)] = item(value)
            except _Wrong as wrong:
                wrong.steps.append(str(key))
                raise
        return values

    return read


def _dataclass(kind: Any) -> Reader:
    def read(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise _Wrong(f"expected a mapping, not {_kind(data)}")
        readers, required = _members(kind)
        values = {}
        for name, value in data.items():
            reader = readers.get(name)
            try:
                if reader is None:
                    raise _Wrong(f"unknown key {name!r} of {kind.__name__}")
                values[name] = reader(value)
            except _Wrong as wrong:
                wrong.steps.append(str(name))
                raise
        for name in required:
            if name not in values:
                missing = _Wrong(f"missing key {name!r} of {kind.__name__}")
                missing.steps.append(name)
                raise missing
        return kind(**values)

    return read


@cache
def _members(kind: Any) -> tuple[Mapping[str, Reader], tuple[str, ...]]:
    """Readers of all fields, and which must be there. At the first use, when all types are declared."""
    hints = typing.get_type_hints(kind)
    required = tuple(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: _reader(hints[f.name]) for f in fields(kind)}, required


def _scalar(kind: Any) -> Reader:
    def read(data: Any) -> Any:
        if type(data) is kind:
            return data
        if kind is float and type(data) is int:
            return float(data)
        raise _Wrong(f"expected {getattr(kind, '__name__', kind)}, not {_kind(data)}")

    return read


def _kind(data: Any) -> str:
    names = {str: "text", int: "a number", float: "a number", bool: "true/false", type(None): "nothing"}
    if isinstance(data, Mapping):
        return "a mapping"
    if isinstance(data, list | tuple):
        return "a list"
    return names.get(type(data), type(data).__name__)
