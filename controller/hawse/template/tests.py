"""Ansible's tests, beside Jinja's own: `result is failed`, `name is match('web')`, `v is version('2')`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from hawse_agent.errors import InputError

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "=": operator.eq, "eq": operator.eq,
    "!=": operator.ne, "<>": operator.ne, "ne": operator.ne,
    "<": operator.lt, "lt": operator.lt,
    "<=": operator.le, "le": operator.le,
    ">": operator.gt, "gt": operator.gt,
    ">=": operator.ge, "ge": operator.ge,
}  # fmt: skip


def _flag(name: str) -> Callable[[Any], bool]:
    def test(result: Any) -> bool:
        if not isinstance(result, Mapping):
            raise InputError(f"the test {name!r} needs a registered result")
        return bool(result.get(name, False))

    return test


_failed, _changed, _skipped = _flag("failed"), _flag("changed"), _flag("skipped")


def _regex(
    value: Any,
    pattern: str,
    ignorecase: bool = False,
    multiline: bool = False,
    match_type: str = "search",
) -> bool:
    flags = (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)
    return bool(getattr(re.compile(pattern, flags), match_type)(str(value)))


def _match(value: Any, pattern: str, ignorecase: bool = False, multiline: bool = False) -> bool:
    return _regex(value, pattern, ignorecase, multiline, "match")


def _version(value: Any, other: Any, compare: str = "==") -> bool:
    """Compares loosely: runs of digits by number, runs of letters by name, the rest separates."""
    if compare not in _COMPARE:
        raise InputError(f"the test 'version' has no operator {compare!r}")
    if not str(value):
        raise InputError("the test 'version' needs a version, not an empty text")
    left, right = _parts(value), _parts(other)
    return _COMPARE[compare](left, right)


def _parts(version: Any) -> list[tuple[int, int, str]]:
    """Numbers sort above letters, as in 1.0 against 1.0rc1."""
    parts = re.findall(r"\d+|[a-zA-Z]+", str(version))
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _contains(value: Any, item: Any) -> bool:
    return item in value


TESTS: dict[str, Callable[..., bool]] = {
    "failed": _failed,
    "failure": _failed,
    "succeeded": lambda result: not _failed(result),
    "success": lambda result: not _failed(result),
    "successful": lambda result: not _failed(result),
    "changed": _changed,
    "change": _changed,
    "skipped": _skipped,
    "skip": _skipped,
    "match": _match,
    "search": _regex,
    "regex": _regex,
    "version": _version,
    "version_compare": _version,
    "contains": _contains,
    "subset": lambda value, other: set(value) <= set(other),
    "issubset": lambda value, other: set(value) <= set(other),
    "superset": lambda value, other: set(value) >= set(other),
    "issuperset": lambda value, other: set(value) >= set(other),
    "all": all,
    "any": any,
    "truthy": lambda value: bool(value),
    "falsy": lambda value: not value,
}
