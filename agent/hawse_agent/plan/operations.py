"""Operations and plans: what would change on a host, why, and the digest that binds an apply to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hawse_agent.spec.codec import dumps

Action = Literal["create", "update", "recreate", "remove", "start", "repair", "send", "pull", "run"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One field that differs, as a person reads it; secrets appear as `(hidden)`."""

    field: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step of a plan.

    `kind` is the noun (container, network, volume, image, file, package, …), `name` which one.
    `changes` holds the fields that differ for update, recreate and repair. `diff` is a unified diff of
    a text, when there is one. `unknown` marks what cannot be known before it runs.
    """

    item: str
    action: Action
    kind: str
    name: str
    changes: tuple[Change, ...] = ()
    reason: str = ""
    diff: str = ""
    unknown: bool = False

    def describe(self) -> str:
        """One line: `update container web: memory 64 MiB → 128 MiB`."""
        detail = ", ".join(f"{c.field} {c.old} → {c.new}" for c in self.changes) or self.reason
        return f"{self.action} {self.kind} {self.name}" + (f": {detail}" if detail else "")


@dataclass(frozen=True, kw_only=True)
class Plan:
    operations: tuple[Operation, ...]
    digest: str

    @property
    def changed(self) -> bool:
        return bool(self.operations)


def make_plan(operations: Iterable[Operation]) -> Plan:
    ops = tuple(operations)
    digest = hashlib.sha256("\n".join(dumps(op) for op in ops).encode()).hexdigest()
    return Plan(operations=ops, digest=digest)
