"""`hawse` in this process against an agent's socket: what it prints, and its exit code."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from tests.support.agent import AgentUnderTest

from hawse.cli.main import main


@dataclass(frozen=True, kw_only=True)
class Done:
    code: int
    stdout: str
    stderr: str
    data: bytes = b""
    """What was written to stdout, when it is `binary`."""


class Terminal(io.TextIOWrapper):
    """A terminal to write to."""

    def isatty(self) -> bool:
        return True


def hawse(
    socket: Path,
    *words: str,
    code: int | None = 0,
    input: bytes = b"",
    terminal: bool = False,
    binary: bool = False,
) -> Done:
    """`code` None allows every exit code."""
    kind = Terminal if terminal else io.TextIOWrapper
    streams = [kind(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    stdin = io.TextIOWrapper(io.BytesIO(input), encoding="utf-8")
    with (
        mock.patch.dict("os.environ", {"HAWSE_SOCKET": str(socket)}),
        mock.patch("sys.stdin", stdin),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        ended = main(words)
    data, errors = (stream.buffer.getvalue() for stream in streams)  # type: ignore[attr-defined]
    out, err = "" if binary else data.decode(), errors.decode()
    assert "Traceback" not in err
    assert code is None or ended == code, f"hawse {' '.join(words)} ended with {ended}: {out}{err}"
    return Done(code=ended, stdout=out, stderr=err, data=data if binary else b"")


def same(agent: AgentUnderTest, *words: str, docker: tuple[str, ...] = ()) -> None:
    """What it says equals what docker says; ages go on while we ask, so until docker says the same twice."""
    for _ in range(60):
        before = agent.docker(*(docker or words), code=None)
        ours = hawse(agent.socket, *words, code=None)
        after = agent.docker(*(docker or words), code=None)
        if before.stdout == after.stdout:
            assert bool(ours.code) == bool(after.returncode), f"{ours.stderr}{after.stderr}"
            # A failed `docker inspect` says an empty line.
            wanted = after.stdout if after.stdout != "\n" or not ours.code else ""
            assert ours.stdout == wanted, f"{ours.stdout}\n{ours.stderr}\nwhere docker says\n{wanted}"
            return
    pytest.fail(f"docker {' '.join(docker or words)} never said the same twice")
