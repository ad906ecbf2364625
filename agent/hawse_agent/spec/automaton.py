"""Patterns of many wildcards, matched in one pass: all ways in which the name may go on are followed at once.

A regular expression of Python's tries one way after the other, which are more than anybody can wait for when
there are several `**`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hawse_agent.spec.globs import STAR

ALL = ".*"
DIRECTORIES = "(?:.*/)?"


class Automaton:
    """Places in the pattern are bits; bit n is set while all before part n may have been matched."""

    def __init__(self, parts: Sequence[str]) -> None:
        """Regular expressions: `STAR`, `ALL`, `DIRECTORIES`, and others of one character each."""
        self._inside = 0
        """Where any character but / may be passed over."""
        self._anything = 0
        """Where any character may."""
        self._optional = 0
        """Where directories begin: passed over with the slash that ends them, or not there at all."""
        self._singles: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        """By character: the places that it leads on from."""
        bit = 1
        for part in parts:
            if part == STAR:
                self._inside |= bit
            elif part == ALL:
                self._anything |= bit
            elif part == DIRECTORIES:
                self._optional |= bit
                self._anything |= bit << 1
                bit <<= 2
                self._singles["/"] = self._singles.get("/", 0) | bit
            else:
                self._singles[part] = self._singles.get(part, 0) | bit
            bit <<= 1
        self._end = bit

    def matches(self, name: str) -> bool:
        """The whole name."""
        at = self._reached(1)
        for char in name:
            stays = self._anything if char == "/" else self._anything | self._inside
            at = self._reached(at & stays | (at & self._takes(char)) << 1)
            if not at:
                return False
        return bool(at & self._end)

    def _takes(self, char: str) -> int:
        if char not in self._taken:
            found = 0
            for single, places in self._singles.items():
                if re.fullmatch(single, char, re.DOTALL):
                    found |= places
            self._taken[char] = found
        return self._taken[char]

    def _reached(self, at: int) -> int:
        """With the places that are reached without a character."""
        while True:
            optional = at & self._optional
            more = at | (at & (self._inside | self._anything)) << 1 | optional << 1 | optional << 3
            if more == at:
                return at
            at = more
