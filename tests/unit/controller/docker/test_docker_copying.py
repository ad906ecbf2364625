"""Where cp puts what it copies, and that nothing of a container's tar gets anywhere else."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hawse.docker import archive, copying
from hawse.docker.copying import Destination, Placement, Source
from hawse_agent.errors import HawseError, HostRefused, InputError, ProtocolError
from hawse_agent.linux.tree import remove


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web:/etc", ("web", "/etc")), ("web:etc", ("web", "etc")), ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")), ("../a:b", ("", "../a:b")), ("a", ("", "a")), ("-", ("", "-")),
        ("web:", ("web", "")), ("web:/a:b", ("web", "/a:b")),
    ],
)  # fmt: skip
def test_which_side_is_the_container_s(text: str, parts: tuple[str, str]) -> None:
    assert copying.split(text) == parts


FILE, TREE, LINKED = (
    Source(path="/s/f", is_directory=False),
    Source(path="/s/d", is_directory=True),
    Source(path="/s/real", is_directory=True, name="link"),
)
CONTENT = Source(path="/s/d/.", is_directory=True)


@pytest.mark.parametrize(
    ("source", "path", "there", "entries"),
    [
        (FILE, "/t/new", None, {"f": "/t/new"}),
        (FILE, "/t/old", "file", {"f": "/t/old"}),
        (FILE, "/t", "directory", {"f": "/t/f"}),
        (FILE, "/t/", "directory", {"f": "/t/f"}),
        (FILE, "/t/new/", None, "no such directory"),
        (FILE, "/t/new/.", None, "no such directory"),
        (TREE, "/t/new", None, {"d/x": "/t/new/x", "d/": "/t/new", "d/d/d": "/t/new/d/d"}),
        (TREE, "/t/new/", None, {"d/x": "/t/new/x"}),
        (TREE, "/t/old", "file", "cannot copy a directory"),
        (TREE, "/t", "directory", {"d/x": "/t/d/x", "./d/x": "/t/d/x"}),
        (CONTENT, "/t", "directory", {"./x": "/t/x", "./": "/t", ".": "/t", "x": "/t/x"}),
        (CONTENT, "/t/new", None, {"./x": "/t/new/x", "./": "/t/new"}),
        (LINKED, "/t", "directory", {"real/x": "/t/link/x"}),
        (LINKED, "/t/new", None, {"real/x": "/t/new/x"}),
        (Source(path="/", is_directory=True), "/t/new", None, {"/": "/t/new", "/etc": "/t/new/etc"}),
        (Source(path="d", is_directory=True), "new", None, {"d/x": "./new/x"}),
    ],
)  # fmt: skip
def test_places(source: Source, path: str, there: str | None, entries: dict[str, str] | str) -> None:
    target = Destination(path=path, exists=there is not None, is_directory=there == "directory")
    if isinstance(entries, str):
        with pytest.raises(InputError, match=entries):
            copying.placed(source, target)
        return
    placement = copying.placed(source, target)
    for name, where in entries.items():
        assert copying.normal("/".join([placement.directory, *placement.renamed(name)])) == copying.normal(
            where
        )


@pytest.mark.parametrize("name", ["../x", "d/../../x", "other", "../d/x"])
def test_entries_that_are_not_of_what_was_asked_for(name: str) -> None:
    with pytest.raises(ProtocolError):
        copying.placed(TREE, Destination(path="/t/new")).renamed(name)


def test_links_that_are_followed() -> None:
    assert copying.beside("/a/link", "b/../c") == "/a/c" and copying.beside("/a/link", "/c") == "/c"
    assert copying.followed("/a/link", "/c/d") == ("/c/d", "link")
    assert copying.followed("/a/link/", "/c/d") == ("/c/d/", "link")
    assert copying.followed("/a/link/.", "/c/d") == ("/c/d/.", "")
    assert copying.followed("/a/d", "/c/d") == ("/c/d", "")


# archives


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of every kind."""
    top = tmp_path / "source"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_bytes(b"x" * 1000)
    (top / "sub" / "big").write_bytes(os.urandom(600_000))
    (top / "empty").touch()
    os.link(top / "file", top / "sub" / "same")
    (top / "link").symlink_to("../elsewhere")
    os.mkfifo(top / "fifo", 0o640)
    (top / ("l" * 120)).write_text("long")
    (top / "é\udcff").write_text("bytes")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "socket"))
    os.chmod(top / "file", 0o4751)
    os.chmod(top / "sub", 0o555)
    os.utime(top / "sub", (5, 5))
    os.utime(top / "file", (7, 7))
    return top


