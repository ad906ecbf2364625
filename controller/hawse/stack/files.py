"""Files of the project that a stack takes along: configs, secrets, env files, seccomp profiles.

Paths are relative to the directory of the Compose file. A name that ends in `.j2` is a template and is
rendered with the host's variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from hawse.stack.interpolation import interpolate
from hawse_agent.errors import InputError

Render = Callable[[str, str], str]
"""Takes the text and the name of a template, returns what it renders to."""

_ENV_LINE = re.compile(r"(?:export\s+)?(?P<key>[^\s=:#]+)\s*(?:[=:](?P<value>.*))?", re.DOTALL)


class ProjectFiles:
    def __init__(self, directory: Path, render: Render) -> None:
        self._directory = directory
        self._render = render

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def read(self, name: str, where: str) -> bytes:
        """Raises InputError, with `where` the file is asked for, when it cannot be read or rendered."""
        path = self.path(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", where=where) from error
        if path.suffix != ".j2":
            return content
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"template {path} is not UTF-8 text", where=where) from error
        return self._render(text, str(path)).encode()

    def environment(
        self, name: str, where: str, variables: Mapping[str, str], *, raw: bool
    ) -> dict[str, str]:
        """The variables of an env file."""
        content = self.read(name, where)
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"env file {name} is not UTF-8 text", where=where) from error
        return parse_env(text, str(self.path(name)), variables, raw=raw)

    def path(self, name: str) -> Path:
        return self._directory / Path(name).expanduser()


def parse_env(text: str, file: str, variables: Mapping[str, str], *, raw: bool = False) -> dict[str, str]:
    """`KEY=value` lines as Compose reads them: comments, `export`, quotes, `${VAR}` outside single quotes.

    A key without `=` takes its value from `variables`. With `raw` values are taken to the letter.
    """
    result: dict[str, str] = {}
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        start, line = number + 1, lines[number].strip()
        number += 1
        if not line or line.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        if match is None:
            raise InputError("expected KEY=value", where=f"{file}:{start}")
        key, value = match["key"], match["value"]
        if value is None:
            if key in variables:
                result[key] = variables[key]
            continue
        value = value if raw else value.strip()
        if raw or value[:1] not in ("'", '"'):
            plain = value if raw else re.sub(r"(^|\s)#.*", "", value).rstrip()
            result[key] = plain if raw else _expand(plain, variables, result, f"{file}:{start}")
            continue
        quote = value[0]
        while (end := _closing_quote(value, quote)) is None:
            if number >= len(lines):
                raise InputError(f"the {quote} of {key} is never closed", where=f"{file}:{start}")
            value += "\n" + lines[number]
            number += 1
        rest = value[end + 1 :].strip()
        if rest and not rest.startswith("#"):
            raise InputError(f"unexpected text after the value of {key}", where=f"{file}:{start}")
        inner = value[1:end]
        if quote == '"':
            inner = _unescape(_expand(inner, variables, result, f"{file}:{start}"))
        result[key] = inner
    return result


def _closing_quote(value: str, quote: str) -> int | None:
    at = 1
    while at < len(value):
        if value[at] == "\\" and quote == '"':
            at += 2
            continue
        if value[at] == quote:
            return at
        at += 1
    return None


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def _unescape(text: str) -> str:
    return re.sub(r"\\([nrt\"\\])", lambda match: _ESCAPES[match[1]], text)


def _expand(text: str, variables: Mapping[str, str], earlier: Mapping[str, str], where: str) -> str:
    try:
        return interpolate(text, {**earlier, **variables})
    except InputError as error:
        raise InputError(error.message, where=where, hint=error.hint) from None
