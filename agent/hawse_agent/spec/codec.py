"""Dataclasses to JSON and back, strictly: unknown keys, missing keys and wrong types are errors with a path.

Knows what specs are made of: str, int, float, bool, None, Any, Literal, unions with None, tuples,
mappings with string keys, and nested dataclasses. Defaults are left out when writing, so that a spec
stays small and readable on the wire and on disk.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from hawse_agent.errors import InputError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """JSON values of a dataclass (defaults omitted), tuple or mapping; scalars as they are."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_json(current)
            for f in fields(value)
            if not _is_default(f, current := getattr(value, f.name))
        }
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return value


def dumps(value: Any) -> str:
    return json.dumps(to_json(value), separators=(",", ":"), sort_keys=True)


def from_json(kind: type[T], data: Any, path: str = "") -> T:
    """`data` as a `kind`; raises InputError that names the path of the offending key."""
    return typing.cast(T, _convert(kind, data, path))


def loads(kind: type[T], text: str | bytes) -> T:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from error
    return from_json(kind, data)


def _is_default(f: Field[Any], value: Any) -> bool:
    if f.default is not MISSING:
        return bool(value == f.default and type(value) is type(f.default))
    if f.default_factory is not MISSING:
        return bool(value == f.default_factory())
    return False


@cache
def _hints(kind: Any) -> dict[str, tuple[Any, Field[Any]]]:
    hints = typing.get_type_hints(kind)
    return {f.name: (hints[f.name], f) for f in fields(kind)}


def _convert(kind: Any, data: Any, path: str) -> Any:
    if kind is Any:
        return data
    origin = typing.get_origin(kind)
    if origin is typing.Union or origin is types.UnionType:
        return _convert_union(typing.get_args(kind), data, path)
    if origin is typing.Literal:
        if data in typing.get_args(kind) and not isinstance(data, bool):
            return data
        wanted = ", ".join(str(choice) for choice in typing.get_args(kind))
        raise InputError(f"expected one of {wanted}, not {data!r}", where=path)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise InputError(f"expected a list, not {_kind(data)}", where=path)
        item_kind = typing.get_args(kind)[0]
        return tuple(_convert(item_kind, item, f"{path}[{i}]") for i, item in enumerate(data))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise InputError(f"expected a mapping, not {_kind(data)}", where=path)
        value_kind = typing.get_args(kind)[1]
        return {str(key): _convert(value_kind, item, f"{path}.{key}") for key, item in data.items()}
    if is_dataclass(kind):
        return _convert_dataclass(kind, data, path)
    return _convert_scalar(kind, data, path)


def _convert_union(choices: tuple[Any, ...], data: Any, path: str) -> Any:
    if data is None:
        if type(None) in choices:
            return None
        raise InputError("may not be empty", where=path)
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) == 1:
        return _convert(rest[0], data, path)
    failures = []
    for choice in rest:
        try:
            return _convert(choice, data, path)
        except InputError as error:
            failures.append(error)
    raise failures[-1]


def _convert_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise InputError(f"expected a mapping, not {_kind(data)}", where=path)
    hints = _hints(kind)
    prefix = f"{path}." if path else ""
    unknown = [key for key in data if key not in hints]
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r} of {kind.__name__}", where=f"{prefix}{unknown[0]}")
    values = {}
    for name, (hint, f) in hints.items():
        if name in data:
            values[name] = _convert(hint, data[name], f"{prefix}{name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"missing key {name!r} of {kind.__name__}", where=f"{prefix}{name}")
    return kind(**values)


def _convert_scalar(kind: Any, data: Any, path: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind in (str, int, float, bool) and type(data) is kind:
        return data
    if kind is type(None) and data is None:
        return None
    raise InputError(f"expected {getattr(kind, '__name__', kind)}, not {_kind(data)}", where=path)


def _kind(data: Any) -> str:
    names = {str: "text", int: "a number", float: "a number", bool: "true/false", type(None): "nothing"}
    if isinstance(data, Mapping):
        return "a mapping"
    if isinstance(data, list | tuple):
        return "a list"
    return names.get(type(data), type(data).__name__)
