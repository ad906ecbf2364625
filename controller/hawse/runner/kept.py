"""Plans in files: what `hawse plan -o FILE` keeps and `hawse play --plan FILE` applies, exactly.

The file holds the whole specs, secrets included, and is readable by its owner alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hawse.runner.fleet import Finished
from hawse.runner.session import Planned
from hawse_agent.errors import HawseError, InputError
from hawse_agent.plan.operations import Operation
from hawse_agent.spec import codec

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Kept:
    command: str
    made: float
    hosts: Mapping[str, tuple[Planned, ...]]
    operations: Mapping[str, tuple[Operation, ...]]


def write(path: Path, finished: Finished) -> None:
    """Raises InputError when not everything could be planned: a kept plan must be the whole one."""
    for host, plan in finished.plans.items():
        if isinstance(plan, HawseError):
            raise InputError(f"{host} has no plan, so none is kept: {plan.message}", hint=plan.hint)
    for host, names in finished.unplanned.items():
        if names:
            raise InputError(
                f"{host}: {names[0]!r} can be planned only once what precedes it has run, so no plan is kept",
                hint="play it without a plan file, or split the playbook",
            )
    for host, planned in finished.planned.items():
        if len(planned) > 1:
            raise InputError(
                f"{host}: the play asks the host more than once, and later requests depend on earlier ones",
                hint="play it without a plan file, or split the playbook",
            )
    document = {
        "format": FORMAT,
        "command": finished.report.command,
        "made": time.time(),
        "hosts": {
            host: {
                "requests": [codec.to_json(request) for request in planned],
                "operations": codec.to_json(_operations(finished, host)),
            }
            for host, planned in finished.planned.items()
        },
    }
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, 0o600)
        json.dump(document, file)


def read(path: Path) -> Kept:
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise InputError(f"a plan of format {document['format']}, not {FORMAT}", where=str(path))
        return Kept(
            command=str(document["command"]),
            made=float(document["made"]),
            hosts={
                host: tuple(codec.from_json(Planned, request) for request in entry["requests"])
                for host, entry in document["hosts"].items()
            },
            operations={
                host: codec.from_json(tuple[Operation, ...], entry["operations"])
                for host, entry in document["hosts"].items()
            },
        )
    except OSError as error:
        raise InputError(f"cannot read the plan: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("not a plan that hawse has kept", where=str(path)) from error


def _operations(finished: Finished, host: str) -> tuple[Operation, ...]:
    plan = finished.plans[host]
    return () if isinstance(plan, HawseError) else plan.operations
