"""Which stages are built, in which order, and from what: pure.

    FROM golang AS build      ◄──┐ needs: COPY --from=build
    FROM alpine AS test          │ not needed for the target: skipped
    FROM scratch              ───┘ the last is the target, unless --target says another

A name is a stage's if the file has one (FROM: one before it), and else an image's.
"""

from __future__ import annotations

import platform as machine
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hawse_agent.build.expansion import expand
from hawse_agent.build.instructions import Arg, Copy, Dockerfile, Instruction, Onbuild, Place, Run, Stage
from hawse_agent.build.problems import Problems
from hawse_agent.build.scope import PREDEFINED, Scope, check_size
from hawse_agent.distribution.reference import parse as parse_reference
from hawse_agent.errors import InputError

SCRATCH = "scratch"


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    index: int
    """In the file, from 0."""
    stage: Stage
    base: int | str
    """A stage's index, or an image as written; `scratch` is neither."""
    platform: str
    """Of `--platform`, variables replaced: `linux/arm64`; empty is the build's."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Index of each stage that a `COPY --from` or `--mount from=` means, by what is written; the rest are
    images."""
    needs: frozenset[int] = frozenset()
    """Stages that must be there before this one is done."""

    @property
    def name(self) -> str:
        return self.stage.name or str(self.index)


@dataclass(frozen=True, kw_only=True)
class Plan:
    stages: tuple[PlannedStage, ...]
    """Those that are needed, each after all that it needs; the last is the target."""
    outer: Mapping[str, str]
    """For `Scope`: global arguments and the platforms'."""
    given: Mapping[str, str]
    escape: str

    @property
    def target(self) -> PlannedStage:
        return self.stages[-1]

    def stage(self, index: int) -> PlannedStage:
        return next(one for one in self.stages if one.index == index)

    def scope(self, environment: Mapping[str, str]) -> Scope:
        """Of a stage that begins with an image of this environment; of one that begins with another stage it
        is `child()` of that one's."""
        return Scope(given=self.given, outer=self.outer, environment=environment, escape=self.escape)

    def unused(self, dockerfile: Dockerfile) -> list[str]:
        """Names of `--build-arg` that no ARG asks for, sorted."""
        asked = {key for one in dockerfile.arguments for key, _ in one.pairs}
        for stage in dockerfile.stages:
            asked |= {key for one in stage.instructions if isinstance(one, Arg) for key, _ in one.pairs}
        return sorted(set(self.given) - asked - PREDEFINED)


def plan(
    dockerfile: Dockerfile,
    *,
    target: str = "",
    given: Mapping[str, str] | None = None,
    platform: str = "",
    build_platform: str = "",
) -> Plan:
    """`given` are the `--build-arg`; platforms are `os/arch[/variant]`, empty is this machine's.

    Raises InputError with all that is wrong between the stages.
    """
    problems = Problems()
    build_platform = normal_platform(build_platform or f"linux/{machine.machine()}")
    platform = normal_platform(platform) if platform else build_platform
    outer = _automatic(platform, build_platform, target or "default")
    outer.update(_global_arguments(dockerfile, given or {}, outer, problems))
    stages = [_planned(dockerfile, index, outer, problems) for index in range(len(dockerfile.stages))]
    problems.raise_any()
    last = _target(dockerfile, target)
    order = _order(stages, last)
    return Plan(
        stages=tuple(stages[index] for index in order),
        outer=outer,
        given=dict(given or {}),
        escape=dockerfile.escape,
    )


_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armhf": "arm/v7",
    "armv7l": "arm/v7",
    "arm": "arm/v7",
    "armel": "arm/v6",
}


def normal_platform(text: str) -> str:
    """`linux/aarch64` → `linux/arm64`. Raises InputError."""
    parts = text.lower().split("/")
    if parts == ["linux"]:
        parts = ["linux", machine.machine()]
    elif len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(re.fullmatch(r"[a-z0-9_.-]+", part) for part in parts):
        raise InputError(f"invalid platform {text!r}: expected OS/ARCHITECTURE[/VARIANT]")
    if len(parts) == 2:
        parts[1:] = _ARCHITECTURES.get(parts[1], parts[1]).split("/")
    elif parts[1:] in (["arm64", "v8"], ["aarch64", "v8"]):
        parts[1:] = ["arm64"]
    return "/".join(parts)


def _automatic(platform: str, build_platform: str, target: str) -> dict[str, str]:
    found = {"TARGETSTAGE": target}
    for prefix, whole in (("TARGET", platform), ("BUILD", build_platform)):
        system, architecture, *variant = whole.split("/")
        found[f"{prefix}PLATFORM"] = whole
        found[f"{prefix}OS"] = system
        found[f"{prefix}ARCH"] = architecture
        found[f"{prefix}VARIANT"] = variant[0] if variant else ""
    return found


