"""docs/builds.md lists every row of the table of builds."""

from __future__ import annotations

from pathlib import Path

from tests.support import buildapps  # noqa: F401  (its rows)
from tests.support.buildrows import ROWS
from tests.support.recordbuilds import RECORDED

TEXT = Path(__file__).resolve().parents[4] / "docs/builds.md"


def test_the_table_is_that_of_the_tests() -> None:
    listed = [line for line in TEXT.read_text().splitlines() if line.startswith("| `")]
    assert listed == [f"| `{name}` | {row.feature} | {row.judge} |" for name, row in ROWS.items()]


def test_what_dockerd_made_is_kept_of_each_row_that_it_judges() -> None:
    judged = {name for name, row in ROWS.items() if row.judge == "dockerd"}
    assert {path.stem for path in RECORDED.glob("*.json")} == judged
