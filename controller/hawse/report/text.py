"""Plain text of what hosts say: sizes, ages, tables without decoration. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Without control characters: what a host says must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text.replace("\n", " ⏎ "))


def short_size(count: int) -> str:
    """`1.4 GiB`: rounded to what fits a table."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def age(seconds: float) -> str:
    """`3h`: rounded to one unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0.0):.0f}s"


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns under headings in capitals, as `docker ps` shows them; one line a row."""
    lines = [[heading.upper() for heading in headings], *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