def _global_arguments(
    dockerfile: Dockerfile, given: Mapping[str, str], automatic: Mapping[str, str], problems: Problems
) -> dict[str, str]:
    # What the platform says can be overridden as any other argument, whether it is declared or not.
    found = {name: given[name] for name in automatic if name in given}
    for argument in dockerfile.arguments:
        for name, default in argument.pairs:
            try:
                if name in given:
                    found[name] = given[name]
                elif default is not None:
                    found[name] = expand(default, {**automatic, **found}, dockerfile.escape)
                    check_size(found)
            except InputError as error:
                problems.add(argument.place, error)
    return found


def _planned(
    dockerfile: Dockerfile, index: int, outer: Mapping[str, str], problems: Problems
) -> PlannedStage:
    stage = dockerfile.stages[index]
    base: int | str = SCRATCH
    platform = ""
    try:
        base = _base(dockerfile, index, expand(stage.base, outer, dockerfile.escape))
        if stage.platform:
            written = expand(stage.platform, outer, dockerfile.escape)
            if not written:
                raise InputError(f"FROM --platform={stage.platform}: the value is empty")
            platform = normal_platform(written)
    except InputError as error:
        problems.add(stage.place, error)
    sources: dict[str, int] = {}
    for place, name in _froms(stage):
        try:
            found = _source(dockerfile, name)
        except InputError as error:
            problems.add(place, error)
        else:
            if found is not None:
                sources[name] = found
    needs = frozenset(sources.values()) | ({base} if isinstance(base, int) else set())
    return PlannedStage(
        index=index, stage=stage, base=base, platform=platform, sources=sources, needs=frozenset(needs)
    )


def _base(dockerfile: Dockerfile, index: int, name: str) -> int | str:
    if not name:
        raise InputError(
            f"FROM {dockerfile.stages[index].base}: no image is left of it",
            hint="only an ARG before the first FROM, with a value, counts in a FROM line",
        )
    for other in range(index):
        if dockerfile.stages[other].name == name.lower():
            return other
    if name != SCRATCH:
        parse_reference(name)
    return name


def _froms(stage: Stage) -> Iterator[tuple[Place, str]]:
    for instruction in stage.instructions:
        if isinstance(instruction, Onbuild):
            continue  # names what the stages of somebody else's file are
        yield from ((instruction.place, name) for name in instruction_sources(instruction))


def instruction_sources(instruction: Instruction) -> list[str]:
    """Stages and images that it takes files from, as written."""
    if isinstance(instruction, Copy) and instruction.from_:
        return [instruction.from_]
    if isinstance(instruction, Run):
        return [mount.from_ for mount in instruction.mounts if mount.from_]
    return []


def _source(dockerfile: Dockerfile, name: str) -> int | None:
    if name.isdecimal():
        if int(name) >= len(dockerfile.stages):
            raise InputError(f"there is no stage {name}: the file has {len(dockerfile.stages)}, from 0")
        return int(name)
    for index, stage in enumerate(dockerfile.stages):
        if stage.name == name.lower():
            return index
    if name != SCRATCH:
        parse_reference(name)
    return None


def _target(dockerfile: Dockerfile, target: str) -> int:
    if not target:
        return len(dockerfile.stages) - 1
    for index, stage in enumerate(dockerfile.stages):
        if stage.name == target.lower():
            return index
    if target.isdecimal() and int(target) < len(dockerfile.stages):
        return int(target)
    known = ", ".join(stage.name or str(index) for index, stage in enumerate(dockerfile.stages))
    raise InputError(f"target stage {target!r} could not be found", hint=f"the file has {known}")


def _order(stages: list[PlannedStage], target: int) -> list[int]:
    """Each after what it needs. Raises InputError for a cycle, needed or not."""
    done: set[int] = set()
    for index in range(len(stages)):
        _above(stages, index, done)
    return _above(stages, target, set())


def _above(stages: list[PlannedStage], target: int, done: set[int]) -> list[int]:
    """`target` and all that it needs, depth first."""
    order: list[int] = []
    path = [target]
    while path:
        index = path[-1]
        missing = sorted(stages[index].needs - done)
        if not missing:
            order.append(path.pop())
            done.add(index)
            continue
        if missing[0] in path:
            circle = [*path[path.index(missing[0]) :], missing[0]]
            raise InputError(
                f"stages need each other: {' → '.join(stages[one].name for one in circle)}",
                where=str(stages[missing[0]].stage.place),
            )
        path.append(missing[0])
    return order
