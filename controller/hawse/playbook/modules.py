"""Modules that the controller answers or prepares itself, and what each module's arguments may be.

    stack image volume             become items that the agent's engine plans and applies
    volume_backup volume_restore   move a volume's data through the controller
    debug assert set_fact          never leave the controller
    copy template                  read their file here; the agent gets the content
    command shell file package wait_for …   go to the agent as they are: hawse_agent.spec.task

Argument names are checked when a playbook is read; values when they are rendered.
"""

from __future__ import annotations

import difflib
import re
import shlex
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from hawse.template.filters import to_bool
from hawse_agent.errors import InputError
from hawse_agent.spec import codec
from hawse_agent.spec.task import ARGUMENTS, FREE_FORM

Compression = Literal["zstd", "gzip", "none"]


@dataclass(frozen=True, kw_only=True)
class StackArguments:
    src: str = ""
    """The Compose file or its template; only a stack that shall be absent can do without."""
    name: str = ""
    state: Literal["present", "absent"] = "present"
    profiles: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """For `${VAR}` in the file, over the controller's own environment."""
    remove_volumes: bool = False
    wait: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImageArguments:
    name: str
    state: Literal["present", "absent"] = "present"
    force: bool = False
    """Pull again even when the host has it."""


@dataclass(frozen=True, kw_only=True)
class VolumeArguments:
    name: str
    state: Literal["present", "absent"] = "present"
    driver_options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BackupArguments:
    name: str
    dest: str
    """The tarball at the controller; its manifest lies beside it. A name that ends in / is a directory."""
    compression: Compression = "zstd"


@dataclass(frozen=True, kw_only=True)
class RestoreArguments:
    name: str
    src: str


@dataclass(frozen=True, kw_only=True)
class DebugArguments:
    msg: Any = "Hello world!"
    var: str = ""
    verbosity: int = 0


