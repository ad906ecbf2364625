"""Removal of trees that are deeper than a path may be long, or than Python recurses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hawse_agent.linux import tree


def test_a_tree_of_any_depth(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(tmp_path)
    (tmp_path / "stays").touch()
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=here)
        below = os.open("directory", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(here)
        here = below
    os.close(here)
    tree.remove(top)
    assert os.listdir(tmp_path) == ["stays"]


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tree.remove(tmp_path / "missing")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        tree.remove(tmp_path / "link")
