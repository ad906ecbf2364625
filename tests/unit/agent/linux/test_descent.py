"""Walks through trees of any depth, and through trees that change under the walk."""

from __future__ import annotations

import io
import os
import resource
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import deeptree

from hawse_agent.errors import HostRefused
from hawse_agent.images import tarball
from hawse_agent.images.extract import Extractor
from hawse_agent.images.tar import TarReader
from hawse_agent.images.tarball import END, TarWriter
from hawse_agent.linux import files, tree
from hawse_agent.linux.descent import walk


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    top = tmp_path_factory.mktemp("deep")
    deeptree.make(top)
    yield top
    tree.remove(top)  # pytest itself cannot


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "target"
    path.mkdir()
    yield path
    tree.remove(path)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # An extractor keeps 64 directories open, and other tests' threads may open a few meanwhile.
    resource.setrlimit(resource.RLIMIT_NOFILE, (128 + len(os.listdir("/proc/self/fd")), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def archived(top: Path) -> bytes:
    fd = opened(top)
    try:
        return b"".join(TarWriter([]).directory(fd, b"")) + END
    finally:
        os.close(fd)


@pytest.mark.usefixtures("few_descriptors")
def test_usage_of_a_deep_tree(deep: Path) -> None:
    assert files.disk_usage(deep, directories=False) == deeptree.LENGTH * 4096


@pytest.mark.usefixtures("few_descriptors")
def test_a_deep_tree_goes_through_a_tar(deep: Path, target: Path, tmp_path: Path) -> None:
    data = archived(deep)
    with tarfile.open(fileobj=io.BytesIO(data)) as judge:
        names = judge.getnames()
    assert len(names) == 2 * deeptree.LENGTH
    assert names[-1] == f"{deeptree.NAME}/" * deeptree.LENGTH + "file"

    root = opened(target)
    extractor = Extractor(root, what="the archive")
    reader = TarReader(io.BytesIO(data))
    for entry in reader:
        extractor.extract(entry, reader.data())
    extractor.finish()
    extractor.close()
    assert deeptree.depth(target) == deeptree.LENGTH

    # A file in its place: all of it goes.
    (tmp_path / deeptree.NAME).touch()
    with tarfile.open(fileobj=(instead := io.BytesIO()), mode="w") as archive:
        archive.add(tmp_path / deeptree.NAME, deeptree.NAME)
    instead.seek(0)
    extractor = Extractor(root, what="the archive")
    for entry in TarReader(instead):
        extractor.extract(entry, iter(()))
    extractor.close()
    os.close(root)
    assert (target / deeptree.NAME).is_file()


def test_what_is_too_deep_for_an_archive_is_named(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MAX_NAME", 3000)
    with pytest.raises(HostRefused, match=r"^directory/directory/.*…: a path of more than 3000 bytes"):
        archived(deep)


def test_a_long_path_is_opened_in_parts(deep: Path) -> None:
    root = opened(deep)
    path = f"/{deeptree.NAME}" * deeptree.LENGTH
    fd = tree.open_in(root, f"{path}/file", os.O_RDONLY)
    assert os.fstat(fd).st_size == 4096
    os.close(fd)
    with pytest.raises(OSError, match="name too long"):
        tree.open_in(root, f"{path}/../file")  # it could climb out of a part
    with pytest.raises(OSError, match="name too long"):
        tree.open_in(root, "x" * 5000)
    with pytest.raises(OSError, match="name too long"):  # a descriptor for each
        os.close(tree.make_in(root, "made/" * 600, directory=True))
    os.close(root)
    tree.remove(deep / "made")


def test_a_link_deep_in_a_long_path_is_not_followed(deep: Path, tmp_path: Path) -> None:
    root, path = opened(deep), f"{deeptree.NAME}/" * deeptree.LENGTH
    end = tree.open_in(root, path)
    os.symlink(tmp_path, "link", dir_fd=end)
    with pytest.raises(OSError, match="levels of symbolic links"):
        tree.open_in(root, f"{path}link/deep")
    os.unlink("link", dir_fd=end)
    os.close(end)
    os.close(root)


def names(top: Path, missed: list[str]) -> Iterator[str]:
    """Paths of a walk; what is done at one of them happens before its directories are listed."""
    fd = opened(top)
    try:
        for place in walk(fd, missed.append):
            yield place.at.path
            for name in sorted(os.listdir(place.at.fd)):
                if (Path(f"/proc/self/fd/{place.at.fd}") / name).is_dir():
                    place.below.append(name)
    finally:
        os.close(fd)


def test_a_walk_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside/secret").mkdir(parents=True)
    (tmp_path / "top").mkdir()
    (tmp_path / "top/link").symlink_to(tmp_path / "outside")
    missed: list[str] = []
    assert list(names(tmp_path / "top", missed)) == [""]
    assert missed == ["link"]


def test_a_directory_that_is_moved_does_not_lead_out(tmp_path: Path) -> None:
    """The walk is in a/b/c when that is moved: its `..` is not a/b any more, which is still seen."""
    top = tmp_path / "top"
    for path in ("a/b/c", "a/b/d", "a/e"):
        (top / path).mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    seen = []
    for path in names(top, missed := []):
        seen.append(path)
        if path == "a/b/c":
            (top / "a/b/c").rename(tmp_path / "c")
    assert (seen, missed) == (["", "a", "a/b", "a/b/c", "a/b/d", "a/e"], [])


def test_what_is_moved_away_with_all_above_it_is_missed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for path in ("a/b/c", "a/b/d", "a/e", "f"):
        (top / path).mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    seen = []
    for path in names(top, missed := []):
        seen.append(path)
        if path == "a/b/c":
            (top / "a/b/c").rename(tmp_path / "outside/c")
            (top / "a").rename(top / "z")
    assert seen == ["", "a", "a/b", "a/b/c", "f"]
    assert sorted(missed) == ["/…/d", "/…/e"]
