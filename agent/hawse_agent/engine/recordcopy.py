"""What the state says of a container, in a file beside it: for `doctor --rebuild`."""

from __future__ import annotations

import os
from pathlib import Path

from hawse_agent.errors import HawseError
from hawse_agent.linux import files
from hawse_agent.spec import codec
from hawse_agent.spec.records import ContainerRecord


def keep(record: ContainerRecord, path: Path) -> None:
    fresh = path.with_suffix(".new")
    files.write_private(fresh, codec.dumps(record).encode())
    os.rename(fresh, path)


def read(path: Path) -> ContainerRecord | None:
    """None where there is none, or only half of one."""
    try:
        return codec.loads(ContainerRecord, path.read_bytes())
    except (FileNotFoundError, ValueError, HawseError):
        return None