@dataclass(frozen=True, kw_only=True)
class AssertArguments:
    that: Any
    fail_msg: str = ""
    success_msg: str = ""
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class Module:
    name: str
    arguments: type | None
    """None when any name is an argument: set_fact."""
    extra: tuple[str, ...] = ()
    """Arguments that the controller turns into others before the agent sees them."""
    hidden: tuple[str, ...] = ()
    """Arguments that only the controller sets."""
    free: str = ""
    """The argument that a plain text stands for: `command: ls -l`."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    local: bool = False
    """Never leaves the controller."""

    @property
    def names(self) -> list[str]:
        own = [f.name for f in fields(self.arguments)] if self.arguments is not None else []
        return [*(name for name in own if name not in self.hidden), *self.extra]

    @property
    def required(self) -> list[str]:
        if self.arguments is None:
            return []
        return [
            f.name
            for f in fields(self.arguments)
            if f.default is MISSING and f.default_factory is MISSING and f.name not in self.hidden
        ]


_CONTENT = ("content_b64", "content_blob")
_ALIASES: Mapping[str, Mapping[str, str]] = {
    "file": {"dest": "path", "name": "path"},
    "package": {"pkg": "name"},
    "command": {"_raw_params": "cmd"},
    "shell": {"_raw_params": "cmd"},
}


def _own() -> dict[str, Module]:
    return {
        module.name: module
        for module in (
            Module(name="stack", arguments=StackArguments, free="src", aliases={"template": "src"}),
            Module(name="image", arguments=ImageArguments, free="name", aliases={"reference": "name"}),
            Module(
                name="volume",
                arguments=VolumeArguments,
                free="name",
                aliases={"driver_opts": "driver_options"},
            ),
            Module(name="volume_backup", arguments=BackupArguments, aliases={"volume": "name"}),
            Module(name="volume_restore", arguments=RestoreArguments, aliases={"volume": "name"}),
            Module(name="debug", arguments=DebugArguments, local=True),
            Module(name="assert", arguments=AssertArguments, aliases={"msg": "fail_msg"}, local=True),
            Module(name="set_fact", arguments=None, local=True),
        )
    }


def _remote() -> dict[str, Module]:
    found = {}
    for name, arguments in ARGUMENTS.items():
        extra = {"copy": ("src", "content", "directory_mode"), "template": ("src",)}.get(name, ())
        own = {f.name for f in fields(arguments)}
        found[name] = Module(
            name=name,
            arguments=arguments,
            extra=tuple(word for word in extra if word not in own),
            hidden=_CONTENT,
            free="cmd" if name in FREE_FORM else "",
            aliases={
                old: new for old, new in _ALIASES.get(name, {}).items() if old not in own and new in own
            },
        )
    return found


MODULES: Mapping[str, Module] = {**_remote(), **_own()}


def module_named(name: str) -> Module | None:
    return MODULES.get(name.removeprefix("ansible.builtin.").removeprefix("ansible.legacy."))


def free_form(module: Module, text: str) -> dict[str, Any]:
    """The arguments of a module that is given as text: `ls -l`, `src=a dest=b`. Raises InputError."""
    if module.free == "cmd":
        return _command_line(module, text)
    if module.free and not re.match(r"\s*\w+=", text):
        return {module.free: text}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"not valid arguments: {error}") from None
    pairs = [word.partition("=") for word in words]
    if any(not equals for _, equals, _ in pairs):
        raise InputError(f"expected the arguments of {module.name} as a mapping, or as key=value")
    return {key: value for key, _, value in pairs}


def check_names(module: Module, given: Mapping[str, Any]) -> dict[str, str]:
    """Each given name with the argument it means. Raises InputError for unknown and for missing ones."""
    if module.arguments is None:
        return {name: name for name in given}
    meant: dict[str, str] = {}
    for name in given:
        real = module.aliases.get(name, name)
        if real not in module.names:
            close = difflib.get_close_matches(name, module.names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(module.names)}"
            raise InputError(f"module {module.name} has no argument {name!r}", hint=hint)
        if real in meant.values():
            raise InputError(f"{name!r} and another argument of module {module.name} mean the same")
        meant[name] = real
    for name in module.required:
        if name not in meant.values():
            raise InputError(f"module {module.name} needs the argument {name!r}")
    return meant


def build(kind: type, values: Mapping[str, Any], module: str) -> Any:
    """The arguments as their dataclass, from rendered values; raises InputError that names the argument."""
    hints = typing.get_type_hints(kind)
    prepared = {
        name: _coerce(hints[name], value, name) if name in hints else value for name, value in values.items()
    }
    try:
        return codec.from_json(kind, prepared)
    except InputError as error:
        reason = error.message.removeprefix(f"{error.where}: ")
        raise InputError(f"argument {error.where!r} of module {module}: {reason}") from None


def _coerce(kind: Any, value: Any, name: str) -> Any:
    """YAML and templates give what they give: a mode of 0644 is a number, a templated flag may be text."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = [choice for choice in typing.get_args(kind) if choice is not type(None)]
        return value if value is None or len(kinds) != 1 else _coerce(kinds[0], value, name)
    if name == "mode" and isinstance(value, int) and not isinstance(value, bool):
        return f"{value:04o}"
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if kind is str and isinstance(value, bool):
        return str(value).lower()
    if kind is bool and isinstance(value, str | int) and not isinstance(value, bool):
        return _flag(value)
    if kind in (int, float) and isinstance(value, str):
        return _number(kind, value)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        return [_coerce(item, part, "") for part in items] if isinstance(items, list | tuple) else items
    if isinstance(value, Mapping) and typing.get_origin(kind) is not None:
        inner = typing.get_args(kind)[1]
        return {str(key): _coerce(inner, item, "") for key, item in value.items()}
    return value


def _flag(value: Any) -> Any:
    known = str(value).lower() in ("yes", "no", "on", "off", "1", "0", "true", "false")
    return to_bool(value) if known else value


def _number(kind: type, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        return value


def _command_line(module: Module, text: str) -> dict[str, Any]:
    """A command, with the options that Ansible lets stand in it: `make install creates=/usr/bin/x`."""
    options: dict[str, Any] = {}
    kept: list[str] = []
    for word in re.split(r"(\s+)", text.strip()):
        name, equals, value = word.partition("=")
        if equals and name in ("creates", "removes", "chdir", "executable") and name in module.names:
            options[name] = value.strip("'\"")
            while kept and kept[-1].isspace():
                kept.pop()
        else:
            kept.append(word)
    return {"cmd": "".join(kept).strip(), **options}
