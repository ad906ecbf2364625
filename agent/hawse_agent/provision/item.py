"""What every module is given and gives back.

A module compares what is wanted with what is there and returns the steps that are missing. `plan` shows those
steps, `apply` runs them: both come from one function, so a plan cannot promise what an apply would not do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hawse_agent.plan.operations import Change

Tell = Callable[[str], None]
"""Takes a line about progress."""

HIDDEN = "(hidden)"


@dataclass(frozen=True, kw_only=True)
class Context:
    """For whom a task runs."""

    login_user: str
    become_user: str = ""
    """"" is the login user."""
    environment: Mapping[str, str] = field(default_factory=dict)
    blobs: Path
    """Directory of the contents that came as `content_blob`, each under its hex digest."""
    no_log: bool = False
    cancelled: Callable[[], bool] = lambda: False
    """Whether who asked for it has gone: a command need not come to its end."""

    @property
    def user(self) -> str:
        return self.become_user or self.login_user


@dataclass(frozen=True, kw_only=True)
class ItemPlan:
    """What a task would do. `unknown`: whether it will change anything shows only when it runs."""

    changed: bool
    changes: tuple[Change, ...] = ()
    diff: str = ""
    unknown: bool = False
    reason: str = ""


class Module(Protocol):
    """One module; `args` are the JSON form of its dataclass in `spec.task`."""

    def plan(self, args: Mapping[str, Any], context: Context) -> ItemPlan:
        """Change nothing. Raises InputError for arguments that can never work."""

    def apply(self, args: Mapping[str, Any], context: Context, tell: Tell) -> dict[str, Any]:
        """Do it and return the result as Ansible shapes it. Raises TaskFailed, OutOfSpace, InputError."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that differs, and what puts it right."""

    change: Change
    fix: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """The steps that are missing, and how the result describes the object once they are done."""

    steps: tuple[Step, ...]
    describe: Callable[[], dict[str, Any]]
    diff: str = ""


def plan_of(work: Work, context: Context) -> ItemPlan:
    return ItemPlan(
        changed=bool(work.steps),
        changes=tuple(step.change for step in work.steps),
        diff="" if context.no_log else work.diff,
    )


def carry_out(work: Work, context: Context) -> dict[str, Any]:
    """Take the steps in order; the result says what is there afterwards."""
    for step in work.steps:
        step.fix()
    result = {"changed": bool(work.steps), **work.describe()}
    if work.steps and not context.no_log:
        result["diff"] = {
            "before": {step.change.field: step.change.old for step in work.steps},
            "after": {step.change.field: step.change.new for step in work.steps},
            **({"prepared": work.diff} if work.diff else {}),
        }
    return result
