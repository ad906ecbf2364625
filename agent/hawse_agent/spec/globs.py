"""Wildcards as Docker has them: those of Go's filepath.Match.

*        any characters but /
?        one character but /
[a-z]    one of them; [^a-z] one that is none of them, even a /
\\c       c itself
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from hawse_agent.errors import InputError

STAR = "[^/]*"


def has_wildcards(pattern: str) -> bool:
    return any(char in pattern for char in "*?[\\")


def match(pattern: str, name: str) -> bool:
    """The whole name. Raises InputError for a pattern that is none."""
    return compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """Raises InputError."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        part, at = element(pattern, at)
        parts.append(part)
    return re.compile(in_turn(parts, STAR), re.DOTALL)


def in_turn(parts: Sequence[str], star: str, last: str = "") -> str:
    """An expression that never tries twice, so that no pattern takes longer than its length times the name's:
    each star ends where what follows it is found first, as in Go. Only the last one is as long as it can be,
    or is `last`; each other part stands for one character."""
    chunks = [""]
    for part in parts:
        if part == star:
            chunks.append("")
        else:
            chunks[-1] += part
    first, *others = chunks
    if not others:
        return first
    between = "".join(f"(?>{star}?{chunk})" for chunk in others[:-1])
    return f"{first}{between}{last or star}{others[-1]}"


def element(pattern: str, at: int) -> tuple[str, int]:
    """Regular expression of what stands there, and where the next begins. Raises InputError."""
    char = pattern[at]
    at += 1
    match char:
        case "*":
            return STAR, at
        case "?":
            return "[^/]", at
        case "[":
            return _class(pattern, at)
        case "\\":
            if at == len(pattern):
                raise _bad(pattern)
            return re.escape(pattern[at]), at + 1
        case _:
            return re.escape(char), at


def _class(pattern: str, at: int) -> tuple[str, int]:
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (pattern.startswith("]", at) and ranges):
        low, at = _class_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1)
        ranges.append((low, high))
    # A range that runs backwards matches nothing, and is no error, in Go.
    members = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high)
    if not members:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{members}]", at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise _bad(pattern)
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    if not char or at + 1 >= len(pattern):
        raise _bad(pattern)
    return char, at + 1


def _bad(pattern: str) -> InputError:
    return InputError(f"invalid pattern {pattern!r}")
