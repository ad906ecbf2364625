"""What instructions that make no layer do to an image's settings, and what the history says of them. Pure.

Instructions come with their variables replaced. The history's words are those of Docker's builder, since
people and tools read them: `/bin/sh -c #(nop)  ENV A=1`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hawse_agent.build import instructions as said
from hawse_agent.build import values
from hawse_agent.build.instructions import Command, Instruction
from hawse_agent.errors import InternalError

DEFAULT_SHELL = ("/bin/sh", "-c")
_MAKE_LAYERS = (said.Run, said.Transfer, said.Workdir)

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Change:
    """`settings` replace those of the same name; `comment` is what the history says after `#(nop) `."""

    comment: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    author: str | None = None


def makes_no_layer(instruction: Instruction) -> bool:
    return not isinstance(instruction, _MAKE_LAYERS)


def change(config: Config, instruction: Instruction, *, own_command: bool) -> Change:
    """`own_command`: CMD stood in this stage already, so that ENTRYPOINT leaves it."""
    match instruction:
        case said.Cmd():
            words = words_of(config, instruction.command)
            return Change(comment=f"CMD {_quoted(words)}", settings={"Cmd": words})
        case said.Entrypoint():
            words = words_of(config, instruction.command)
            dropped = {} if own_command else {"Cmd": None}
            return Change(comment=f"ENTRYPOINT {_quoted(words)}", settings={"Entrypoint": words, **dropped})
        case said.Env():
            pairs = dict(instruction.pairs)
            env = [_overridden(entry, pairs) for entry in config.get("Env") or ()]
            known = {entry.partition("=")[0] for entry in env}
            env += [f"{key}={value}" for key, value in pairs.items() if key not in known]
            return Change(comment=f"ENV {_joined(instruction.pairs)}", settings={"Env": env})
        case said.Label():
            labels = {**(config.get("Labels") or {}), **dict(instruction.pairs)}
            return Change(comment=f"LABEL {_joined(instruction.pairs)}", settings={"Labels": labels})
        case said.Maintainer():
            return Change(comment=f"MAINTAINER {instruction.name}", author=instruction.name)
        case said.Expose():
            ports = instruction.ports
            exposed = {port: dict[str, str]() for word in ports for port in values.exposed_ports(word)}
            every = {**(config.get("ExposedPorts") or {}), **exposed}
            return Change(comment=f"EXPOSE {' '.join(ports)}", settings={"ExposedPorts": every})
        case said.Volume():
            fresh = {path: dict[str, str]() for path in instruction.paths}
            every = {**(config.get("Volumes") or {}), **fresh}
            return Change(comment=f"VOLUME [{' '.join(instruction.paths)}]", settings={"Volumes": every})
        case said.User():
            return Change(comment=f"USER {instruction.user}", settings={"User": instruction.user})
        case said.Arg():
            shown = (key if value is None else f"{key}={value}" for key, value in instruction.pairs)
            return Change(comment=f"ARG {' '.join(shown)}")
        case said.Onbuild():
            triggers = [*(config.get("OnBuild") or ()), instruction.trigger]
            return Change(comment=f"ONBUILD {instruction.trigger}", settings={"OnBuild": triggers})
        case said.Stopsignal():
            return Change(
                comment=f"STOPSIGNAL {instruction.signal}", settings={"StopSignal": instruction.signal}
            )
        case said.Healthcheck():
            check = _health_check(config, instruction)
            return Change(
                comment=f"HEALTHCHECK {_shown_health_check(check)}", settings={"Healthcheck": check}
            )
        case said.Shell():
            words = list(instruction.words)
            return Change(comment=f"SHELL [{' '.join(words)}]", settings={"Shell": words})
        case _:
            raise InternalError(f"{instruction.place}: no setting: {instruction.text}")


def changed(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """None takes a setting away."""
    return {key: value for key, value in {**config, **settings}.items() if value is not None}


def working_directory(config: Config, path: str) -> str:
    """Absolute and clean, where `WORKDIR path` leads."""
    joined = posixpath.join("/", config.get("WorkingDir") or "/", path)
    return "/" + posixpath.normpath(joined).lstrip("/")


def shell(config: Config) -> tuple[str, ...]:
    return tuple(config.get("Shell") or DEFAULT_SHELL)


def words_of(config: Config, command: Command) -> list[str]:
    """The argument vector of CMD, ENTRYPOINT, RUN."""
    return [*shell(config), *command.words] if command.shell else list(command.words)


def no_operation(config: Config, comment: str) -> str:
    """`created_by` of a step that ran nothing."""
    return " ".join((*shell(config), f"#(nop) {comment}"))


def _overridden(entry: str, pairs: Mapping[str, str]) -> str:
    key = entry.partition("=")[0]
    return f"{key}={pairs[key]}" if key in pairs else entry


def _joined(pairs: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{key}={value}" for key, value in pairs)


def _quoted(words: Sequence[str]) -> str:
    """As Go prints a list with %q."""
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"


def _health_check(config: Config, instruction: said.Healthcheck) -> dict[str, Any]:
    command = instruction.command
    if command is None:
        return {"Test": ["NONE"]}
    kind = "CMD-SHELL" if command.shell else "CMD"
    given = {
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    return {"Test": [kind, *command.words], **{key: value for key, value in given.items() if value}}


def _shown_health_check(check: Mapping[str, Any]) -> str:
    """As Go prints a pointer to the structure with %q."""
    times = " ".join(
        json.dumps(_go_duration(check.get(key, 0))) for key in ("Interval", "Timeout", "StartPeriod")
    )
    return f"&{{{_quoted(check['Test'])} {times} '{_go_character(check.get('Retries', 0))}'}}"


def _go_character(number: int) -> str:
    return chr(number) if 32 <= number < 127 else f"\\x{number:02x}"


def _go_duration(nanoseconds: int) -> str:
    """`1m30s`, `0s`, `1.5s`, `500ms`."""
    if nanoseconds < 1_000_000_000:
        milliseconds = nanoseconds / 1_000_000
        return f"{milliseconds:g}ms" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1_000_000_000:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
