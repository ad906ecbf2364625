"""Texts that are read as numbers: a raised 2 is a digit and no number, so that int() raises after isdigit.

isdecimal is true for what int() reads, and for no more.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_no_number_is_read_after_isdigit() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder, package in (("agent", "hawse_agent"), ("controller", "hawse"))
        for path in sorted((ROOT / folder / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("isdigit", "isnumeric")
        if "isascii" not in path.read_text().splitlines()[node.lineno - 1]
    ]
    assert found == []
