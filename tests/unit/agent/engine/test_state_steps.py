"""A state.db of an older agent is brought up to date, with all that is in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hawse_agent.engine import state
from hawse_agent.engine.state import State
from hawse_agent.paths import paths_for


@pytest.mark.parametrize("version", range(1, state.SCHEMA_VERSION + 1))
def test_from_every_version(tmp_path: Path, version: int) -> None:
    paths = paths_for(tmp_path)
    paths.lib.mkdir(parents=True)
    old = sqlite3.connect(paths.state)
    old.executescript(" ".join(state._STEPS[:version]) + f"PRAGMA user_version = {version};")
    old.execute("INSERT INTO images VALUES ('sha256:1', 'kept')")
    old.commit()
    old.close()
    for _ in range(2):
        opened = State(paths)
        assert opened.get_image("sha256:1") == "kept"
        opened.keep_layers("holder", [("sha256:2", "{}")])
        assert opened.kept_layers() == [("holder", "{}")]
        opened.close()
