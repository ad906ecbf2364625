"""A project folder for `hawse`, and the command run in it as a person runs it: as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent


class Project:
    """HOME and all that hawse keeps lie below `directory`; the project folder is `directory`/project.
    A command may take `patience` seconds."""

    def __init__(self, directory: Path, inventory: str, *, patience: float = 120) -> None:
        self.patience = patience
        self.directory = directory / "project"
        self.directory.mkdir(parents=True)
        self.write("hawse.toml", 'inventory = "hosts.ini"\n')
        self.write("hosts.ini", inventory)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "HAWSE_HOME": str(directory / "data"),
            "LANG": "C.UTF-8",
        }

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def run(
        self, *words: str, input: str = "", code: int | None = 0, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`code` None allows every exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "hawse", *words],
            cwd=self.directory,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout or self.patience,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"hawse {words}:\n{done.stdout}{done.stderr}"
        return done
