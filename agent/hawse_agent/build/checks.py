"""Warnings: what is allowed, but hardly meant.

They have the names of Docker's own build checks, so that `# check=skip=NAME` means the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hawse_agent.build.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Place,
    Stage,
    Workdir,
)
from hawse_agent.build.words import first_word, split_flags, split_words


@dataclass(frozen=True, kw_only=True)
class Warning:
    place: Place
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text} ({self.name})"


def warnings_of(stage: Stage, escape: str) -> Iterator[Warning]:
    yield from _of_from(stage)
    moved = False
    for one in stage.instructions:
        yield from (Warning(place=one.place, name=name, text=text) for name, text in _of(one, escape, moved))
        moved = moved or isinstance(one, Workdir)
    yield from _repetitions(stage.instructions)


def _of_from(stage: Stage) -> Iterator[Warning]:
    words = split_flags(stage.text.split(None, 1)[1])[1].split()
    if len(words) != 3:
        return
    keyword, as_, name = stage.text.split(None, 1)[0], words[1], words[2]
    if name != stage.name:
        text = f"stage name {name!r} counts as {stage.name!r}"
        yield Warning(place=stage.place, name="StageNameCasing", text=text)
    if as_.isupper() != keyword.isupper():
        yield Warning(place=stage.place, name="FromAsCasing", text=f"{keyword} and {as_} differ in case")
    if stage.name in ("scratch", "context"):
        text = f"stage name {stage.name!r} means something else"
        yield Warning(place=stage.place, name="ReservedStageName", text=text)


def _of(instruction: Instruction, escape: str, moved: bool) -> Iterator[tuple[str, str]]:
    word, rest = first_word(instruction.text)
    match instruction:
        case Maintainer():
            yield "MaintainerDeprecated", "MAINTAINER is old: LABEL has a better place for it"
        case Cmd(command=command) | Entrypoint(command=command) if command.shell:
            if command.words[0].startswith("["):
                text = f"{word} is no JSON array (strings take double quotes): a shell gets it as it is"
            else:
                text = f"{word} in shell form: signals reach the shell, not what it runs"
            yield "JSONArgsRecommended", text
        case Env(pairs=pairs) | Label(pairs=pairs):
            if "=" not in split_words(rest, escape)[0]:
                yield "LegacyKeyValueFormat", f"{word} KEY VALUE is old: write {word} KEY=VALUE"
            if isinstance(instruction, Env):
                yield from _secrets(word, [key for key, _ in pairs])
        case Arg(pairs=optional):
            yield from _secrets(word, [key for key, _ in optional])
        case Expose(ports=ports):
            for port in ports:
                if ":" in port and "$" not in port:
                    yield "ExposeInvalidFormat", f"EXPOSE {port}: only the container's port counts"
        case Workdir(path=path) if not moved and not path.startswith(("/", "$", '"', "'")):
            yield "WorkdirRelativePath", f"WORKDIR {path} is relative to the base image's"
        case _:
            pass


_SECRET = re.compile(
    r"(?:^|_)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)"
)
_PUBLIC = re.compile(r"(?:^|_)public(?:_|$)")


def _secrets(word: str, keys: list[str]) -> Iterator[tuple[str, str]]:
    for key in keys:
        if _SECRET.search(key.lower()) and not _PUBLIC.search(key.lower()):
            text = f"{word} {key}: the image's history shows it; RUN --mount=type=secret does not"
            yield "SecretsUsedInArgOrEnv", text


def _repetitions(instructions: tuple[Instruction, ...]) -> Iterator[Warning]:
    for kind in (Cmd, Entrypoint, Healthcheck):
        for one in [one for one in instructions if isinstance(one, kind)][:-1]:
            text = f"only the stage's last {kind.__name__.upper()} counts"
            yield Warning(place=one.place, name="MultipleInstructionsDisallowed", text=text)
