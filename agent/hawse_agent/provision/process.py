"""Programs that modules run: never by a shell, output captured, as the module's own user."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hawse_agent.errors import TaskFailed


@dataclass(frozen=True, kw_only=True)
class Finished:
    code: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str = "/",
    stdin: bytes = b"",
) -> Finished:
    """To its end. Raises TaskFailed when it cannot be started."""
    try:
        done = subprocess.run(
            argv,
            env=dict(env),
            cwd=cwd,
            input=stdin,
            capture_output=True,
            umask=0o022,
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        raise TaskFailed(
            f"{argv[0]}: {error.strerror}", result={"rc": error.errno or 1, "cmd": list(argv)}
        ) from error
    return Finished(
        code=done.returncode,
        stdout=done.stdout.decode(errors="replace"),
        stderr=done.stderr.decode(errors="replace"),
    )
