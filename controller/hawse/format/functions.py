"""What templates may call: the functions of Go's text/template, and those that docker adds."""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from hawse.format.values import MISSING, Function, Map, Missing, NoList, Struct, quoted, text, to_json
from hawse_agent.errors import InputError


def true(value: Any) -> bool:
    """Whether `if` takes it for true: structs always are, all else unless it is empty or zero."""
    return isinstance(value, Struct) or bool(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise _bad("index", f"cannot index a map with {text(key)}")
            value = value.get(key, value.zero if isinstance(value, Map) else MISSING)
        elif isinstance(value, list | str):
            if not isinstance(key, int) or isinstance(key, bool):
                raise _bad("index", f"cannot index a list with {quoted(str(key))}")
            if not 0 <= key < len(value):
                raise _bad("index", f"index out of range: {key}")
            value = value[key] if isinstance(value, list) else value.encode()[key]
        else:
            raise _bad("index", "index of untyped nil" if value is None else f"can't index {text(value)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, list | str) or len(bounds) > 2:
        raise _bad("slice", f"can't slice {text(value)}")
    start, end = (*bounds, *(0, len(value))[len(bounds) :])
    if not 0 <= start <= end <= len(value):
        raise _bad("slice", "index out of range")
    return value[start:end]


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | dict) and not isinstance(value, Struct):
        return len(value)
    raise _bad("len", f"len of {text(value)}")


def _print(*values: Any) -> str:
    """Spaces between operands neither of which is a string."""
    shown = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            shown += " "
        shown += text(value)
    return shown


def _println(*values: Any) -> str:
    return " ".join(map(text, values)) + "\n"


_VERB = re.compile(r"%([-+# 0]*)(\d+)?(?:\.(\d+))?(.)", re.DOTALL)


def _printf(form: str, *values: Any) -> str:
    if not isinstance(form, str):
        raise _bad("printf", f"wrong type for its format: {text(form)}")
    left = list(values)

    def shown(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        body = _verb(verb, left.pop(0), flags, precision)
        size = int(width or 0)
        if "-" in flags:
            return body.ljust(size)
        if "0" in flags and verb not in "sqv":
            return body.zfill(size)
        return body.rjust(size)

    made = _VERB.sub(shown, form)
    if left:
        made += "%!(EXTRA " + ", ".join(f"{_type(value)}={text(value)}" for value in left) + ")"
    return made


def _verb(verb: str, value: Any, flags: str, precision: str | None) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match verb:
        case "v":
            return text(value)
        case "s" if isinstance(value, str | list | dict):
            shown = text(value)
            return shown if precision is None else shown[: int(precision)]
        case "q" if isinstance(value, str):
            return quoted(value)
        case "t" if isinstance(value, bool):
            return text(value)
        case "T":
            return _type(value)
        case "d" if number and isinstance(value, int):
            return f"{value:+d}" if "+" in flags else str(value)
        case "U" if number and isinstance(value, int):
            return f"U+{value:04X}"
        case "q" if isinstance(value, list):
            return "[" + " ".join(_verb(verb, entry, flags, precision) for entry in value) + "]"
        case "x" | "X" | "o" | "b" if number and isinstance(value, int):
            return f"{value:{verb}}"
        case "x" | "X" if isinstance(value, str):
            shown = value.encode().hex()
            return shown if verb == "x" else shown.upper()
        case "c" if number and isinstance(value, int):
            return chr(value)
        case "e" | "f" | "F" | "g" if isinstance(value, float):
            if verb == "g" and precision is None:
                return text(value)
            sign = "+" if "+" in flags else ""
            return f"{value:{sign}.{6 if precision is None else int(precision)}{verb}}"
    return f"%!{verb}({_type(value)}={text(value)})"


def _type(value: Any) -> str:
    names: dict[type, str] = {
        bool: "bool",
        int: "int",
        float: "float64",
        str: "string",
        list: "[]interface {}",
    }
    return names.get(type(value), "<nil>" if value is None else "map[string]interface {}")


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "string"
        case None | Missing() | NoList() | Map(nil=True):
            return "nil"
    raise _bad("eq", f"non-comparable type: {text(value)}")


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise _bad("eq", "missing argument for comparison")
    kind = _kind(first)
    for other in others:
        if (theirs := _kind(other)) == kind:
            if first == other or kind == "nil":
                return True
        elif "nil" not in (kind, theirs):
            raise _bad("eq", "incompatible types for comparison")
    return False


def _less(first: Any, second: Any) -> bool:
    if _kind(first) != _kind(second) or _kind(first) in ("bool", "nil"):
        raise _bad("lt", "incompatible types for comparison")
    return bool(first < second)


def _js(*values: Any) -> str:
    escaped = json.dumps(_print(*values), ensure_ascii=False)[1:-1].replace("'", "\\'")
    return re.sub("[<>&=]", lambda found: f"\\u{ord(found[0]):04X}", escaped)


def _join(values: Any, separator: str) -> str:
    if not isinstance(values, list) or any(not isinstance(value, str) for value in values):
        raise _bad("join", f"wrong type: {text(values)} is not a list of strings")
    return separator.join(values)


def _split(value: str, separator: str) -> list[str]:
    return value.split(separator) if separator else list(value)


def _title(value: str) -> str:
    return re.sub(r"(^|\W)(\w)", lambda found: found[1] + found[2].upper(), value)


def _pad(value: str, before: int, after: int) -> str:
    return f"{' ' * before}{value}{' ' * after}" if value else value


def _truncate(value: str, length: int) -> str:
    return value.encode()[:length].decode(errors="replace")


def _bad(name: str, message: str) -> InputError:
    return InputError(f"template: error calling {name}: {message}")


FUNCTIONS: Mapping[str, Function] = {
    "not": lambda value: not true(value),
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": _less,
    "le": lambda first, second: _less(first, second) or _equal(first, second),
    "gt": lambda first, second: not _less(first, second) and not _equal(first, second),
    "ge": lambda first, second: not _less(first, second),
    "html": lambda *values: (
        html.escape(_print(*values)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    ),
    "js": _js,
    "urlquery": lambda *values: urllib.parse.quote_plus(_print(*values)),
    "json": to_json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": lambda value: _string("lower", value).lower(),
    "upper": lambda value: _string("upper", value).upper(),
    "pad": _pad,
    "truncate": _truncate,
}


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(name, f"wrong type: {text(value)} is not a string")
    return value


def _first(value: Any, *_: Any) -> Any:
    return value


HEADINGS: Mapping[str, Function] = {
    **FUNCTIONS,
    **dict.fromkeys(("json", "split", "join", "title", "lower", "upper", "truncate"), _first),
}
"""In the heading of a table these leave the name of a column as it is."""
