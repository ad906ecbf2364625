"""What a client that attaches asks for."""

from __future__ import annotations

from dataclasses import dataclass

from hawse_agent.supervise.logs import Stream


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
    framed: bool | None = None
    """In Docker's frames; None: unless there is a terminal."""

    @property
    def streams(self) -> frozenset[Stream]:
        wanted: dict[Stream, bool] = {"stdout": self.stdout, "stderr": self.stderr}
        return frozenset(stream for stream, asked in wanted.items() if asked)
