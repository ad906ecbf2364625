"""Which hosts a play takes at once, and when it has lost too many of them to go on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hawse.inventory import Host
from hawse.playbook.model import Play
from hawse.playbook.run import Run
from hawse.template import Scope
from hawse.variables import Variable
from hawse_agent.errors import InputError

H = TypeVar("H")


def play_hosts(play: Play, run: Run) -> list[Host]:
    """The hosts of a play that the limit leaves, in the play's order. Raises InputError."""
    pattern = Scope(run.extra).render(play.hosts)
    if not isinstance(pattern, str | list):
        raise InputError("hosts is a pattern or a list of patterns", where=play.hosts.where())
    try:
        return run.inventory.match(pattern, run.limit)
    except InputError as error:
        if error.where:
            raise
        raise InputError(error.message, where=play.hosts.where(), hint=error.hint) from None


def batches(play: Play, run: Run, hosts: Sequence[H]) -> list[list[H]]:
    """The hosts in slices of `serial`; the last step of a list repeats."""
    steps = _steps(play, run, len(hosts))
    rest, slices = list(hosts), []
    while rest:
        size = steps.pop(0) if len(steps) > 1 else steps[0]
        slices.append(rest[:size])
        rest = rest[size:]
    return slices


def over_budget(play: Play, run: Run, *, size: int, lost: int) -> bool:
    """Whether a batch of `size` hosts, `lost` of which failed in any way, ends the play.

    Unreachable, unhealthy and timed-out hosts count like failed ones. A batch lost as a whole always ends it.
    """
    if not lost:
        return False
    if lost >= size or play.any_errors_fatal:
        return True
    if play.max_fail_percentage is None:
        return False
    value = Scope(run.extra).render(play.max_fail_percentage)
    try:
        allowed = float(str(value).removesuffix("%"))
    except ValueError:
        raise InputError(
            f"max_fail_percentage is a number, not {value!r}", where=play.max_fail_percentage.where()
        ) from None
    return lost * 100 > allowed * size


def _steps(play: Play, run: Run, count: int) -> list[int]:
    """Sizes of the batches; every host at once without `serial`."""
    if play.serial is None:
        return [max(count, 1)]
    value = Scope(run.extra).render(play.serial)
    return [_step(step, count, play.serial) for step in (value if isinstance(value, list) else [value])] or [
        max(count, 1)
    ]


def _step(step: object, count: int, serial: Variable) -> int:
    text = str(step)
    number = text.removesuffix("%")
    if isinstance(step, bool) or not number.isdecimal():
        raise InputError(f"serial is a number or a percentage, not {text!r}", where=serial.where())
    size = int(int(number) / 100 * count) or 1 if text.endswith("%") else int(number)
    return size or max(count, 1)  # 0 is all, as in Ansible
