"""How this program was started, so that it can start itself again; and which bundle it runs from."""

from __future__ import annotations

import os
import sys

import hawse_agent


def command(*arguments: str) -> list[str]:
    """Interpreter, flags and script of this process, with other arguments. Before any chdir: the script may
    have been named by a relative path."""
    own = sys.orig_argv[1 : len(sys.orig_argv) - (len(sys.argv) - 1)]
    script = sys.argv[0]
    return [sys.executable, *(os.path.abspath(word) if word == script else word for word in own), *arguments]


def bundle() -> str:
    """Name of the bundle's directory; empty when run from a checkout."""
    directory = os.path.dirname(os.path.dirname(os.path.abspath(hawse_agent.__file__)))
    return os.path.basename(directory) if os.path.exists(f"{directory}/VERSION") else ""
