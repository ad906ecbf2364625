"""File modes as chmod(1) takes them: octal, or symbolic against what a file has. Pure."""

from __future__ import annotations

import re

from hawse_agent.errors import InputError

_WHO = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)")
_STEP = re.compile(r"([-+=])([rwxXst]*|[ugo])")


def parse(text: str, current: int, *, directory: bool) -> int:
    """The mode's twelve bits; raises InputError."""
    if re.fullmatch(r"(0o)?[0-7]{1,4}|0[0-7]{4}", text):
        return int(text.removeprefix("0o"), 8)
    mode = current & 0o7777
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise InputError(f"mode: {text!r} is neither octal nor symbolic")
        who = match[1] or "a"
        for operator, permissions in _STEP.findall(match[2]):
            mode = _step(mode, who, operator, permissions, directory=directory)
    return mode


def _step(mode: int, who: str, operator: str, permissions: str, *, directory: bool) -> int:
    mask = 0
    for letter in who:
        mask |= _WHO[letter]
    bits = 0
    for letter in permissions:
        if letter in "ugo":
            three = mode >> {"u": 6, "g": 3, "o": 0}[letter] & 7
            bits |= three * 0o111 & mask
        elif letter == "X":
            bits |= 0o111 & mask if directory or mode & 0o111 else 0
        elif letter == "s":
            bits |= (0o4000 if mask & 0o700 else 0) | (0o2000 if mask & 0o070 else 0)
        elif letter == "t":
            bits |= 0o1000
        else:
            bits |= {"r": 0o444, "w": 0o222, "x": 0o111}[letter] & mask
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return mode & ~mask | bits
