"""Load a stack: render, read as YAML, interpolate, validate, lower. Every error names file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hawse.stack.build import Build
from hawse.stack.document import Document, interpolated, parse
from hawse.stack.files import ProjectFiles
from hawse.stack.lower import Lowering
from hawse.stack.model import ComposeFile
from hawse.template import render_text
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.host import ImageSource, StackSpec

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def load(
    path: Path,
    *,
    name: str | None = None,
    variables: Mapping[str, Any],
    environment: Mapping[str, str],
    profiles: Sequence[str] = (),
    images: Callable[[str], ImageSource | None] = lambda reference: None,
    host_matches: Callable[[str], bool] = lambda pattern: True,
    builds: Callable[[Build], None] = lambda build: None,
) -> StackSpec:
    """The stack of `path` on one host.

    `variables` are the host's, for Jinja; `environment` is what `${VAR}`, a config's `environment:` and keys
    without a value refer to. `images` knows the images that the controller holds; `host_matches` tells
    whether the host is in an inventory pattern; `builds` hears of the images that are to be built first.
    Raises InputError.
    """
    document = _read(path, variables)
    if document.value is None:
        raise InputError(
            "the template renders to nothing" if document.template is not None else "the file is empty",
            where=str(path),
            hint="expected a Compose file: a mapping with services:",
        )
    stack_name = name or _name(path, document, environment)
    if not _NAME.fullmatch(stack_name):
        raise InputError(
            f"invalid stack name {stack_name!r}",
            where=str(path),
            hint="use a-z, 0-9, _ and -, as in web-shop",
        )
    scope = {**environment, "COMPOSE_PROJECT_NAME": stack_name}
    document = interpolated(document, scope)
    return Lowering(
        compose=validate(document),
        document=document,
        name=stack_name,
        files=ProjectFiles(path.parent, lambda text, file: render_text(text, file, variables)),
        environment=scope,
        profiles=profiles,
        images=images,
        host_matches=host_matches,
        builds=builds,
    ).stack()


def render(path: Path, variables: Mapping[str, Any]) -> str:
    """The Compose file as text: rendered when it is a template (`.j2`), as it is otherwise."""
    text = _text(path)
    return render_text(text, str(path), variables) if path.suffix == ".j2" else text


def validate(document: Document) -> ComposeFile:
    """Raises InputError (NotSupported for keys that only Compose has) for the first thing that is wrong."""
    try:
        compose = ComposeFile.model_validate(document.value)
    except ValidationError as error:
        problems = sorted(
            (_problem(document, item) for item in error.errors(include_url=False)), key=lambda p: p[0]
        )
        first = problems[0][1]
        others = [str(problem) for _, problem in problems[1:]]
        if others:
            more = "\n".join(("also:", *others[:9], *(("…",) if len(others) > 9 else ())))
            first.hint = f"{first.hint}\n{more}" if first.hint else more
        raise first from None
    if not compose.services:
        raise document.error(("services",), "expected at least one service")
    for key in compose.services:
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]*", key):
            raise document.error(("services", key), "expected a service name of letters, digits, . _ and -")
    return compose


def _read(path: Path, variables: Mapping[str, Any]) -> Document:
    text = _text(path)
    if path.suffix != ".j2":
        return parse(text, str(path))
    return parse(render_text(text, str(path), variables), str(path), template=text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the stack: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("expected UTF-8 text", where=str(path)) from error


def _name(path: Path, document: Document, environment: Mapping[str, str]) -> str:
    """`name:` of the file, else the file's own name: guestbook.yaml.j2 is the stack guestbook."""
    if isinstance(document.value, dict) and document.value.get("name"):
        named = Document(
            file=document.file,
            value={"name": document.value["name"]},
            lines=document.lines,
            template=document.template,
            rendered=document.rendered,
        )
        return str(interpolated(named, environment).value["name"])
    stem = re.sub(r"\.ya?ml(\.j2)?$", "", path.name)
    if stem in ("compose", "docker-compose"):
        stem = path.absolute().parent.name
    return re.sub(r"[^a-z0-9_-]", "", stem.lower()).lstrip("_-")


def _problem(document: Document, item: Any) -> tuple[int, InputError]:
    """One of pydantic's errors as ours, with the line it is on."""
    path: tuple[str | int, ...] = tuple(part for part in item["loc"] if part != "[key]")
    context = item.get("ctx", {})
    if item["type"] == "unknown_key":
        path = (*path, context["key"])
        close = context["close"]
        hint = f"did you mean {close!r}?" if close else f"known here: {context['known']}"
        return document.line(path), document.error(path, f"unknown key {context['key']!r}", hint=hint)
    if item["type"] == "not_supported":
        path = (*path, context["key"])
        message = f"{context['key']!r} is not supported by Hawse"
        return document.line(path), NotSupported(message, where=document.where(path))
    if item["type"] == "missing_here":
        return document.line(path), document.error(path, str(item["msg"]))
    if item["type"] == "missing":
        return document.line(path[:-1]), document.error(path[:-1], f"missing key {path[-1]!r}")
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
    return document.line(path), document.error(path, message)
