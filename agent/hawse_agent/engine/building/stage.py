"""One stage: its instructions in turn, each from the cache or carried out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hawse_agent.build import configuration, placing
from hawse_agent.build.cache import Step, key
from hawse_agent.build.draft import Draft, now
from hawse_agent.build.instructions import (
    Cmd,
    Copy,
    Instruction,
    Label,
    Place,
    Run,
    Transfer,
    Workdir,
)
from hawse_agent.build.parser import parse_trigger
from hawse_agent.build.scope import Scope
from hawse_agent.build.stages import PlannedStage, instruction_sources
from hawse_agent.engine.building.runs import RunFailed, Runs
from hawse_agent.engine.building.surroundings import Building
from hawse_agent.engine.building.transfers import Transfers
from hawse_agent.errors import HawseError, InputError
from hawse_agent.images.image import Layer
from hawse_agent.linux import tree

_LONGEST_HISTORY = 1 << 22
"""No registry takes a configuration that is much longer."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a stage has come to, and what a stage that begins with it knows."""

    draft: Draft
    scope: Scope


class Counter:
    """Numbers the steps of all stages."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A step, before it is known whether the cache has it."""

    key: str
    created_by: str
    """The history's."""
    description: str
    layer: Callable[[], Layer | None]
    told: bool = True
    """Whether `created_by` says all that goes into it, so that another image's step may stand for it."""


