"""Paths of an untrusted tree: nothing is opened or made outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hawse_agent.linux import tree


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def where(fd: int) -> str:
    path = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    return path


@pytest.mark.parametrize("path", ["a/b", "/a/b", "/../../a/b", "a/./b/", "a/../a/b", "link/b", "up/b"])
def test_makes_what_is_missing_inside(tmp_path: Path, root: int, path: str) -> None:
    (tmp_path / "root/link").symlink_to("/a")
    (tmp_path / "root/up").symlink_to("../../../a")
    assert where(tree.make_in(root, path, directory=True)) == str(tmp_path / "root/a/b")
    assert sorted(os.listdir(tmp_path)) == ["root"]


def test_dangling_link_is_made_where_it_points(tmp_path: Path, root: int) -> None:
    (tmp_path / "root/var").mkdir()
    (tmp_path / "root/var/run").symlink_to("/run")
    assert where(tree.make_in(root, "/var/run/app.sock", directory=False)) == str(
        tmp_path / "root/run/app.sock"
    )
    assert (tmp_path / "root/run/app.sock").is_file()


def test_what_exists_is_left_alone(tmp_path: Path, root: int) -> None:
    (tmp_path / "root/file").write_text("content")
    os.close(tree.make_in(root, "file", directory=False))
    assert (tmp_path / "root/file").read_text() == "content"


def test_link_that_leads_out_stays_in(tmp_path: Path, root: int) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root/escape").symlink_to(tmp_path / "secret")
    with pytest.raises(FileNotFoundError):
        tree.open_in(root, "escape", os.O_RDONLY)


def test_magic_links_are_refused(root: int) -> None:
    host = os.open("/", os.O_PATH)
    with pytest.raises(OSError, match="Too many levels"):
        tree.open_in(host, f"/proc/self/fd/{root}/x")
    os.close(host)


def test_links_in_a_circle(tmp_path: Path, root: int) -> None:
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        tree.make_in(root, "a/x", directory=True)


def test_file_in_the_way(tmp_path: Path, root: int) -> None:
    (tmp_path / "root/file").touch()
    with pytest.raises(NotADirectoryError):
        tree.make_in(root, "file/below", directory=True)
