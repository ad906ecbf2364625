"""`${VAR}` in a Compose file, with every form that the Compose Specification has.

    $VAR  ${VAR}          the value; a variable that is not set is an error (Compose warns and goes on)
    ${VAR:-text}          text when VAR is not set or empty        ${VAR-text}   when it is not set
    ${VAR:?text}          an error when VAR is not set or empty    ${VAR?text}   when it is not set
    ${VAR:+text}          text when VAR is set and not empty       ${VAR+text}   when it is set
    $$                    a dollar sign

The text after an operator may hold further forms. Pure: the caller adds file and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hawse_agent.errors import InputError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """`text` with every variable replaced; raises InputError that names the variable or the form."""
    if "$" not in text:
        return text
    value, _ = _scan(text, 0, variables, nested=False)
    return value


def _scan(text: str, at: int, variables: Mapping[str, str], *, nested: bool) -> tuple[str, int]:
    """Replace from `at` to the end, or to the `}` that closes the surrounding form when `nested`."""
    out: list[str] = []
    while at < len(text):
        char = text[at]
        if char == "}" and nested:
            return "".join(out), at
        if char != "$":
            out.append(char)
            at += 1
        elif text.startswith("$$", at):
            out.append("$")
            at += 2
        elif text.startswith("${", at):
            value, at = _braced(text, at, variables)
            out.append(value)
        elif match := _NAME.match(text, at + 1):
            out.append(_value(match[0], variables))
            at = match.end()
        else:
            raise _malformed("a $ that begins neither $NAME nor ${NAME}")
    if nested:
        raise _malformed("a ${ that is never closed")
    return "".join(out), at


def _braced(text: str, start: int, variables: Mapping[str, str]) -> tuple[str, int]:
    match = _NAME.match(text, start + 2)
    if match is None:
        raise _malformed("a $ that begins neither $NAME nor ${NAME}")
    name, at = match[0], match.end()
    if text.startswith("}", at):
        return _value(name, variables), at + 1
    operator = next((o for o in _OPERATORS if text.startswith(o, at)), None)
    if operator is None:
        raise _malformed("a $ that begins neither $NAME nor ${NAME}")
    body = at + len(operator)
    end = _closing(text, body)
    value = variables.get(name)
    usable = bool(value) if operator[0] == ":" else value is not None
    if operator[-1] == "+":
        return (_alternative(text, body, end, variables) if usable else ""), end + 1
    if usable and value is not None:
        return value, end + 1
    alternative = _alternative(text, body, end, variables)
    if operator[-1] == "?":
        raise InputError(f"variable {name} is required" + (f": {alternative}" if alternative else ""))
    return alternative, end + 1


def _alternative(text: str, start: int, end: int, variables: Mapping[str, str]) -> str:
    """The text of an operator: only looked at when used, so its variables may be unset otherwise."""
    value, _ = _scan(text[: end + 1], start, variables, nested=True)
    return value


def _closing(text: str, at: int) -> int:
    """Where the `}` stands that closes the form begun before `at`."""
    depth = 1
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
            continue
        if text.startswith("${", at):
            depth += 1
            at += 2
            continue
        if text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    raise _malformed("a ${ that is never closed")


def _value(name: str, variables: Mapping[str, str]) -> str:
    try:
        return variables[name]
    except KeyError:
        raise InputError(
            f"variable {name} is not set", hint=f"set {name}, or write ${{{name}:-}} for an empty default"
        ) from None


def _malformed(what: str) -> InputError:
    """Does not show the text around it: that may be a password with a dollar sign in it."""
    return InputError(f"invalid interpolation: {what}", hint="write $$ for a dollar sign")