class StageBuilder:
    def __init__(
        self,
        building: Building,
        planned: PlannedStage,
        counter: Counter,
        *,
        draft: Draft,
        scope: Scope,
        other: Callable[[str], Draft],
    ) -> None:
        """`draft` is what it begins with; `other` finds the stage or image that `from` names."""
        self._building = building
        self._planned = planned
        self._counter = counter
        self._draft = draft
        self._scope = scope
        self._other = other
        self._own_command = False

    def build(self, triggers: Sequence[str], labels: Mapping[str, str]) -> Finished:
        """`triggers` are the base image's ONBUILD; `labels` come last, if any."""
        self._pull_triggers(triggers)
        for instruction in self._planned.stage.instructions:
            self._numbered(instruction)
        for name, value in sorted(labels.items()):
            label = Label(
                place=self._planned.stage.place, text=f"LABEL {name}={value}", pairs=((name, value),)
            )
            self._numbered(label, expand=False)
        return Finished(draft=self._draft, scope=self._scope)

    def _pull_triggers(self, triggers: Sequence[str]) -> None:
        if not triggers:
            return
        count = f"{len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}"
        self._building.say(f"# Executing {count}\n")
        place = Place(file=f"ONBUILD of {self._planned.base}", line=1)
        for line, trigger in enumerate(triggers, 1):
            instruction = parse_trigger(trigger, place=Place(file=place.file, line=line))
            with _placed(instruction):
                self._step(self._scope.enter(instruction))

    def _numbered(self, instruction: Instruction, *, expand: bool = True) -> None:
        building = self._building
        building.stopping.check()
        with telling(building, self._planned, self._counter, instruction) as told, _placed(instruction):
            told.cached = self._step(self._scope.enter(instruction) if expand else instruction)

    def _step(self, instruction: Instruction) -> bool:
        """Whether the cache had it."""
        match instruction:
            case Run():
                cached = self._run(instruction)
            case Transfer():
                cached = self._transfer(instruction)
            case Workdir():
                cached = self._workdir(instruction)
            case _:
                cached = self._set(instruction)
        if sum(len(str(entry.get("created_by", ""))) for entry in self._draft.history) > _LONGEST_HISTORY:
            raise InputError(f"the image's history would be longer than {_LONGEST_HISTORY} characters")
        self._building.say(f" ---> {self._draft.id[7:19]}\n")
        return cached

    # -- one kind each --------------------------------------------------------------------------------

    def _set(self, instruction: Instruction) -> bool:
        draft = self._draft
        change = configuration.change(draft.config, instruction, own_command=self._own_command)
        self._own_command |= isinstance(instruction, Cmd)
        config = configuration.changed(draft.config, change.settings)
        made = _Made(
            key=key("set", draft.diff_ids, draft.config, draft.about, change.comment),
            created_by=configuration.no_operation(config, f" {change.comment}"),
            description=change.comment,
            layer=lambda: None,
        )
        step, cached = self._found_or_made(made)
        self._draft = draft.with_step(
            created=step.created, created_by=made.created_by, config=config, author=change.author
        )
        return cached

    def _workdir(self, instruction: Workdir) -> bool:
        draft = self._draft
        path = configuration.working_directory(draft.config, instruction.path)

        def make() -> Layer | None:
            with self._building.looking_into(draft) as root:
                if placing.is_directory(root, path):
                    return None
            home = self._building.directory()
            with self._building.writing(draft, home) as root:
                placing.make_directory(root, path)
            layer = self._building.layer(home / "upper")
            tree.remove(home)
            return layer

        made = _Made(
            key=key("workdir", draft.diff_ids, path),
            created_by=configuration.no_operation(draft.config, f"WORKDIR {path}"),
            description=f"WORKDIR {path}",
            layer=make,
        )
        step, cached = self._found_or_made(made)
        self._draft = draft.with_step(
            created=step.created,
            created_by=made.created_by,
            layer=step.layer,
            config=configuration.changed(draft.config, {"WorkingDir": path}),
        )
        return cached

    def _transfer(self, instruction: Transfer) -> bool:
        draft = self._draft
        other = (
            self._other(instruction.from_) if isinstance(instruction, Copy) and instruction.from_ else None
        )
        transfers = Transfers(self._building, draft, instruction, other)
        quick = transfers.quick_key()
        step = self._find(quick) if quick is not None else None
        cached = step is not None
        if step is None:
            with transfers.opened() as sources:
                made = _Made(
                    key=transfers.key(sources),
                    created_by=configuration.no_operation(draft.config, transfers.comment(sources)),
                    description=instruction.text,
                    layer=lambda: transfers.layer(sources),
                    told=transfers.told,
                )
                step, cached = self._found_or_made(made)
            if quick is not None:
                self._building.cache.put(quick, step, instruction.text)
        self._draft = draft.with_step(created=step.created, created_by=step.created_by, layer=step.layer)
        return cached

    def _run(self, instruction: Run) -> bool:
        draft = self._draft
        runs = Runs(
            self._building,
            draft,
            instruction,
            arguments=self._scope.arguments,
            environment=self._scope.run_environment,
            others={name: self._other(name) for name in instruction_sources(instruction)},
        )
        made = _Made(
            key=runs.key(),
            created_by=runs.created_by,
            description=instruction.text,
            layer=runs.layer,
            told=runs.told,
        )
        step, cached = self._found_or_made(made)
        self._draft = draft.with_step(created=step.created, created_by=made.created_by, layer=step.layer)
        return cached

    # -- the cache ------------------------------------------------------------------------------------

    def _found_or_made(self, made: _Made) -> tuple[Step, bool]:
        step = self._find(made.key)
        if step is not None:
            return step, True
        step = self._taken_over(made.created_by) if made.told else None
        cached = step is not None
        if step is None:
            step = Step(layer=made.layer(), created=now(), created_by=made.created_by)
        self._building.cache.put(made.key, step, made.description)
        return step, cached

    def _taken_over(self, created_by: str) -> Step | None:
        """The same step of an image that is so far made as this one."""
        building, draft = self._building, self._draft
        if building.options.no_cache:
            return None
        steps, layers = len(draft.history), len(draft.layers)
        before = [str(entry.get("created_by", "")) for entry in draft.history]
        for image in building.cache_images:
            history = [entry.created_by for entry in image.history[: steps + 1]]
            if history != [*before, created_by] or image.diff_ids[:layers] != draft.diff_ids:
                continue
            entry = image.history[steps]
            if entry.empty_layer or layers < len(image.layers):
                building.say(" ---> Using cache\n")
                layer = None if entry.empty_layer else image.layers[layers]
                return Step(created=entry.created, layer=layer, created_by=created_by)
        return None

    def _find(self, wanted: str) -> Step | None:
        building = self._building
        if building.options.no_cache:
            return None
        step = building.cache.find(wanted, building.hold)
        if step is not None:
            building.say(" ---> Using cache\n")
        return step


@dataclass(kw_only=True)
class _Told:
    cached: bool = False


@contextmanager
def telling(building: Building, planned: PlannedStage, counter: Counter, instruction: Any) -> Iterator[_Told]:
    """A step's beginning and end: as Docker has it, and as `step` for clients of ours."""
    number, begun = counter.next(), time.monotonic()
    about = {
        "number": number,
        "of": counter.total,
        "stage": planned.name,
        "text": instruction.text,
        "place": str(instruction.place),
    }
    building.say(f"Step {number}/{counter.total} : {instruction.text}\n")
    building.tell({"step": {**about, "state": "started"}})
    told = _Told()
    state = "failed"
    try:
        yield told
        state = "cached" if told.cached else "done"
    finally:
        seconds = round(time.monotonic() - begun, 3)
        building.tell({"step": {**about, "state": state, "seconds": seconds}})


@contextmanager
def _placed(instruction: Instruction) -> Iterator[None]:
    """Errors say where the instruction stands."""
    try:
        yield
    except RunFailed:
        raise
    except HawseError as error:
        raise error.at(str(instruction.place)) from None
