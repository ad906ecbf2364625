"""What a client that attaches asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AttachOptions:
    """Which streams an attached client gets, as Docker's attach names them."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = True
    """Go on with what comes."""
    logs: bool = False
    """Begin with what is in the log."""
    detach_keys: str = ""
