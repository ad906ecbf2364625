"""How contents are shown in a plan: a unified diff of texts, sizes of everything else. Pure."""

from __future__ import annotations

import difflib
import hashlib

LONGEST = 200
"""Lines of a diff that are shown."""
LARGEST = 1 << 18
"""Bytes above which contents are not compared line by line."""


def describe(content: bytes | None) -> str:
    if content is None:
        return "(none)"
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:12]}"


def unified(old: bytes | None, new: bytes, name: str) -> str:
    """Empty for what is no text."""
    before, after = _lines(old or b""), _lines(new)
    if before is None or after is None:
        return ""
    origin = name if old is not None else "/dev/null"
    lines = list(difflib.unified_diff(before, after, origin, name, lineterm=""))
    if len(lines) > LONGEST:
        lines = [*lines[:LONGEST], f"… {len(lines) - LONGEST} more lines"]
    return "\n".join(lines) + ("\n" if lines else "")


def _lines(data: bytes) -> list[str] | None:
    if len(data) > LARGEST or b"\0" in data:
        return None
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError:
        return None
