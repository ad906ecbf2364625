"""Permissions as people write them: octal, or symbolic as chmod(1) takes them."""

from __future__ import annotations

import re

from hawse_agent.errors import InputError

_OCTAL = re.compile(r"(0o?)?[0-7]{1,4}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo]|)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def resolve(text: str, current: int, *, directory: bool, umask: int) -> int:
    """The permission bits that `text` makes of `current`. Raises InputError."""
    if _OCTAL.fullmatch(text):
        return int(text.replace("o", ""), 8)
    mode = current & 0o7777
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause.strip())
        if match is None:
            raise InputError(f"not a mode: {text!r}", hint="for example 0644 or u=rw,go=r")
        who, actions = match.groups()
        for action in _ACTION.finditer(actions):
            mode = _act(mode, who, action[1], action[2], directory=directory, umask=umask)
    return mode


def check(text: str) -> None:
    """Raises InputError when `text` is no mode."""
    resolve(text, 0, directory=False, umask=0)


def show(mode: int) -> str:
    return f"{mode & 0o7777:04o}"


def _act(mode: int, who: str, operator: str, letters: str, *, directory: bool, umask: int) -> int:
    classes = "ugo" if not who or "a" in who else who
    bits = clear = 0
    for name in classes:
        shift = _SHIFT[name]
        clear |= 7 << shift
        if letters in _SHIFT and letters:
            bits |= (mode >> _SHIFT[letters] & 7) << shift
            continue
        for letter in letters:
            if letter == "X":
                bits |= (1 if directory or mode & 0o111 else 0) << shift
            elif letter in _BITS:
                bits |= _BITS[letter] << shift
        if "s" in letters:
            bits |= {"u": 0o4000, "g": 0o2000, "o": 0}[name]
        clear |= 0 if directory else {"u": 0o4000, "g": 0o2000, "o": 0}[name]
    if "t" in letters and (not who or who == "a" or "o" in who):
        bits |= 0o1000
    if not who:
        bits &= ~umask
        clear &= ~umask
    match operator:
        case "+":
            return mode | bits
        case "-":
            return mode & ~bits
        case _:
            return mode & ~clear | bits
