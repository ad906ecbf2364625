"""What COPY, ADD and bind mounts take from the context is looked for before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from hawse_agent.build.expansion import names
from hawse_agent.build.globs import clamped, has_wildcards, match
from hawse_agent.build.grammar import is_url
from hawse_agent.build.instructions import Copy, Instruction, Place, Run, Transfer
from hawse_agent.build.problems import Problems
from hawse_agent.build.scope import Scope
from hawse_agent.build.stages import SCRATCH, Plan
from hawse_agent.errors import InputError


def check_sources(
    plan: Plan,
    paths: Collection[str],
    environments: Mapping[str, Mapping[str, str]] | None = None,
    *,
    exists: Callable[[str], bool] = lambda path: False,
) -> None:
    """`paths` is all that the context has, relative, after .dockerignore; `exists` is asked about the rest,
    which may be there by a link.

    `environments` are those of base images that are known already; below others only sources without
    variables can be judged. Raises InputError with every source that is missing, and whatever else
    expansion shows.
    """
    known = {SCRATCH: dict[str, str](), **(environments or {})}
    there = set(paths)
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in there:
            there.add(path)
    there.add(".")
    problems = Problems()
    ends: dict[int, Scope | None] = {}
    for planned in plan.stages:
        scope: Scope | None = None
        if isinstance(planned.base, int):
            before = ends[planned.base]
            scope = before.child() if before is not None else None
        elif planned.base in known:
            scope = plan.scope(known[planned.base])
        for instruction in planned.stage.instructions:
            try:
                entered = scope.enter(instruction) if scope is not None else instruction
            except InputError as error:
                problems.add(instruction.place, error)
                continue
            for place, source in _wanted(entered):
                unknown = scope is None and names(source, plan.escape)
                if unknown or _is_there(source, there, place, problems) or exists(clamped(source)):
                    continue
                word = entered.text.split(None, 1)[0].upper()
                problems.add(
                    place,
                    InputError(f"{word}: {source} is not in the context, or .dockerignore leaves it out"),
                )
        ends[planned.index] = scope
    problems.raise_any()


def _wanted(instruction: Instruction) -> Iterator[tuple[Place, str]]:
    if isinstance(instruction, Transfer) and not (isinstance(instruction, Copy) and instruction.from_):
        yield from ((instruction.place, source) for source in instruction.sources if not is_url(source))
    elif isinstance(instruction, Run):
        for mount in instruction.mounts:
            if mount.kind == "bind" and not mount.from_ and mount.source:
                yield instruction.place, mount.source


def _is_there(source: str, there: set[str], place: Place, problems: Problems) -> bool:
    path = clamped(source)
    if path in there:
        return True
    if not has_wildcards(path):
        return False
    try:
        return any(match(path, one) for one in there)
    except InputError as error:
        problems.add(place, error)
        return True
