"""The `filters` of lists: `{"label": ["a=b"]}`, or the old form `{"label": {"a=b": true}}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hawse_agent.errors import InputError


class Filters:
    """Raises InputError for a filter that this list does not know."""

    def __init__(self, given: Any, known: Sequence[str]) -> None:
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise InputError("invalid filters: expected an object")
        self._values: dict[str, list[str]] = {}
        for name, values in given.items():
            if name not in known:
                raise InputError(f"invalid filter '{name}'")
            listed = list(values) if isinstance(values, dict | list) else None
            if listed is None:
                raise InputError(f"invalid filter '{name}': expected a list")
            self._values[name] = [str(value) for value in listed]

    def __contains__(self, name: str) -> bool:
        return bool(self._values.get(name))

    def values(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def one(self, name: str, value: str) -> bool:
        """Whether `value` is among those asked for; true when none are."""
        return not self.values(name) or value in self.values(name)

    def matches(self, name: str, *candidates: str) -> bool:
        """Whether one of the candidates has one of the regular expressions asked for in it, as `^/web$`."""
        wanted = self.values(name)
        return not wanted or any(_found(text, candidate) for text in wanted for candidate in candidates)

    def prefix(self, name: str, value: str) -> bool:
        """Whether `value` begins with one of those asked for."""
        wanted = self.values(name)
        return not wanted or value.startswith(tuple(wanted))

    def labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        """All of `key` and `key=value` hold."""
        for entry in self.values(name):
            key, equals, value = entry.partition("=")
            if key not in labels or (equals and labels[key] != value):
                return False
        return True

    def flag(self, name: str, default: bool) -> bool:
        values = self.values(name)
        return values[-1].lower() in ("1", "true") if values else default


def _found(expression: str, text: str) -> bool:
    try:
        return re.search(expression, text) is not None
    except re.error:
        raise InputError(f"invalid filter: {expression!r} is not a regular expression") from None
