"""file, as the user that runs the tests: plan and apply agree, and a second apply finds nothing to do."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.plan.operations import Change

Make = Callable[..., Any]


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def settle(made: Any) -> tuple[Change, ...]:
    """Apply once, and see that it is stable; returns what the plan said."""
    planned = made.plan()
    assert planned.changed and not planned.unknown
    assert made.apply()["changed"] is True
    assert made.plan().changed is False
    assert made.apply()["changed"] is False
    return tuple(planned.changes)


def test_directories_are_made_with_their_parents(task: Make, tmp_path: Path) -> None:
    made = task("file", path=tmp_path / "a/b", state="directory", mode="0750")
    assert settle(made) == (Change(field="state", old="absent", new="directory"),)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b")) == ("0750", "0750")


def test_the_daemons_umask_does_not_count(task: Make, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        task("file", path=tmp_path / "d", state="directory").apply()
        task("file", path=tmp_path / "f", state="touch").apply()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert (mode(tmp_path / "d"), mode(tmp_path / "f")) == ("0755", "0644")


def test_a_mode_is_compared_and_set(task: Make, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch(0o600)
    assert settle(task("file", path=path, mode="u=rw,go=r")) == (
        Change(field="mode", old="0600", new="0644"),
    )


def test_a_tree_is_put_right_and_links_are_not_followed(task: Make, tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.touch(0o600)
    (tree / "sub").mkdir(parents=True, mode=0o700)
    (tree / "sub/f").touch(0o600)
    (tree / "out").symlink_to(outside)
    tree.chmod(0o755)
    made = task("file", path=tree, state="directory", mode="u=rwX,go=rX", recurse=True)
    assert [change.field for change in settle(made)] == ["below"]
    assert (mode(tree / "sub/f"), mode(outside)) == ("0644", "0600")


def test_links_are_made_replaced_and_kept(task: Make, tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    link = tmp_path / "link"
    settle(task("file", path=link, state="link", src="one"))
    changes = settle(task("file", path=link, state="link", src="two"))
    assert changes == (Change(field="state", old="link to one", new="link to two"),)
    assert link.readlink() == Path("two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "one", "two"]


def test_without_a_state_a_link_stays_a_link(task: Make, tmp_path: Path) -> None:
    (tmp_path / "f").touch(0o600)
    link = tmp_path / "link"
    link.symlink_to("f")
    settle(task("file", path=link, mode="0640"))
    assert (link.readlink(), mode(tmp_path / "f")) == (Path("f"), "0640")
    assert task("file", path=link, mode="0600", follow=False).plan().changed is False


def test_a_file_gives_way_to_a_link_only_by_force(task: Make, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("kept")
    (tmp_path / "target").touch()
    with pytest.raises(TaskFailed, match="is there and is no link"):
        task("file", path=tmp_path / "f", state="link", src="target").apply()
    settle(task("file", path=tmp_path / "f", state="link", src="target", force=True))


def test_a_full_directory_never_gives_way_to_a_link(task: Make, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    (tmp_path / "target").touch()
    with pytest.raises(TaskFailed, match="not empty"):
        task("file", path=tmp_path / "d", state="link", src="target", force=True).apply()


def test_hard_links_share_the_file(task: Make, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    settle(task("file", path=tmp_path / "h", state="hard", src="f"))
    assert (tmp_path / "h").samefile(tmp_path / "f")


def test_trees_are_removed_and_what_links_point_to_stays(task: Make, tmp_path: Path) -> None:
    (tmp_path / "keep").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d/link").symlink_to(tmp_path / "keep")
    settle(task("file", path=tmp_path / "d", state="absent"))
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


def test_touch_always_changes(task: Make, tmp_path: Path) -> None:
    touch = task("file", path=tmp_path / "f", state="touch", mode="0600")
    assert touch.apply()["changed"] and mode(tmp_path / "f") == "0600"
    assert touch.plan().changes == (Change(field="times", old="earlier", new="now"),)


def test_what_an_earlier_task_may_make_is_not_refused_by_the_plan(task: Make, tmp_path: Path) -> None:
    for later in (
        task("file", path=tmp_path / "f", mode="0600"),
        task("file", path=tmp_path / "l", state="link", src="f"),
        task("file", path=tmp_path / "d", state="directory", owner="no-such-user"),
    ):
        assert later.plan().unknown
        with pytest.raises(TaskFailed):
            later.apply()


def test_the_result_says_what_is_there(task: Make, tmp_path: Path) -> None:
    result = task("file", path=tmp_path / "d", state="directory").apply()
    assert result["state"] == "directory"
    assert (result["mode"], result["uid"], result["path"]) == ("0755", os.geteuid(), str(tmp_path / "d"))
    assert result["diff"] == {"before": {"state": "absent"}, "after": {"state": "directory"}}


@pytest.mark.parametrize(
    "args",
    [
        {"path": ""},
        {"path": "/x", "state": "link"},
        {"path": "/x", "src": "y"},
        {"path": "/x", "mode": "rw"},
        {"path": "/x", "state": "absent", "recurse": True},
        {"path": "/", "state": "absent"},
        {"path": "/x", "shape": "round"},
    ],
)
def test_arguments_that_cannot_be_meant_are_refused_when_planned(task: Make, args: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        task("file", **args).plan()
