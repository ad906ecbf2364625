"""JSON from clients: what nobody can mean is refused while it is read, so that nothing behind expects it."""

from __future__ import annotations

import json
import math
from typing import Any, Never

from hawse_agent.errors import InputError

MAX_DEPTH = 64
"""Levels of objects and lists; what Hawse and Docker's clients send has ten."""


def parse(text: str | bytes, what: str) -> Any:
    """Raises InputError for what is not JSON, is nested too deeply, or has a number of more than 64 bits."""
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_no_number)
    except RecursionError:
        raise InputError(f"{what} is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from None
    _check_depth(value, what)
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (number := int(text)) < 1 << 63:
        raise InputError(f"{text[:24]}: expected a number of 64 bits")
    return number


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise InputError(f"{text[:24]}: expected a number of 64 bits")
    return number


def _no_number(text: str) -> Never:
    raise InputError(f"{text} is not JSON")


def _check_depth(value: Any, what: str) -> None:
    level, depth = [value], 0
    while level := [
        inner
        for outer in level
        if isinstance(outer, dict | list)
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"{what} is nested more than {MAX_DEPTH} levels deep")
