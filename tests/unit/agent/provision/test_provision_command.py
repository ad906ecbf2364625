"""command and shell, as the user that runs the tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.provision import Context, process

Make = Callable[..., Any]


def test_a_command_is_split_but_no_shell_sees_it(task: Make) -> None:
    result = task("command", cmd="printf '%s|' 'a b' '*' ';'").apply()
    assert result["stdout"] == "a b|*|;|"
    assert result["cmd"] == ["printf", "%s|", "a b", "*", ";"]
    assert (result["rc"], result["changed"]) == (0, True)


def test_a_shell_command_is_run_by_one(task: Make) -> None:
    result = task("shell", cmd="echo a; echo b >&2").apply()
    assert result["stdout_lines"] == ["a"]
    assert result["stderr_lines"] == ["b"]


def test_variables_are_those_of_the_user(task: Make, context: Context) -> None:
    with_own = replace(context, environment={"COLOUR": "red"})
    argv = ["echo", "$COLOUR", "${COLOUR}x", "$UNKNOWN"]
    assert task("command", argv=argv, context=with_own).apply()["stdout"] == "red redx $UNKNOWN"
    literal = task("command", argv=argv, context=with_own, expand_argument_vars=False)
    assert literal.apply()["stdout"] == "$COLOUR ${COLOUR}x $UNKNOWN"


def test_nothing_of_the_daemons_environment_comes_along(task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMONS_OWN", "1")
    assert "DAEMONS_OWN" not in task("command", cmd="env").apply()["stdout"]


def test_a_plan_does_not_know_what_a_command_will_do(task: Make, context: Context) -> None:
    plan = task("command", cmd="make install").plan()
    assert (plan.changed, plan.unknown, plan.reason) == (True, True, "make install")
    secret = task("command", cmd="login hunter2", context=replace(context, no_log=True)).plan()
    assert secret.reason == ""


@pytest.mark.parametrize(("option", "glob"), [("creates", "there*"), ("removes", "absent*")])
def test_creates_and_removes_decide(task: Make, tmp_path: Path, option: str, glob: str) -> None:
    (tmp_path / "there.txt").touch()
    needless = task("command", cmd="false", chdir=tmp_path, **{option: glob})
    assert needless.plan().changed is False
    assert needless.apply()["changed"] is False
    other = {"creates": "absent*", "removes": "there*"}[option]
    assert task("command", cmd="false", chdir=tmp_path, **{option: other}).plan().unknown


def test_a_failure_carries_the_result(task: Make) -> None:
    with pytest.raises(TaskFailed, match="exit status 3: broken") as failure:
        task("shell", cmd="echo out; echo broken >&2; exit 3").apply()
    assert failure.value.result["rc"] == 3
    assert failure.value.result["stdout"] == "out"


def test_a_missing_program_is_named(task: Make) -> None:
    with pytest.raises(TaskFailed, match="no such program: no-such-program") as failure:
        task("command", cmd="no-such-program --now").apply()
    assert failure.value.result["rc"] == 127


def test_a_missing_directory_is_named(task: Make, tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="missing: No such file or directory"):
        task("command", cmd="true", chdir=tmp_path / "missing").apply()


def test_input_is_given_and_ends(task: Make, tmp_path: Path) -> None:
    text = "x" * 1_000_000
    assert task("command", cmd="wc -c", stdin=text).apply()["stdout"] == "1000001"
    assert task("command", cmd="wc -c", stdin=text, stdin_add_newline=False).apply()["stdout"] == "1000000"
    assert task("command", cmd="true", stdin=text).apply()["rc"] == 0


def test_what_stays_in_the_background_is_not_waited_for(task: Make) -> None:
    begin = time.monotonic()
    assert task("shell", cmd="sleep 20 & echo started").apply()["stdout"] == "started"
    assert time.monotonic() - begin < 15


def test_too_much_output_is_dropped_and_said(task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OUTPUT_LIMIT", 10)
    result = task("command", cmd="printf 123456789012345").apply()
    assert result["stdout"] == "1234567890"
    assert result["warnings"] == ["5 bytes of output were dropped"]


def test_empty_lines_at_the_end_may_be_kept(task: Make) -> None:
    assert task("command", argv=["printf", r"a\n\n"], strip_empty_ends=False).apply()["stdout"] == "a\n\n"
    assert task("command", argv=["printf", r"a\n\n"]).apply()["stdout"] == "a"


@pytest.mark.parametrize("args", [{}, {"cmd": "a", "argv": ["a"]}, {"cmd": "'"}])
def test_a_command_that_cannot_be_meant_is_refused_when_planned(task: Make, args: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        task("command", **args).plan()


def test_who_asked_for_it_has_gone(task: Make, context: Context, tmp_path: Path) -> None:
    """Then it is ended with all its group."""
    started = tmp_path / "started"
    made = task("shell", cmd=f"sleep 1000 & echo $$ $! > {started}.new; mv {started}.new {started}; wait")
    made.context = replace(context, cancelled=started.exists)
    with pytest.raises(TaskFailed, match="was ended: who asked for it has gone"):
        made.apply()
    deadline = time.monotonic() + 60
    while any(lives(pid) for pid in started.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(pid: str) -> bool:
    try:
        return ") Z " not in Path("/proc", pid, "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
