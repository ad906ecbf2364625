"""Text with tabs as aligned columns, as Go's tabwriter makes them, and cut to what a terminal shows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

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


def fitted(source: str, width: int) -> str:
    """`aligned`, cut to a terminal: the widest columns first, then lines. Steers no terminal."""
    lines = [[printable(cell) for cell in line.split("\t")] for line in source.removesuffix("\n").split("\n")]
    count = max(map(len, lines))
    widest = [max((_width(line[c]) for line in lines if c < len(line)), default=0) for c in range(count)]

    def taken() -> int:
        return sum(max(_LEAST, w + _GAP) for w in widest[:-1]) + widest[-1]

    headings = [_width(cell) for cell in lines[0]] + [0] * count
    while taken() > width:
        spare = [w - max(_NARROWEST, headings[c]) for c, w in enumerate(widest)]
        column = max(range(count), key=lambda c: (spare[c], widest[c]))
        if spare[column] <= 0:
            break
        widest[column] -= min(spare[column], taken() - width, max(1, spare[column] // 4))
    cut = [[_cut(cell, widest[c]) for c, cell in enumerate(line)] for line in lines]
    shown = aligned("\n".join("\t".join(line) for line in cut) + "\n").splitlines()
    return "".join(f"{_cut(line, width)}\n" for line in shown)


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
