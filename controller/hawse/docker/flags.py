"""Command lines as Docker's own client reads them, by a table of flags. Knows no flag itself.

    -it    -p80:80    -e A=1    --name=web    --rm=false    --

Each flag says where in a request's body its value goes, and how its text becomes that value; a flag that the
client itself acts on is kept by its name. Values that meet are merged by what they are: lists grow, objects
are joined, the last of all others wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hawse_agent.errors import InputError, NotSupported

BODY = "."
"""The value of such a flag is a piece of the whole body."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """`metavar` is empty for a switch. `parse` raises ValueError with the reason."""

    name: str
    help: str = ""
    short: str = ""
    also: tuple[str, ...] = ()
    """Other long names for it."""
    metavar: str = ""
    into: str = ""
    """`HostConfig.Memory`, or BODY; empty: for the client."""
    parse: Callable[[str], Any] = str
    refused: bool = False
    """One of Docker's that we know, and do not have."""

    @property
    def spellings(self) -> tuple[str, ...]:
        return (
            *((f"-{self.short}",) if self.short else ()),
            *(f"--{name}" for name in (self.name, *self.also)),
        )

    @property
    def shown(self) -> str:
        return ", ".join(self.spellings[:2] if self.short else self.spellings[:1])


def switch(name: str, help: str, into: str = "", *, short: str = "") -> Flag:
    """A flag without a value."""
    return Flag(name=name, help=help, into=into, short=short)


def option(
    name: str,
    metavar: str,
    help: str,
    into: str = "",
    parse: Callable[[str], Any] = str,
    *,
    short: str = "",
    also: tuple[str, ...] = (),
) -> Flag:
    """A flag with a value."""
    return Flag(name=name, metavar=metavar, help=help, into=into, parse=parse, short=short, also=also)


@dataclass(kw_only=True)
class Given:
    """What a command line says."""

    body: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Of the client's own flags, those that were given."""
    names: set[str] = field(default_factory=set)
    """Of all flags that were given."""
    operands: list[str] = field(default_factory=list)


def read(table: Sequence[Flag], words: Sequence[str], *, interspersed: bool = False) -> Given:
    """Flags stand before the operands, or among them when `interspersed`. Raises InputError, NotSupported."""
    given = Given()
    found: list[tuple[Flag, str]] = []
    for flag, text in _split(table, words, interspersed, given.operands):
        if flag.refused:
            raise NotSupported(f"--{flag.name} is not supported by hawse")
        found.append((flag, text))
    order = {flag.name: place for place, flag in enumerate(table)}
    # In the table's order: what a file says comes before what is given by itself.
    for flag, text in sorted(found, key=lambda pair: order[pair[0].name]):
        try:
            value: Any = flag.parse(text) if flag.metavar else boolean(text)
        except ValueError as error:
            raise InputError(f'invalid argument "{text}" for "{flag.shown}" flag: {error}') from None
        given.names.add(flag.name)
        if not flag.into:
            merge(given.options, {flag.name: value})
        else:
            merge(given.body, value if flag.into == BODY else at(flag.into, value))
    return given


def boolean(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError("neither true nor false")


def at(path: str, value: Any) -> dict[str, Any]:
    """`value` as a piece of a body: `A.B` gives {"A": {"B": value}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def merge(into: dict[str, Any], piece: dict[str, Any]) -> None:
    for key, value in piece.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            merge(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            into[key] = there + value
        else:
            into[key] = value


def _split(
    table: Sequence[Flag], words: Sequence[str], interspersed: bool, operands: list[str]
) -> Iterator[tuple[Flag, str]]:
    """Flags with their texts (`true` for a plain switch); what is none goes to `operands`."""
    long = {name: flag for flag in table for name in (flag.name, *flag.also)}
    short = {flag.short: flag for flag in table if flag.short}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, text = word[2:].partition("=")
            flag = long.get(name)
            if flag is None:
                raise InputError(f"unknown flag: --{name}")
            yield flag, text if equals else _argument(flag, f"--{name}", rest)
        elif word.startswith("-") and word != "-":
            yield from _cluster(short, word, rest)
        else:
            operands.append(word)
            if not interspersed:
                break
    operands += rest


def _cluster(short: dict[str, Flag], word: str, rest: list[str]) -> Iterator[tuple[Flag, str]]:
    """`-it`, `-p80:80`, `-ep=1`."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = short.get(letter)
        if flag is None:
            raise InputError(f"unknown shorthand flag: {letter!r} in {word}")
        if letters.startswith("="):
            yield flag, letters[1:]
            return
        if flag.metavar and letters:
            yield flag, letters
            return
        yield flag, _argument(flag, f"{letter!r} in {word}", rest)


def _argument(flag: Flag, shown: str, rest: list[str]) -> str:
    if not flag.metavar:
        return "true"
    if not rest:
        raise InputError(f"flag needs an argument: {shown}")
    return rest.pop(0)
