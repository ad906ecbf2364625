"""A program of tasks: later ones see what earlier ones did, and each has a result to register."""

from __future__ import annotations

import base64
import getpass
from pathlib import Path
from typing import Any, cast

import pytest

from hawse_agent.engine.program import Program
from hawse_agent.errors import InputError, PlanChanged
from hawse_agent.paths import paths_for
from hawse_agent.plan.observed import ObservedHost
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.host import HostSpec, Item, StackSpec, TaskSpec


class Host:
    """A host without containers; stands in for what the program observes, keeps and asks."""

    def __init__(self) -> None:
        self.journal: list[dict[str, Any]] = []

    def observe(self) -> ObservedHost:
        return ObservedHost()

    def add_journal(self, run: str, when: float, entry: dict[str, Any]) -> None:
        self.journal.append(entry)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    host = cast(Any, Host())
    return Program(
        paths=paths_for(tmp_path / "agent"),
        state=host,
        observer=host,
        stacks=host,
        images=host,
        volumes=host,
    )


def spec(*tasks: tuple[str, dict[str, Any]]) -> HostSpec:
    items = tuple(
        Item(id=str(number), name=module, task=TaskSpec(module=module, args=args))
        for number, (module, args) in enumerate(tasks)
    )
    return HostSpec(items=items, login_user=getpass.getuser())


def run(program: Program, wanted: HostSpec) -> list[dict[str, Any]]:
    """The results, in order."""
    events = list(program.apply(wanted, program.plan(wanted).digest))
    assert events[-1]["event"] == "end"
    return [event["result"] for event in events if event["event"] == "item"]


def copy(dest: Path, content: str) -> tuple[str, dict[str, Any]]:
    return "copy", {"dest": str(dest), "content_b64": base64.b64encode(content.encode()).decode()}


def test_a_directory_that_is_there_can_be_made_afresh(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    (path / "old").touch()
    gone, made = run(
        program,
        spec(
            ("file", {"path": str(path), "state": "absent"}),
            ("file", {"path": str(path), "state": "directory"}),
        ),
    )
    assert (gone["changed"], made["changed"]) == (True, True)
    assert list(path.iterdir()) == []


def test_a_command_may_undo_what_the_plan_found_done(program: Program, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    results = run(
        program, spec(("command", {"argv": ["rm", str(tmp_path / "f")]}), copy(tmp_path / "f", "x"))
    )
    assert [result["changed"] for result in results] == [True, True]
    assert (tmp_path / "f").read_text() == "x"


def test_a_task_with_nothing_to_do_has_a_result_to_register(program: Program, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0o600)
    skipped, same = run(
        program,
        spec(("command", {"cmd": "false", "creates": str(tmp_path / "f")}), copy(tmp_path / "f", "x")),
    )
    assert (skipped["changed"], skipped["failed"], skipped["rc"]) == (False, False, 0)
    assert (same["changed"], same["mode"], same["dest"]) == (False, "0600", str(tmp_path / "f"))


def test_a_failure_carries_what_the_task_reported_and_stops_the_rest(
    program: Program, tmp_path: Path
) -> None:
    results = run(program, spec(("shell", {"cmd": "echo why >&2; exit 4"}), copy(tmp_path / "f", "x")))
    assert [(result["failed"], result["rc"], result["stderr"]) for result in results] == [(True, 4, "why")]
    assert not (tmp_path / "f").exists()


def test_nothing_is_done_when_the_host_has_changed_since(program: Program, tmp_path: Path) -> None:
    wanted = spec(copy(tmp_path / "f", "x"))
    digest = program.plan(wanted).digest
    (tmp_path / "f").write_text("other")
    with pytest.raises(PlanChanged):
        list(program.apply(wanted, digest))
    assert (tmp_path / "f").read_text() == "other"


def test_a_stack_is_not_planned_that_could_not_start(program: Program) -> None:
    web = ContainerSpec(name="web", image="box", dns=("1.1.1.1\nsearch evil",))
    stack = StackSpec(name="shop", containers=(web,))
    with pytest.raises(InputError, match=r"^stack shop: container web: Dns: .* is not an ip address"):
        program.plan(HostSpec(items=(Item(id="1", name="shop", stack=stack),)))
