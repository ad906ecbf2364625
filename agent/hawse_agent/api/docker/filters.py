"""The `filters` of lists: `{"label": ["a=b"]}`, or the old form `{"label": {"a=b": true}}`. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hawse_agent.errors import InputError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_AGE = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(h|ms|us|µs|ns|m|s)"
_FLAGS = {"1": True, "true": True, "t": True, "0": False, "false": False, "f": False}


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
        self._until = _until(self.values("until"), time.time())

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

    def labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        """All of `key` and `key=value` hold."""
        for entry in self.values(name):
            key, equals, value = entry.partition("=")
            if key not in labels or (equals and labels[key] != value):
                return False
        return True

    def prunes(self, labels: Mapping[str, str], created: float = 0.0) -> bool:
        """Whether `label`, `label!` and `until` let something be removed that has these labels."""
        if self._until is not None and created >= self._until:
            return False
        return self.labels(labels) and ("label!" not in self or not self.labels(labels, "label!"))

    def flag(self, name: str, default: bool) -> bool:
        values = self.values(name)
        if not values:
            return default
        if len(values) > 1 or values[0].lower() not in _FLAGS:
            raise InputError(f"invalid filter '{name}={','.join(values)}': expected true or false")
        return _FLAGS[values[0].lower()]

    def check(self, name: str, known: Sequence[str]) -> None:
        """Raises InputError for a value that there is not."""
        for value in self.values(name):
            if value not in known:
                raise InputError(f"Unrecognised filter value for {name}: {value}")


def _found(expression: str, text: str) -> bool:
    try:
        return re.search(expression, text) is not None
    except (re.error, OverflowError, RecursionError):
        raise InputError(f"invalid filter: {expression!r} is not a regular expression") from None


def _until(values: Sequence[str], now: float) -> float | None:
    """A date, seconds since 1970, or how long ago."""
    if not values:
        return None
    text = values[0]
    if len(values) > 1:
        raise InputError("more than one until filter specified")
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
        return float(text)
    if re.fullmatch(rf"({_AGE})+", text):
        return now - sum(float(number) * _UNITS[unit] for number, unit in re.findall(_AGE, text))
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()
    except (ValueError, OverflowError):
        raise InputError(f"invalid filter 'until={text}': expected a time, or how long ago: 10m") from None
