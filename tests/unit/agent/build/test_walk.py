"""Digests of what COPY takes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hawse_agent.build import walk
from hawse_agent.engine.building.stopping import BuildStopped, Stopping


def test_a_stop_waits_for_no_hole(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 40)
    stopping = Stopping()
    timer = threading.Timer(0.1, stopping.stop)
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        timer.start()
        with pytest.raises(BuildStopped):
            walk.digest(walk.walk(root, "f"), owners=False, check=stopping.check)
    finally:
        timer.join()
        os.close(root)
