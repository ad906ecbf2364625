"""Reads a client's JSON object field by field, so that nothing in it can be overlooked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hawse_agent.errors import InputError, NotSupported

_EMPTY: tuple[Any, ...] = (None, "", 0, False, [], {}, [0, 0], -1)
"""What clients send for an option that nobody gave."""


class Fields:
    """`rest` refuses every field that was not taken and asks for something."""

    def __init__(self, data: Any, name: str) -> None:
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise InputError(f"{name or 'the body'}: expected an object")
        if not name:
            _check_texts(data)
        self._data = dict(data)
        self._name = name

    def text(self, key: str, default: str = "") -> str:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def given(self, key: str) -> bool:
        """Whether the field is there and asks for something."""
        return self._data.get(key) not in (None, "")

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def number(self, key: str, default: int = 0) -> int:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "a whole number")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._wrong(key, "a list of texts")
        return tuple(value)

    def texts_or_none(self, key: str) -> tuple[str, ...] | None:
        """None when it is absent, which is another thing than an empty list."""
        return None if self._data.get(key) is None else self.texts(key)

    def command(self, key: str) -> tuple[str, ...] | None:
        """A list, or one text; None when it is absent."""
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, str):
            return (value,)
        self._data[key] = value
        return self.texts(key)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._take(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return value

    def labels(self, key: str) -> dict[str, str]:
        found = {}
        for name, value in self.mapping(key).items():
            if value is not None and not isinstance(value, str):
                raise self._wrong(f"{key}.{name}", "a text")
            found[name] = value or ""
        return found

    def objects(self, key: str) -> list[Any]:
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value

    def inner(self, key: str) -> Fields:
        return Fields(self._take(key), f"{self._name}.{key}" if self._name else key)

    def ignore(self, reasons: Mapping[str, str]) -> None:
        """Fields that are about the client alone; the reason is for the reader of the code."""
        for key in reasons:
            self._data.pop(key, None)

    def rest(self) -> None:
        for key, value in self._data.items():
            if not any(value == empty and type(value) is type(empty) for empty in _EMPTY):
                where = f"{self._name}.{key}" if self._name else key
                raise NotSupported(f"{where} is not supported by hawse-agent")

    def _take(self, key: str) -> Any:
        return self._data.pop(key, None)

    def _wrong(self, key: str, expected: str) -> InputError:
        return InputError(f"{self._name + '.' if self._name else ''}{key}: expected {expected}")


def _check_texts(body: Any) -> None:
    """None of them, names included, has what neither a path nor an argument nor a line of a file can hold."""
    pending = [("", body)]
    while pending:
        where, value = pending.pop()
        if isinstance(value, dict):
            prefix = f"{where}." if where else ""
            pending += [(f"{prefix}{name}", inner) for name, inner in value.items()]
            pending += [(where, name) for name in value]
        elif isinstance(value, list):
            pending += [(f"{where}[{index}]", inner) for index, inner in enumerate(value)]
        elif isinstance(value, str):
            if "\0" in value:
                raise InputError(f"{where}: expected a text without NUL")
            if _HALF.search(value):
                raise InputError(f"{where}: expected a text, not half a character (a lone surrogate)")


_HALF = re.compile("[\ud800-\udfff]")
