"""What a host's program asks of whoever runs it, and what it tells on the way.

`Apply`, `GatherFacts`, `Backup` and `Restore` want an answer by `Program.feed`; an `Outcome` does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hawse.stack.build import Build
from hawse.template import NotYet
from hawse_agent.plan.operations import Operation
from hawse_agent.spec.host import Item


@dataclass(frozen=True, kw_only=True)
class Apply:
    """Items for one `HostSpec`. Fed with item id → result; an item that did not run has none."""

    items: tuple[Item, ...]
    blobs: Mapping[str, Path] = field(default_factory=dict)
    """Digest → file, for contents that are too long to stand in the items."""
    builds: Mapping[str, tuple[Build, ...]] = field(default_factory=dict)
    """Images that are built before, by the item whose stack needs them."""


@dataclass(frozen=True, kw_only=True)
class GatherFacts:
    """Fed with the facts of `host`, which may be another one; with nothing when it cannot be asked."""

    host: str


@dataclass(frozen=True, kw_only=True)
class Backup:
    """Fed with id → result. In check mode nothing is moved, and the result is `planned_result(...)`."""

    id: str
    name: str
    volume: str
    dest: Path
    compression: Literal["zstd", "gzip", "none"]
    ignore_errors: bool = False


@dataclass(frozen=True, kw_only=True)
class Restore:
    id: str
    name: str
    volume: str
    src: Path
    ignore_errors: bool = False


Status = Literal["ok", "failed", "ignored", "skipped", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a task, or one round of its loop, ended: final, after changed_when and failed_when.

    `unknown` in check mode: whether and how it would run depends on a result that is not there yet.
    """

    item: str
    name: str
    status: Status
    changed: bool = False
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    """Empty when the task says no_log."""
    local: bool = False
    """Answered by the controller alone."""


Request = Apply | GatherFacts | Backup | Restore
Step = Request | Outcome


class UnknownResult(NotYet):
    """In check mode: a template uses what only a real run can tell."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class PlannedResult(Mapping[str, Any]):
    """The result of a task that would change something: all that is known is that it would."""

    def __init__(self, **known: Any) -> None:
        self._known = known

    def __getitem__(self, key: str) -> Any:
        if key in self._known:
            return self._known[key]
        raise UnknownResult(key)

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def planned_result(*, changed: bool, unknown: bool = False) -> Mapping[str, Any]:
    """`unknown`: not even whether it will succeed can be known before it runs, as of a command."""
    if not changed:
        return {"changed": False, "failed": False}
    known = {"changed": True, "skipped": False}
    return PlannedResult(**known) if unknown else PlannedResult(**known, failed=False)


def planned_results(items: Iterable[Item], operations: Iterable[Operation]) -> dict[str, Mapping[str, Any]]:
    """What to feed an `Apply` with in check mode, by the operations of its plan."""
    unknown: dict[str, bool] = {}
    for operation in operations:
        unknown[operation.item] = unknown.get(operation.item, False) or operation.unknown
    return {
        item.id: planned_result(changed=item.id in unknown, unknown=unknown.get(item.id, False))
        for item in items
    }
