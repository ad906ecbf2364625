"""`/containers/{id}/top`: a container's processes in the columns of ps(1). Pure but for /proc and `ps`.

As with Docker the host's own `ps` is asked, with the options that the client gave. A host that has none shows
the columns of `ps -ef`, which are read from /proc.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hawse_agent.errors import InputError, NotSupported

DEFAULT = "-ef"
_TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_PATIENCE = 10.0


def table(pids: Sequence[int], arguments: str) -> dict[str, Any]:
    """`Titles` and `Processes`. Raises InputError for options that `ps` refuses, or that hide the pid."""
    options = (arguments or DEFAULT).split()
    program = shutil.which("ps")
    if program is not None:
        return _by_ps([program, *options], pids)
    if options != [DEFAULT]:
        raise NotSupported(f"ps_args other than {DEFAULT} are not supported on a host without ps")
    return {"Titles": _TITLES, "Processes": [row for pid in pids if (row := _row(pid))]}


def _by_ps(command: list[str], pids: Sequence[int]) -> dict[str, Any]:
    for word in command[1:]:
        if re.search(r"pid\s*=", word, re.IGNORECASE):
            raise InputError(f'specifying "{word}" is not allowed: the column of the pid needs its own title')
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE)
    if done.returncode:
        raise InputError(f"ps: {done.stderr.strip() or done.stdout.strip()}")
    head, *lines = done.stdout.splitlines()
    titles = head.split()
    if "PID" not in titles:
        raise InputError("Couldn't find PID field in ps output")
    column, wanted = titles.index("PID"), set(pids)
    rows = []
    for line in lines:
        words = line.split(None, len(titles) - 1)
        if len(words) > column and words[column].isdecimal() and int(words[column]) in wanted:
            rows.append(words)
    return {"Titles": titles, "Processes": rows}


def _row(pid: int) -> list[str] | None:
    """A row of `ps -ef`; None when the process has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            command = raw.read().replace(b"\0", b" ").decode(errors="replace").strip()
        with open(f"/proc/{pid}/comm") as file:
            name = file.read().strip()
        owner = os.stat(f"/proc/{pid}").st_uid
        with open("/proc/stat") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith("btime"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    started = datetime.fromtimestamp(booted + int(fields[19]) / ticks).strftime("%H:%M")
    seconds = (int(fields[11]) + int(fields[12])) // ticks
    spent = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return [str(owner), str(pid), fields[1], "0", started, "?", spent, command or f"[{name}]"]
