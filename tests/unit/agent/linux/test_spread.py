"""Directories whose directories lie apart on the disk; chattr's own `lsattr` is the judge."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hawse_agent.linux import files


def _spread(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        files.spread(fd)
    finally:
        os.close(fd)


def _flags(path: Path) -> str:
    return subprocess.run(["lsattr", "-d", path], check=True, capture_output=True, text=True).stdout.split()[
        0
    ]


def _is_ext(path: Path) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], check=True, capture_output=True, text=True)
    return kind.stdout.strip() == "ext2/ext3"


def test_a_directory_on_ext4_gets_the_flag_beside_those_that_it_has(tmp_path: Path) -> None:
    if not _is_ext(tmp_path):
        pytest.skip("the tests' directory is not on ext4")
    subprocess.run(["chattr", "+d", tmp_path], check=True)
    before = set(_flags(tmp_path))
    _spread(tmp_path)
    assert set(_flags(tmp_path)) == before | {"T"}
    (tmp_path / "below").mkdir()
    assert "T" not in _flags(tmp_path / "below")


def test_other_file_systems_are_let_be() -> None:
    _spread(Path("/proc/self"))
    _spread(Path("/dev"))
