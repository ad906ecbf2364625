"""The plan of a host that has no agent yet, made here: check mode installs nothing. Pure.

A host without an agent has no container, image or volume of ours, so stacks are planned against nothing.
What a task of another kind would find is known only there.
"""

from __future__ import annotations

from collections.abc import Iterable

from hawse_agent.plan.observed import ObservedHost
from hawse_agent.plan.operations import Operation
from hawse_agent.plan.planner import plan_stack
from hawse_agent.spec.host import Item

AGENT = Operation(item="", action="create", kind="agent", name="hawse-agent", reason="none on this host")
_UNKNOWN = "the host has no agent to ask yet"


def plan(items: Iterable[Item]) -> list[Operation]:
    operations: list[Operation] = []
    for item in items:
        if item.stack is not None:
            operations += plan_stack(item.id, item.stack, ObservedHost())
            continue
        assert item.task is not None
        args = item.task.args
        if item.task.module == "image" and args.get("state") != "absent":
            action = "send" if args.get("id") else "pull"
            operations.append(
                Operation(item=item.id, action=action, kind="image", name=str(args["reference"]))  # type: ignore[arg-type]
            )
        elif item.task.module == "volume" and args.get("state") != "absent":
            operations.append(Operation(item=item.id, action="create", kind="volume", name=str(args["name"])))
        elif item.task.module not in ("image", "volume"):
            operations.append(
                Operation(
                    item=item.id,
                    action="run",
                    kind=item.task.module,
                    name=item.name,
                    reason=_UNKNOWN,
                    unknown=True,
                )
            )
    return operations
