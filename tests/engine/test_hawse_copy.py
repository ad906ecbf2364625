"""`hawse cp` against docker's, path by path; tars through pipes; `diff` and `export`."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.cli import hawse, same

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

INSIDE = """
    mkdir -p /d/sub; echo one > /d/one; echo two > /d/sub/two; chmod 750 /d/one; echo f > /f
    ln -s /d /ld; ln -s f /lf; ln -s nowhere /dangling; touch /ready; exec sleep 1000
"""
RESET = """
    rm -rf /t; mkdir -p /t/dir; echo a > /t/dir/a; echo file > /t/file
    ln -s dir /t/ldir; ln -s file /t/lfile; ln -s newt /t/dangl
"""
LIST = """
    cd /t; find . | sort | while read name; do
        echo "$name $(stat -c %A:%u "$name") $(readlink "$name") $([ -f "$name" ] && cat "$name")"
    done
"""


@pytest.fixture(scope="module")
def web(daemon: AgentUnderTest) -> Iterator[AgentUnderTest]:
    """With a container `web` that has what there is to copy."""
    daemon.client.containers.run(BUSYBOX, ["sh", "-c", INSIDE], name="web", detach=True)
    daemon.docker("exec", "web", "sh", "-c", "until [ -e /ready ]; do sleep 0.1; done")
    yield daemon
    daemon.clear()


def files(path: Path) -> None:
    """What is there to copy from and over."""
    (path / "dir").mkdir(parents=True)
    (path / "dir" / "a").write_text("a")
    (path / "file").write_text("file")
    (path / "src" / "y").mkdir(parents=True)
    (path / "src" / "x").write_text("x")
    (path / "src" / "y" / "z").write_text("z")
    for name, target in (("ldir", "dir"), ("lfile", "file"), ("dangl", "newtarget"), ("lsrc", "src")):
        (path / name).symlink_to(target)


def shape(top: Path) -> dict[str, tuple[str, str]]:
    found = {}
    for path in sorted(top.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path.relative_to(top))] = (oct(path.lstat().st_mode), content)
    return found


def copy(agent: AgentUnderTest, docker: bool, *words: str) -> bool:
    """Whether it said no."""
    if docker:
        return bool(agent.docker("cp", *words, code=None).returncode)
    return bool(hawse(agent.socket, "cp", *words, code=None).code)


OUT = (
    *("/f new", "/f dir", "/f file", "/f new/", "/f lfile", "/f dangl", "/f no/x", "/f .", "d/one ldir"),
    *("/d new", "/d new/", "/d dir/", "/d file", "/d/. dir", "/d/. new", "/d/ ldir", "/dangling new"),
    *("/lf new", "-L /lf dir", "-L /ld dir", "/ld/ dir", "-L /ld/. new", "/nope new", "-L /dangling new"),
)
IN = (
    *("file /t/new", "file /t/dir", "file /t/file", "file /t/new/", "file /t/lfile", "file /t/dangl"),
    *("file /t/no/x", "src /t/new", "src/ /t/dir/", "src/. /t/dir", "src/. /t/new", "src /t/file"),
    *("lfile /t/new", "-L lfile /t/dir", "-L lsrc /t/dir", "lsrc/ /t/dir", "lsrc /t/ldir", "nope /t/dir"),
)


def test_out(web: AgentUnderTest, tmp_path: Path) -> None:
    here = tmp_path / "here"
    results: dict[bool, dict[str, object]] = {True: {}, False: {}}
    for case in OUT:
        *options, source, target = case.split()
        for docker in results:
            files(here)
            refused = copy(web, docker, *options, f"web:{source}", f"{here}/{target}")
            results[docker][case] = (refused, shape(here))
            shutil.rmtree(here)
    assert results[False] == results[True]


def test_in(web: AgentUnderTest, tmp_path: Path) -> None:
    files(tmp_path)
    results: dict[bool, dict[str, object]] = {True: {}, False: {}}
    for case in IN:
        *options, source, target = case.split()
        for docker in results:
            web.docker("exec", "web", "sh", "-c", RESET)
            refused = copy(web, docker, *options, f"{tmp_path}/{source}", f"web:{target}")
            results[docker][case] = (refused, web.docker("exec", "web", "sh", "-c", LIST).stdout)
    assert results[False] == results[True]


def test_tars_through_pipes(web: AgentUnderTest) -> None:
    words = ["cp", "web:/d", "-"]
    ours = hawse(web.socket, *words, binary=True)
    for data in (web.docker(*words).stdout.encode(), ours.data):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert tar.getnames() == ["d", "d/one", "d/sub", "d/sub/two"]
    web.docker("exec", "web", "mkdir", "/in")
    hawse(web.socket, "cp", "-", "web:/in", input=ours.data)
    assert web.docker("exec", "web", "cat", "/in/d/sub/two").stdout == "two\n"
    refused = hawse(web.socket, "cp", "-", "web:/f", input=ours.data, code=2)
    assert "must be a directory" in refused.stderr


def test_owners_in_archive_mode(web: AgentUnderTest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 4321, 4322)
    hawse(web.socket, "cp", f"{tmp_path}/file", "web:/plain")
    hawse(web.socket, "cp", "-a", f"{tmp_path}/file", "web:/archive")
    web.docker("cp", f"{tmp_path}/file", "web:/plain2")
    web.docker("cp", "-a", f"{tmp_path}/file", "web:/archive2")
    owners = web.docker("exec", "web", "stat", "-c", "%u:%g", "plain", "archive", "plain2", "archive2").stdout
    ours, theirs = owners.split()[:2], owners.split()[2:]
    assert ours == theirs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cp web:/f web:/g", "copying between containers is not supported"),
        ("cp /a /b", "needs a container on one side"),
        ("cp nope:/f .", "No such container: nope"),
        ("cp web:/nope .", "Could not find the file /nope in container web"),
        ("export nope", "No such container: nope"),
        ("export -o /no/where/x web", "does not exist"),
    ],
)
def test_refused(web: AgentUnderTest, words: str, message: str) -> None:
    assert message in hawse(web.socket, *words.split(), code=None).stderr


def test_a_terminal_gets_no_tar(web: AgentUnderTest) -> None:
    for words in (("cp", "web:/d", "-"), ("export", "web")):
        assert "terminal" in hawse(web.socket, *words, terminal=True, code=2).stderr


def test_diff_and_export(web: AgentUnderTest, tmp_path: Path) -> None:
    same(web, "diff", "web")
    same(web, "diff", "nope")
    hawse(web.socket, "export", "-o", str(tmp_path / "all.tar"), "web")
    assert [path.name for path in tmp_path.iterdir()] == ["all.tar"]
    with tarfile.open(tmp_path / "all.tar") as tar:
        content = tar.extractfile("d/one")
        assert content is not None and content.read() == b"one\n"
    assert hawse(web.socket, "export", "web", binary=True).data[257:262] == b"ustar"
