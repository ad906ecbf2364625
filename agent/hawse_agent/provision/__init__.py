"""Modules that bring a host into the state that a playbook asks for, one file per module.

item.py       what a module is given and gives back
users.py      acting as a user            process.py   running a program as one
attributes.py owner, group, mode          modes.py     permissions as people write them
command file copy package wait_for        the modules
facts.py      what a host is
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hawse_agent.errors import HawseError, OutOfSpace, TaskFailed
from hawse_agent.provision import command, copy, file, package, wait_for
from hawse_agent.provision.item import Context, ItemPlan, Module, Tell
from hawse_agent.spec import codec
from hawse_agent.spec.task import ARGUMENTS

__all__ = ["MODULES", "Context", "ItemPlan", "Module", "Tell"]


@dataclass(frozen=True, kw_only=True)
class _Typed:
    """Reads the arguments, and turns what the host refuses into what a caller understands."""

    name: str
    planner: Callable[[Any, Context], ItemPlan]
    applier: Callable[[Any, Context, Tell], dict[str, Any]]

    def plan(self, args: Mapping[str, Any], context: Context) -> ItemPlan:
        """A host that cannot be looked at yet may be able to once earlier tasks have run, so that is no
        failure: whether the task works is then known when it runs."""
        given = self._read(args)
        try:
            return self.planner(given, context)
        except OSError as error:
            return ItemPlan(changed=True, unknown=True, reason=_describe(error))
        except TaskFailed as error:
            return ItemPlan(changed=True, unknown=True, reason=error.message)

    def apply(self, args: Mapping[str, Any], context: Context, tell: Tell) -> dict[str, Any]:
        given = self._read(args)
        try:
            return self.applier(given, context, tell)
        except OSError as error:
            raise _refused(error, context) from error

    def _read(self, args: Mapping[str, Any]) -> Any:
        return codec.from_json(ARGUMENTS[self.name], dict(args))


def _refused(error: OSError, context: Context) -> HawseError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(_describe(error))
    hint = ""
    if error.errno == errno.EBUSY:
        hint = "something is mounted there"
    elif error.errno in (errno.EACCES, errno.EPERM) and context.user != "root":
        hint = "does the task need `become: true`?"
    return TaskFailed(_describe(error), result={"changed": False}, hint=hint)


def _describe(error: OSError) -> str:
    text = error.strerror or str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' → '.join(names)}: {text}" if names else text


MODULES: Mapping[str, Module] = {
    name: _Typed(name=name, planner=planner, applier=applier)
    for name, planner, applier in (
        ("command", command.plan, command.apply),
        ("shell", command.plan, command.apply),
        ("file", file.plan, file.apply),
        ("copy", copy.plan, copy.apply),
        ("template", copy.plan, copy.apply),
        ("package", package.plan, package.apply),
        ("apt", package.plan, package.apply),
        ("wait_for", wait_for.plan, wait_for.apply),
    )
}
