"""Everything that crosses the wire or is kept on disk comes back as it was: specs, records, plans."""

from __future__ import annotations

import importlib
import json
import pkgutil
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import pytest

import hawse_agent.plan
import hawse_agent.spec
from hawse_agent.errors import InputError
from hawse_agent.spec import codec


def kinds() -> list[type]:
    """Every dataclass of spec/ and plan/."""
    found = {}
    for package in (hawse_agent.spec, hawse_agent.plan):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(info.name)).values():
                if isinstance(value, type) and is_dataclass(value) and value.__module__ == info.name:
                    found[value.__qualname__] = value
    return [found[name] for name in sorted(found)]


def example(kind: Any, seed: str, *, full: bool) -> Any:
    """A value of a type; `full`: with every field set to something that is not its default."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(
            **{
                f.name: example(hints[f.name], f.name, full=full)
                for f in fields(kind)
                if full or (f.default is MISSING and f.default_factory is MISSING)
            }
        )
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return choices[-1]
    if origin in (typing.Union, types.UnionType):
        return example(next(choice for choice in choices if choice is not type(None)), seed, full=full)
    if origin is tuple:
        return (example(choices[0], seed, full=full),) * 2
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"ключ": example(choices[1], seed, full=full)}
    scalars: dict[Any, Any] = {
        str: f'{seed} "\u20ac\n',
        int: 4711,
        float: 0.25,
        bool: True,
        Any: {"nested": [1, None, "x"]},
    }
    return scalars[kind]


KINDS = kinds()


@pytest.mark.parametrize("full", [False, True], ids=["least", "full"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_comes_back_as_it_was(kind: type, full: bool) -> None:
    value = example(kind, "", full=full)
    text = codec.dumps(value)
    assert codec.loads(kind, text) == value
    assert codec.dumps(codec.loads(kind, text)) == text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_unknown_and_missing_keys_are_named(kind: type) -> None:
    value = codec.to_json(example(kind, "", full=False))
    with pytest.raises(InputError, match="nobody_knows_this"):
        codec.from_json(kind, {**value, "nobody_knows_this": 1})
    for name in value:
        with pytest.raises(InputError, match=name):
            codec.from_json(kind, {key: item for key, item in value.items() if key != name})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_value_of_another_type_is_refused_by_path(kind: type) -> None:
    hints = typing.get_type_hints(kind)
    value = codec.to_json(example(kind, "", full=True))
    for name in value:
        if hints[name] is not Any:
            with pytest.raises(InputError) as refusal:
                codec.from_json(kind, {**value, name: object()})
            assert str(refusal.value.where).startswith(name)


def test_what_is_default_is_not_sent() -> None:
    assert all(
        json.loads(codec.dumps(example(kind, "", full=False))).keys() == needed(kind) for kind in KINDS
    )


def needed(kind: Any) -> set[str]:
    return {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
