"""How a line of a Dockerfile falls into words: flags, quoted words, JSON arrays, heredoc marks.

Nothing is replaced and no quote is taken away here: that is `expansion.py`'s.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from hawse_agent.errors import InputError


def first_word(text: str) -> tuple[str, str]:
    """In upper case, and what follows it."""
    parts = text.split(None, 1)
    return (parts[0].upper() if parts else ""), (parts[1] if len(parts) == 2 else "")


def split_words(text: str, escape: str) -> list[str]:
    """At blanks that are neither quoted nor escaped; quotes and escapes stay."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if word:
                words.append("".join(word))
                word = []
            continue
        word.append(char)
        if char == escape and quote != "'":
            if at == len(text):
                word.pop()  # an escape of nothing is nothing
            word.append(text[at : at + 1])
            at += 1
        elif quote:
            if char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
    if last := "".join(word):
        words.append(last)
    return words


def split_flags(text: str) -> tuple[list[str], str]:
    """Words in front that begin with `--`, their quotes taken away, and the rest. `--` ends them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return flags, text[at:].strip()
        word, at = _flag(text, at)
        if word == "--":
            return flags, text[at:].strip()
        flags.append(word)


def _flag(text: str, at: int) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            break
        at += 1
        if char == "\\":
            word.append(text[at : at + 1])
            at += 1
        elif quote:
            if char == quote:
                quote = ""
            else:
                word.append(char)
        elif char in "'\"":
            quote = char
        else:
            word.append(char)
    return "".join(word), at


def json_array(text: str) -> tuple[str, ...] | None:
    """None where the text is no JSON array, which makes it the shell form.

    Raises InputError: an array of something else than strings, which Docker does not let pass either.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise InputError("a JSON array may hold only strings here")
    return tuple(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


@dataclass(frozen=True, kw_only=True)
class HeredocMark:
    name: str
    expand: bool
    strip_tabs: bool


_MARK = re.compile(r"\d*<<(-?)([^<]+)")


def heredoc_mark(word: str) -> HeredocMark | None:
    """Of a word such as `<<EOF`, `<<-'EOF'`, `3<<EOF`."""
    match = _MARK.fullmatch(word)
    if match is None:
        return None
    raw = match[2]
    name = ""
    quote = ""
    for char in raw:
        if quote:
            if char == quote:
                quote = ""
                continue
        elif char in "'\"":
            quote = char
            continue
        elif char.isspace():
            return None
        name += char
    if quote or not name:
        return None
    return HeredocMark(name=name, expand=name == raw, strip_tabs=match[1] == "-")


def heredoc_marks(line: str) -> list[HeredocMark]:
    """In the order in which their contents follow. A quoted or escaped `<<` is none."""
    marks: list[HeredocMark] = []
    at = 0
    quote = ""
    begins = 0  # where the word began
    while at < len(line):
        char = line[at]
        if quote:
            if char == "\\" and quote == '"':
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "\\":
            at += 1
        elif char.isspace():
            begins = at + 1
        elif line.startswith("<<", at) and line[begins:at].isdecimal() | (begins == at):
            end = _mark_end(line, at + 2)
            mark = heredoc_mark(re.sub(r"<<(-?)\s+", r"<<\1", line[begins:end]))
            if mark is not None:
                marks.append(mark)
            begins = at = end
            continue
        at += 1
    return marks


def _mark_end(line: str, at: int) -> int:
    """Of the name, which may stand after blanks, and be quoted."""
    if line.startswith("-", at):
        at += 1
    while at < len(line) and line[at] in " \t":
        at += 1
    quote = ""
    while at < len(line):
        char = line[at]
        if quote:
            if char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char.isspace():
            break
        at += 1
    return at
