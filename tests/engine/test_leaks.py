"""The check for leaks itself, where it must not blame a test for what others do."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tests.support import isolation, leaks, linux

SESSION = isolation.current()
pytestmark = pytest.mark.skipif(SESSION is None, reason="needs a session (make test)")


@pytest.mark.parametrize("inherited", [True, False])
def test_a_mount_that_is_gone_with_its_directory(
    inherited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SESSION is not None
    point = tmp_path / "point"
    point.mkdir()
    linux.mount("of-the-machine", point, "tmpfs")
    if inherited:
        monkeypatch.setattr(leaks, "_INHERITED", frozenset(leaks._mounts("self")))
    before = leaks.snapshot(SESSION.directory)
    elsewhere = f"umount -n {point} && rmdir {point}"
    subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", elsewhere], check=True)
    left = leaks.wait_for(before, SESSION.directory, timeout=0.0 if not inherited else 5.0)
    lost = f"gone: mount tmpfs of-the-machine on {point}"
    assert [line for line in left if "of-the-machine" in line] == ([] if inherited else [lost])


def test_a_process_that_had_ended_before() -> None:
    """And was reaped meanwhile; one that nobody reaps afterwards is a leak."""
    assert SESSION is not None
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        before = leaks.snapshot(SESSION.directory)
        assert before["process true (unreaped)"] == 1
        process.wait()
        assert leaks.wait_for(before, SESSION.directory, timeout=5.0) == []
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        left = leaks.wait_for(before - Counter(["process true (unreaped)"]), SESSION.directory, timeout=0.0)
        assert left == ["left behind: process true (unreaped)"]
