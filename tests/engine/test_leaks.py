"""The check for leaks itself, where it must not blame a test for what others do."""

from __future__ import annotations

import subprocess
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
