"""Sources of COPY and ADD: wildcards, and paths that stay in the context."""

from __future__ import annotations

import posixpath

from hawse_agent.spec.globs import has_wildcards, match

__all__ = ["clamped", "has_wildcards", "match"]


def clamped(path: str) -> str:
    """Relative to the context's top, above which no `..` leads; `.` is the top itself."""
    return posixpath.normpath("/" + path).lstrip("/") or "."
