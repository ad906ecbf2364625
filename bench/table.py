"""What was measured, as a table of ratios."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from time import perf_counter


@dataclass(frozen=True, kw_only=True)
class Row:
    """Figures are medians in `unit`; `budget` is the highest ratio that ARCHITECTURE.md §5 allows."""

    what: str
    peer: str
    theirs: float
    ours: float
    unit: str
    budget: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


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


def markdown(rows: Sequence[Row]) -> str:
    lines = [
        f"Measured {date.today().isoformat()} on Linux {platform.release()}, "
        f"Python {platform.python_version()}, {os.cpu_count()} processors.",
        "",
        "| what | peer | peer's figure | Hawse | ratio | budget |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs, ours = (f"{value:.1f} {row.unit}" for value in (row.theirs, row.ours))
        lines.append(
            f"| {row.what} | {row.peer} | {theirs} | {ours} | {row.ratio:.2f} | ≤ {row.budget:.2f} |"
        )
    return "\n".join(lines) + "\n"
