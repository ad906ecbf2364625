"""Text with tabs as aligned columns, as Go's tabwriter makes them, and cut to what a terminal shows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from hawse.report.text import printable

_LEAST, _GAP = 10, 3
_NARROWEST = 8
"""Columns are not cut below this width."""


def aligned(source: str, least: int = _LEAST) -> str:
    """A column is made of cells above each other that end in a tab: the last cell of a line has none.

    A column takes at least `least` characters.
    """
    lines = [line.split("\t") for line in source.removesuffix("\n").split("\n")]
    widths: list[list[int]] = [[] for _ in lines]
    _measure(lines, widths, 0, len(lines), least)
    return "".join(
        "".join(_filled(cell, width) for cell, width in zip(line, [*known, 0], strict=True)) + "\n"
        for line, known in zip(lines, widths, strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class Precedence:
    """What a table that is too wide does without, by heading."""

    least: Sequence[str] = ()
    """Columns that are cut before any other, and left out before any other, the first of them first."""
    kept: Sequence[str] = ()
    """Columns that are shown whole, even if a terminal has to wrap their lines."""


_EQUAL = Precedence()


def fitted(source: str, width: int, precedence: Precedence = _EQUAL) -> str:
    """`aligned`, cut to a terminal: columns that matter least first, then the widest. Steers no terminal."""
    lines = [[printable(cell) for cell in line.split("\t")] for line in source.removesuffix("\n").split("\n")]
    headings = lines[0]
    least = [headings.index(name) for name in precedence.least if name in headings]
    kept = [headings.index(name) for name in precedence.kept if name in headings]
    while True:
        widest = _narrowed(lines, width, least, kept)
        if not kept or not least or _taken(widest) <= width:
            break
        gone = least.pop(0)
        lines = [line[:gone] + line[gone + 1 :] for line in lines]
        least, kept = ([c - (c > gone) for c in columns] for columns in (least, kept))
    cut = [[_cut(cell, widest[c]) for c, cell in enumerate(line)] for line in lines]
    shown = aligned("\n".join("\t".join(line) for line in cut) + "\n").splitlines()
    return "".join(f"{line if kept else _cut(line, width)}\n" for line in shown)


def _narrowed(lines: Sequence[list[str]], width: int, least: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Widths of the columns, so that they fit if they can: no column gets narrower than its heading."""
    count = max(map(len, lines))
    widest = [max((_width(line[c]) for line in lines if c < len(line)), default=0) for c in range(count)]
    narrowest = [max(_NARROWEST, _width(cell)) for cell in lines[0]] + [_NARROWEST] * count
    others = [c for c in range(count) if c not in kept and c not in least]
    for columns in (least, others):
        while columns and _taken(widest) > width:
            column = max(columns, key=lambda c: (widest[c] - narrowest[c], widest[c]))
            spare = widest[column] - narrowest[column]
            if spare <= 0:
                break
            widest[column] -= min(spare, _taken(widest) - width, max(1, spare // 4))
    return widest


def _taken(widths: Sequence[int]) -> int:
    return sum(max(_LEAST, width + _GAP) for width in widths[:-1]) + widths[-1]


def _measure(lines: Sequence[list[str]], widths: list[list[int]], start: int, end: int, least: int) -> None:
    """Widths of the next column of these lines: one for each run of lines that have it."""
    line = start
    while line < end:
        column = len(widths[line])
        if column >= len(lines[line]) - 1:
            line += 1
            continue
        first, width = line, least
        while line < end and column < len(lines[line]) - 1:
            width = max(width, _width(lines[line][column]) + _GAP)
            line += 1
        for known in widths[first:line]:
            known.append(width)
        _measure(lines, widths, first, line, least)


def _filled(cell: str, width: int) -> str:
    return cell + " " * (width - _width(cell))


def _width(cell: str) -> int:
    return len(cell) + sum(unicodedata.east_asian_width(character) in "WF" for character in cell)


def _cut(cell: str, width: int) -> str:
    if _width(cell) <= width:
        return cell
    kept = ""
    for character in cell:
        if _width(kept + character) > width - 1:
            break
        kept += character
    return f"{kept}…"
