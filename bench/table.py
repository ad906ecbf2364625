"""What was measured, as a table of ratios."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from time import perf_counter


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures are medians in `unit`; `budget` is the highest ratio that is allowed."""

    what: str
    peer: str
    theirs: float
    ours: float
    unit: str
    budget: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Of Hawse alone; `budget` is in `unit`, too."""

    what: str
    ours: float
    unit: str
    budget: float | None = None


def median(work: Callable[[], object], times: int) -> float:
    """Milliseconds of one call, the first one left out."""
    work()
    taken = []
    for _ in range(times):
        begin = perf_counter()
        work()
        taken.append((perf_counter() - begin) * 1000)
    return statistics.median(taken)


def paired(ours: Callable[[], object], theirs: Callable[[], object], times: int) -> tuple[float, float]:
    """Both in turns, so that a noisy machine is unfair to both alike."""
    ours()
    theirs()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for work, figures in zip((ours, theirs), taken, strict=True):
            begin = perf_counter()
            work()
            figures.append((perf_counter() - begin) * 1000)
    return statistics.median(taken[0]), statistics.median(taken[1])


def quantile(figures: Sequence[float], part: float) -> float:
    """The smallest figure that `part` of all do not exceed."""
    return sorted(figures)[max(0, math.ceil(part * len(figures)) - 1)]


def markdown(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> str:
    lines = [
        f"Measured {date.today().isoformat()} on Linux {platform.release()}, "
        f"Python {platform.python_version()}, {os.cpu_count()} processors.",
        "",
        "| what | peer | peer's figure | Hawse | ratio | budget |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs, ours = (f"{value:.1f} {row.unit}" for value in (row.theirs, row.ours))
        budget = "" if row.budget is None else f"≤ {row.budget:.2f}"
        lines.append(f"| {row.what} | {row.peer} | {theirs} | {ours} | {row.ratio:.2f} | {budget} |")
    if figures:
        lines += ["", "| what | Hawse | budget |", "|---|---|---|"]
        for figure in figures:
            budget = "" if figure.budget is None else f"≤ {figure.budget:g} {figure.unit}"
            lines.append(f"| {figure.what} | {figure.ours:.2f} {figure.unit} | {budget} |")
    return "\n".join(lines) + "\n"
