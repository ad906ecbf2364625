"""The difference of two texts, as long as a person would read it."""

from __future__ import annotations

import difflib

LIMIT = 256 * 1024
"""Bytes; longer contents are not compared line by line."""
LINES = 400


def unified(before: bytes | None, after: bytes | None, name: str) -> str:
    """A unified diff; None is a file that is not there. Says so when the contents are not text."""
    if (before or b"") == (after or b""):
        return ""
    texts = [_text(before), _text(after)]
    old, new = texts
    if old is None or new is None:
        return f"{name}: not text, or too long to show ({_size(before)} → {_size(after)})\n"
    lines = list(
        difflib.unified_diff(
            old.splitlines(keepends=True),
            new.splitlines(keepends=True),
            fromfile=name if before is not None else "/dev/null",
            tofile=name if after is not None else "/dev/null",
        )
    )
    shown = [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    if len(shown) > LINES:
        shown = [*shown[:LINES], f"… {len(shown) - LINES} more lines\n"]
    return "".join(shown)


def _text(content: bytes | None) -> str | None:
    if content is None:
        return ""
    if len(content) > LIMIT or b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _size(content: bytes | None) -> str:
    return "nothing" if content is None else f"{len(content)} bytes"
