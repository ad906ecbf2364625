"""Leaving the cgroup of a login, on directories that stand in for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

from hawse_agent.cgroups import Base, leave_session


def test_on_v2_into_a_leaf_beside_the_containers(tmp_path: Path) -> None:
    leaf = tmp_path / "daemon"
    leaf.mkdir()
    (leaf / "cgroup.procs").touch()
    leave_session(Base(version=2, hierarchies={"unified": str(tmp_path)}))
    assert (leaf / "cgroup.procs").read_text() == str(os.getpid())


def test_on_v1_nowhere(tmp_path: Path) -> None:
    leave_session(Base(version=1, hierarchies={"memory": str(tmp_path)}))
    assert list(tmp_path.iterdir()) == []
