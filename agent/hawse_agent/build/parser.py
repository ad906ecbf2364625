"""Dockerfile text → `instructions.Dockerfile`; every error of the file at once, each with its line.

    text ── lines.py ──► one line an instruction ── grammar.py ──► typed instructions ── here ──► stages

Nothing is built, fetched or looked for. Which stage needs which, and what is wrong between them, is
`stages.py`'s.
"""

from __future__ import annotations

from dataclasses import replace

from hawse_agent.build.checks import Warning, warnings_of
from hawse_agent.build.grammar import instruction, stage
from hawse_agent.build.instructions import Arg, Dockerfile, Instruction, Place, Stage
from hawse_agent.build.lines import Directives, Line, decode, directives, logical_lines
from hawse_agent.build.problems import Problems
from hawse_agent.build.words import first_word, json_array, split_flags
from hawse_agent.errors import InputError


def parse(source: bytes | str, *, file: str = "Dockerfile") -> Dockerfile:
    """Raises InputError with all that is wrong in the file; NotSupported if all of it is what is refused by
    name."""
    problems = Problems()
    try:
        text = decode(source)
    except InputError as error:
        raise error.at(file) from error
    try:
        said = directives(text)
    except InputError as error:
        error.message = f"{file}:{error.message}"
        raise
    parser = _Parser(file, said, problems)
    for line in logical_lines(text, said.escape, takes_heredocs):
        if isinstance(line, Line):
            parser.take(line)
        else:
            problems.add(Place(file=file, line=line[0]), line[1])
    return parser.finish()


def parse_trigger(trigger: str, *, place: Place) -> Instruction:
    """What an ONBUILD of a base image says; `place` is that of the FROM. Raises InputError."""
    lines = list(logical_lines(trigger, "\\", takes_heredocs))
    if len(lines) != 1 or not isinstance(lines[0], Line):
        raise InputError(f"ONBUILD of the base image is no instruction: {trigger!r}").at(str(place))
    try:
        return instruction(lines[0], place, "\\")
    except InputError as error:
        raise error.at(f"{place}: ONBUILD of the base image") from error


def takes_heredocs(line: str) -> bool:
    """Whether `<<NAME` in this line is one: of RUN, COPY and ADD, as triggers too, unless they are JSON."""
    name, rest = first_word(line)
    if name == "ONBUILD":
        name, rest = first_word(rest)
    if name not in ("RUN", "COPY", "ADD"):
        return False
    try:
        return json_array(split_flags(rest)[1]) is None
    except InputError:
        return False


class _Parser:
    def __init__(self, file: str, said: Directives, problems: Problems) -> None:
        self._file = file
        self._said = said
        self._problems = problems
        self._arguments: list[Arg] = []
        self._stages: list[tuple[Stage, list[Instruction]]] = []
        self._gaps: list[Warning] = []
        self._no_from = False
        self._last = 0

    def take(self, line: Line) -> None:
        place = Place(file=self._file, line=line.number)
        self._last = line.number
        try:
            self._put(line, place)
        except InputError as error:
            self._problems.add(place, error)
        if line.gap:
            text = "an empty line stands within the instruction"
            self._gaps.append(Warning(place=place, name="NoEmptyContinuation", text=text))

    def _put(self, line: Line, place: Place) -> None:
        name, _ = first_word(line.text)
        if name == "FROM":
            # What follows a bad FROM is not without one: its own errors are told.
            self._stages.append((Stage(place=place, text=line.text, base=""), []))
            self._stages[-1] = (self._new(stage(line, place)), [])
            return
        found = instruction(line, place, self._said.escape)
        if self._stages:
            self._stages[-1][1].append(found)
        elif isinstance(found, Arg):
            self._arguments.append(found)
        elif not self._no_from:
            self._no_from = True  # said once
            raise InputError(f"{name} stands before the first FROM, where only ARG may")

    def _new(self, begun: Stage) -> Stage:
        for other, _ in self._stages[:-1]:
            if begun.name and other.name == begun.name:
                raise InputError(f"stage name {begun.name!r} is taken by line {other.place.line}")
        return begun

    def finish(self) -> Dockerfile:
        if not self._stages and not self._no_from:
            what = "has no FROM" if self._last else "has no instructions"
            self._problems.add(Place(file=self._file, line=self._last or 1), InputError(f"the file {what}"))
        stages = tuple(replace(begun, instructions=tuple(found)) for begun, found in self._stages)
        warnings = self._warnings(stages) if not self._problems else []
        self._problems.raise_any()
        return Dockerfile(
            stages=stages,
            arguments=tuple(self._arguments),
            escape=self._said.escape,
            warnings=tuple(str(one) for one in warnings),
        )

    def _warnings(self, stages: tuple[Stage, ...]) -> list[Warning]:
        """In the file's order; those that `# check=` makes errors are none any more."""
        found = [*self._gaps, *(one for begun in stages for one in warnings_of(begun, self._said.escape))]
        left = [one for one in found if not {"all", one.name} & self._said.skipped]
        left.sort(key=lambda one: one.place.line)
        if not self._said.strict:
            return left
        for one in left:
            self._problems.add(one.place, InputError(f"{one.text} ({one.name}, and check=error=true)"))
        return []
