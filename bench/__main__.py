"""Measures Hawse and its peers in turns and prints ratios: `make bench`.

Arguments choose groups of rows: `containers`, `crowd`, `archives`, `plays`, `registry`, `send`, `builds`.
Must run in a session (tests.support.isolation).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support import isolation

from bench import archives, builds, containers, crowd, plays, registry, send
from bench.table import Figure, Row, markdown

GROUPS: dict[str, tuple[Callable[[], str], Callable[[Path], Sequence[Row | Figure]]]] = {
    "containers": (containers.possible, containers.rows),
    "crowd": (crowd.possible, crowd.figures),
    "archives": (archives.possible, archives.rows),
    "plays": (plays.possible, plays.rows),
    "registry": (registry.possible, registry.rows),
    "send": (send.possible, send.rows),
    "builds": (builds.possible, builds.rows),
}


def main(chosen: list[str]) -> int:
    session = isolation.current()
    if session is None:
        print("needs a session: python -m tests.support.isolation -- python -m bench", file=sys.stderr)
        return 2
    measured: list[Row | Figure] = []
    for name, (possible, measure) in GROUPS.items():
        if chosen and name not in chosen:
            continue
        problem = possible()
        if problem:
            print(f"left out: {name}: {problem}", file=sys.stderr)
            continue
        directory = session.directory / f"bench-{name}"
        directory.mkdir()
        try:
            measured += measure(directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    rows = [row for row in measured if isinstance(row, Row)]
    print(markdown(rows, [figure for figure in measured if isinstance(figure, Figure)]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
