"""copy and template, as the user that runs the tests: all of the new file or all of the old one."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.errors import InputError, NotFound, TaskFailed
from hawse_agent.provision import Context, attributes

Make = Callable[..., Any]


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("module", ["copy", "template"])
def test_a_file_is_written_once(task: Make, tmp_path: Path, module: str) -> None:
    copy = task(module, dest=tmp_path / "f", content="hello\n")
    plan = copy.plan()
    assert [change.field for change in plan.changes] == ["content"]
    assert plan.diff.endswith("+hello\n")
    assert not (tmp_path / "f").exists()
    result = copy.apply()
    assert (result["changed"], result["mode"], result["size"]) == (True, "0644", 6)
    assert result["checksum"] == hashlib.sha1(b"hello\n").hexdigest()
    assert copy.plan().changed is False
    assert copy.apply()["changed"] is False
    assert names(tmp_path) == ["f"]


def test_a_mode_alone_is_put_right_without_writing(task: Make, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    path.chmod(0o644)
    before = path.stat().st_ino
    copy = task("copy", dest=path, content="x", mode="0600")
    assert [(c.field, c.old, c.new) for c in copy.plan().changes] == [("mode", "0644", "0600")]
    assert copy.apply()["changed"] is True
    assert (mode(path), path.stat().st_ino) == ("0600", before)


def test_a_replaced_file_keeps_what_was_not_asked_about(task: Make, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"mine")
    task("copy", dest=path, content="new").apply()
    assert (path.read_text(), mode(path), os.getxattr(path, "user.note")) == ("new", "0640", b"mine")


def test_a_backup_holds_the_old_file(task: Make, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    result = task("copy", dest=tmp_path / "f", content="new", backup=True).apply()
    assert Path(result["backup_file"]).read_text() == "old"
    assert (tmp_path / "f").read_text() == "new"


def test_without_force_a_file_stays_as_it_is(task: Make, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    copy = task("copy", dest=tmp_path / "f", content="new", mode="0600", force=False)
    assert copy.plan().changed is False
    assert copy.apply()["changed"] is False
    assert (tmp_path / "f").read_text() == "old"


def test_what_is_not_valid_is_not_put_into_place(task: Make, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("good old")
    copy = {"dest": tmp_path / "f", "validate": "grep -q good %s"}
    with pytest.raises(TaskFailed, match="the new content is not valid"):
        task("copy", content="bad", **copy).apply()
    assert (names(tmp_path), (tmp_path / "f").read_text()) == (["f"], "good old")
    task("copy", content="good new", **copy).apply()
    assert (tmp_path / "f").read_text() == "good new"


def test_a_link_is_written_through_or_replaced(task: Make, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("f")
    task("copy", dest=link, content="through").apply()
    assert (link.is_symlink(), (tmp_path / "f").read_text()) == (True, "through")
    task("copy", dest=link, content="instead", follow=False).apply()
    assert (link.is_symlink(), link.read_text(), (tmp_path / "f").read_text()) == (
        False,
        "instead",
        "through",
    )


def test_a_file_of_the_host_is_copied_with_its_mode(task: Make, tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    source.write_text("x")
    source.chmod(0o700)
    into.mkdir()
    task("copy", src=source, remote_src=True, dest=into, mode="preserve").apply()
    assert (mode(into / "source"), (into / "source").read_text()) == ("0700", "x")


def test_a_blob_is_planned_before_it_is_there(task: Make, tmp_path: Path, context: Context) -> None:
    content = b"y" * 2_000_000
    digest = hashlib.sha256(content).hexdigest()
    copy = task("copy", dest=tmp_path / "f", content_blob=f"sha256:{digest}")
    assert copy.plan().diff == f"{tmp_path / 'f'}: too long to show\n"
    with pytest.raises(NotFound, match="was not sent"):
        copy.apply()
    context.blobs.mkdir()
    (context.blobs / digest).write_bytes(content)
    assert copy.apply()["changed"] is True
    assert (tmp_path / "f").read_bytes() == content
    assert copy.plan().changed is False


def test_a_secret_shows_nowhere(task: Make, tmp_path: Path, context: Context) -> None:
    (tmp_path / "f").write_text("hunter1")
    copy = task("copy", dest=tmp_path / "f", content="hunter2", context=replace(context, no_log=True))
    plan = copy.plan()
    assert plan.diff == ""
    assert [(c.old, c.new) for c in plan.changes] == [("(hidden)", "(hidden)")]
    assert "diff" not in copy.apply()


def test_a_fifo_in_place_of_a_file_holds_nothing_up(
    task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is put there after the look that says what is there."""
    os.mkfifo(tmp_path / "f")
    with pytest.raises(TaskFailed, match="special file"):
        task("copy", dest=tmp_path / "f", content="x").apply()
    with pytest.raises(match="no regular file"):
        task("copy", src=tmp_path / "f", remote_src=True, dest=tmp_path / "g").apply()
    (tmp_path / "file").write_text("old")
    before = (tmp_path / "file").stat()
    monkeypatch.setattr(attributes, "look", lambda path, follow=False: before)
    with pytest.raises(match="no regular file"):
        task("copy", dest=tmp_path / "f", content="x").apply()


def test_a_link_in_place_of_a_file_is_not_read(
    task: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "f").symlink_to("secret")
    before = (tmp_path / "secret").stat()
    monkeypatch.setattr(attributes, "look", lambda path, follow=False: before)
    with pytest.raises(TaskFailed, match="symbolic links"):
        task("copy", dest=tmp_path / "f", content="x", follow=False).apply()


def test_a_missing_directory_may_still_be_made_by_an_earlier_task(task: Make, tmp_path: Path) -> None:
    copy = task("copy", dest=tmp_path / "d/f", content="x")
    assert copy.plan().changed is True
    with pytest.raises(TaskFailed, match="there is no directory"):
        copy.apply()


def test_a_directory_is_no_place_for_a_content_without_a_name(task: Make, tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="is a directory"):
        task("copy", dest=tmp_path, content="x").apply()


@pytest.mark.parametrize(
    "args",
    [
        {"dest": "/x"},
        {"dest": "", "content": "x"},
        {"dest": "/x/", "content": "x"},
        {"dest": "/x", "content": "x", "content_blob": "sha256:" + "0" * 64},
        {"dest": "/x", "content_blob": "sha256:../../etc/shadow"},
        {"dest": "/x", "content": "x", "validate": "true"},
        {"dest": "/x", "content": "x", "mode": "loud"},
        {"dest": "/x", "content_b64": "***"},
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_when_planned(task: Make, args: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        task("copy", **args).plan()