def shape(top: Path) -> dict[str, tuple[str, bytes]]:
    found = {}
    for path in sorted(top.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        kind = os.readlink(path) if path.is_symlink() else stat.filemode(path.lstat().st_mode)
        found[os.fsdecode(path.relative_to(top))] = (kind, content)
    return found


def test_there_and_back(tree: Path, tmp_path: Path) -> None:
    source = archive.source(str(tree), follow=False)
    stream = b"".join(archive.packed(source, Placement(directory="", base="source", name="sent")))
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        assert {name.split("/")[0] for name in tar.getnames()} == {"sent"}
        assert tar.getmember("sent/sub/same").linkname == "sent/file"
    made = tmp_path / "made"
    target = archive.destination(str(made))
    pieces = (stream[at : at + 999] for at in range(0, len(stream), 999))
    archive.unpack(pieces, copying.placed(Source(path="/sent", is_directory=True), target))
    expected = shape(tree)
    del expected["socket"]
    for name in ("file", "sub/same"):  # never set-uid
        expected[name] = ("-rwxr-x--x", expected[name][1])
    assert shape(made) == expected
    assert (made / "file").stat().st_ino == (made / "sub" / "same").stat().st_ino
    assert ((made / "file").stat().st_mtime, (made / "sub").stat().st_mtime) == (7, 5)
    os.chmod(made / "sub", 0o755)


def test_paths_here(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "to").symlink_to("source")
    (tmp_path / "dangling").symlink_to("new")
    follow = archive.source(f"{tmp_path}/to", follow=True)
    assert (follow.path, follow.name, follow.is_directory) == (str(tree), "to", True)
    plain = archive.source(f"{tmp_path}/to", follow=False)
    assert (plain.path, plain.is_directory) == (f"{tmp_path}/to", False)
    assert archive.source(f"{tmp_path}/to/", follow=False).name == "to"
    assert archive.source(f"{tmp_path}/to/.", follow=False).base == "."
    assert archive.destination(f"{tmp_path}/to").is_directory
    assert archive.destination(f"{tmp_path}/dangling") == Destination(path=f"{tmp_path}/new")
    for wrong in (f"{tmp_path}/none/x", f"{tree}/fifo"):
        with pytest.raises(InputError, match="invalid output path"):
            archive.destination(wrong)
    with pytest.raises(InputError, match="No such file"):
        archive.source(f"{tmp_path}/none", follow=False)


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(content), 0o4777
    return info.tobuf() + content + bytes(-len(content) % 512)


def attacks(outside: str) -> dict[str, bytes]:
    evil = entry("d/x", content=b"evil")
    hard = tarfile.LNKTYPE
    return {
        "a link on the way": entry("d", tarfile.SYMTYPE, outside) + evil,
        "a link that was here": evil,
        "up": entry("../victim", content=b"evil"),
        "up from below": entry("d/../../victim", content=b"evil"),
        "a hard link to the outside": entry("d", hard, "../victim") + entry("d", content=b"evil"),
        "a hard link through a link": entry("l", tarfile.SYMTYPE, outside) + entry("h", hard, "l/x"),
        "a directory in the place of a file": entry("file", tarfile.DIRTYPE),
        "a file in the place of a directory": entry("sub", content=b"x"),
    }


@pytest.mark.parametrize("attack", attacks(""))
def test_nothing_is_written_elsewhere(tmp_path: Path, attack: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "sub").mkdir(parents=True)
    (inside / "file").write_text("kept")
    outside.mkdir()
    (outside / "x").write_text("safe")
    (tmp_path / "victim").write_text("safe")
    if attack == "a link that was here":
        (inside / "d").symlink_to(outside)
    stream = attacks(str(outside))[attack]
    with pytest.raises(HawseError):
        archive.unpack([stream, bytes(1024)], Placement(directory=str(inside), base="."))
    assert [path.read_text() for path in (outside / "x", tmp_path / "victim")] == ["safe", "safe"]
    assert sorted(path.name for path in outside.iterdir()) == ["x"]


def test_what_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("safe")
    (tmp_path / "f").symlink_to("real")
    archive.unpack([entry("f", content=b"new"), bytes(1024)], Placement(directory=str(tmp_path), base="f"))
    assert (tmp_path / "f").read_text() == "new" and not (tmp_path / "f").is_symlink()
    assert (tmp_path / "real").read_text() == "safe"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o777


def test_a_file_that_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1_000_000))
    pieces = archive.packed(archive.source(str(file), follow=False), Placement(directory="", base="file"))
    next(pieces)
    file.write_bytes(b"")
    with pytest.raises(HostRefused, match="shorter"):
        list(pieces)


def test_no_tar(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="no tar"):
        archive.unpack([b"x" * 1024], Placement(directory=str(tmp_path), base="f"))


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """Removed at the end, which pytest cannot when it is deep."""
    path = tmp_path / "top"
    path.mkdir()
    yield path
    remove(path)


def test_directories_deeper_than_python_recurses(top: Path) -> None:
    """As far as a path goes; beyond, the file is named."""
    levels = 1050
    source = Source(path=str(top), is_directory=True)
    placement = Placement(directory="/", base="top")
    here = _deeper(os.open(top, os.O_RDONLY), levels)
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive.packed(source, placement)))) as tar:
        assert tar.getnames()[-1] == f"top{'/d' * levels}"
    os.close(_deeper(here, 1050))
    with pytest.raises(HostRefused, match=r"/d/d: File name too long$"):
        b"".join(archive.packed(source, placement))


def _deeper(here: int, levels: int) -> int:
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    return here
