"""The Jinja environment: Ansible's settings, filters, tests and lookups, and values that keep their type.

A template that is one single `{{ expression }}` gives the expression's own value; anything else gives text.
Undefined names raise when they are used, but may be passed on: `a.b.c | default(1)` works without `a`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import GeneratorType
from typing import Any

import jinja2
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import Context
from jinja2.utils import missing
from markupsafe import Markup

from hawse.template.filters import FILTERS
from hawse.template.lookups import lookup, query
from hawse.template.tests import TESTS
from hawse_agent.errors import InputError

UndefinedFailure = jinja2.UndefinedError
"""What a template raises when it uses an undefined value."""


class Undefined(jinja2.StrictUndefined):
    """An undefined value whose parts are undefined as well, so that `default` and `is defined` see it."""

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> Any:
        return self


class Lazy:
    """A variable that is rendered when a template first asks for it."""

    __slots__ = ("_name", "_resolve")

    def __init__(self, resolve: Callable[[str], Any], name: str) -> None:
        self._resolve = resolve
        self._name = name

    def value(self) -> Any:
        return self._resolve(self._name)


MISSING = " missing"
"""The name, which no template can say, of the function that hears of undefined names."""


class _Context(Context):
    def resolve_or_missing(self, key: str) -> Any:
        value = super().resolve_or_missing(key)
        if value is missing and (hook := self.parent.get(MISSING)) is not None:
            hook(key)
        return value.value() if isinstance(value, Lazy) else value


class _Generator(NativeCodeGenerator):
    """Keeps the type of a lone constant; Jinja's own would make text of it and guess the type back."""

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        values = list(group)
        return repr(values[0] if len(values) == 1 else "".join(_text(value) for value in values))


class _Environment(jinja2.Environment):
    context_class = _Context
    code_generator_class = _Generator


@lru_cache(maxsize=64)
def environment(search: tuple[Path, ...]) -> jinja2.Environment:
    """The environment whose includes and file lookups look into the directories of `search`."""
    env = _Environment(
        undefined=Undefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
        loader=jinja2.FileSystemLoader(list(search)),
        cache_size=400,
    )
    env.filters |= FILTERS
    env.tests |= TESTS
    functions: dict[str, Callable[..., Any]] = {
        "lookup": lambda *args, **kwargs: lookup(search, *args, **kwargs),
        "query": lambda *args, **kwargs: query(search, *args, **kwargs),
        "q": lambda *args, **kwargs: query(search, *args, **kwargs),
        "now": _now,
        "undef": lambda hint="": Undefined(hint=hint or "it is marked as undefined"),
    }
    env.globals |= functions
    return env


@lru_cache(maxsize=4096)
def compiled(search: tuple[Path, ...], text: str) -> jinja2.Template:
    return environment(search).from_string(text)


@lru_cache(maxsize=4096)
def compiled_expression(search: tuple[Path, ...], text: str) -> jinja2.Template:
    """A template that leaves the value of the expression in its variable `result`."""
    return environment(search).compile_expression(text, undefined_to_none=False)._template


def run(template: jinja2.Template, names: dict[str, Any]) -> list[Any]:
    """What the template puts out, piece by piece; text and values."""
    context = template.new_context(names, shared=True)
    return list(template.root_render_func(context))


def run_expression(template: jinja2.Template, names: dict[str, Any]) -> Any:
    context = template.new_context(names, shared=True)
    for _ in template.root_render_func(context):
        pass
    return _finalize(context.vars["result"])


def why(value: Undefined) -> str:
    """The reason why a value is undefined. Not a method: any name in an undefined value is undefined."""
    return value._undefined_message


def joined(pieces: Sequence[Any]) -> str:
    return "".join(_text(piece) for piece in pieces)


def describe(error: Exception, names: Iterable[str]) -> tuple[str, int, str, str]:
    """What went wrong while rendering: message, line in the template, included file or "", hint."""
    line, file = 1, ""
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            line = template.get_corresponding_lineno(trace.tb_lineno)
            file = template.filename if template.filename not in (None, "<template>") else ""
        trace = trace.tb_next
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"not a valid template: {error.message}", error.lineno, error.filename or "", ""
    if isinstance(error, jinja2.UndefinedError):
        return str(error.message), line, file, _close(str(error.message), names)
    if isinstance(error, jinja2.TemplateNotFound):
        return f"no such template: {error.name}", line, file, ""
    if isinstance(error, InputError):
        return error.message, line, file, error.hint
    if isinstance(error, jinja2.TemplateError):
        return str(error.message), line, file, ""
    return f"{type(error).__name__}: {error}", line, file, ""


def _close(message: str, names: Iterable[str]) -> str:
    name = message.removesuffix(" is undefined").strip("'")
    if name == message:
        return ""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def _finalize(value: Any) -> Any:
    """Every value that a template puts out passes here; undefined ones stop here, at their line."""
    if isinstance(value, Undefined):
        raise jinja2.UndefinedError(why(value))
    if isinstance(value, GeneratorType | map | filter | range | zip | Iterator):
        return list(value)
    if isinstance(value, Markup):
        return str(value)
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _now(utc: bool = False, fmt: str | None = None) -> Any:
    now = datetime.now(UTC).replace(tzinfo=None) if utc else datetime.now()
    return now.strftime(fmt) if fmt else now
