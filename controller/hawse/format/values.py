"""Values of a template: JSON's types, and what Go knows of them beyond that. Prints them as Go does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any


class Missing:
    """The value of a key that a map does not have."""

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


class Row(dict[str, Any]):
    """An entry of a list: its fields by name. Callables are methods, which templates call with arguments."""

    def fields(self) -> dict[str, Any]:
        return {name: value for name, value in self.items() if not callable(value)}


class Struct(dict[str, Any]):
    """An object with a fixed set of fields, which Go prints as `{a b}`; it finds them in any case."""

    def field(self, name: str) -> Any:
        if name in self:
            return self[name]
        found = [key for key in self if key.lower() == name.lower()]
        return self[found[0]] if found else _LEFT_OUT.get(name, MISSING)


class Entries(dict[str, Any]):
    """An object of JSON; a key that it does not have is an error."""


class Map(dict[str, Any]):
    """A map, which Go prints as `map[k:v]`; `zero` is what `index` gives for a key that is not there."""

    def __init__(self, entries: Mapping[str, Any], zero: Any = MISSING, *, nil: bool = False) -> None:
        super().__init__(entries)
        self.zero = zero
        self.nil = nil


class NoList(list[Any]):
    """A slice that was never made: empty, and null in JSON."""


# Docker's `inspect` answers have fixed types; templates see the difference between a map and a struct, and
# between a map, a list and a pointer that are null. Keys that are named here are maps, with their zero value.
_TEXTS = ("Labels", "Options", "Sysctls", "Tmpfs", "Data", "DriverOpts", "Annotations", "StorageOpt")
_MAPS: Mapping[str, Any] = {
    **dict.fromkeys(_TEXTS, ""),
    "Ports": NoList(),
    "PortBindings": NoList(),
    "Networks": None,
    "ExposedPorts": Struct(),
    "Volumes": Struct(),
    "Containers": Struct(),
    "Metadata": MISSING,
}
_LEFT_OUT: Mapping[str, Any] = {
    **dict.fromkeys(("SizeRw", "SizeRootFs", "Health", "Healthcheck", "StopTimeout", "UsageData", "Init")),
    **dict.fromkeys(("Annotations", "StorageOpt", "Sysctls", "Tmpfs"), Map({}, "", nil=True)),
    "Mounts": NoList(),
}
"""What an answer leaves out when there is nothing: pointers, maps, a list."""
_POINTERS = frozenset({"PidsLimit", "OomKillDisable", "MemorySwappiness"} | _LEFT_OUT.keys() - {"Mounts"})


names_of_json = frozenset(
    {"Id", "HostIp", "CpuShares", "NanoCpus", "CpuPeriod", "CpuQuota", "Dns", "DnsOptions", "DnsSearch"}
)
"""Keys of `inspect` answers that Go's types spell otherwise: a template with one of them sees raw JSON."""


def inspected(value: Any, key: str = "", *, raw: bool = False) -> Any:
    """An answer of `inspect` with the types that Go gives it; `raw`: as plain JSON."""
    if isinstance(value, list):
        return [inspected(entry, raw=raw) for entry in value]
    if raw:
        if isinstance(value, dict):
            return Entries({name: inspected(entry, raw=True) for name, entry in value.items()})
        return MISSING if value is None else value
    if isinstance(value, dict):
        entries = {name: inspected(entry, name) for name, entry in value.items()}
        in_log_config = key == "Config" and not {"Image", "Cmd", "Subnet"} & value.keys()
        if key in _MAPS or in_log_config:
            return Map(entries, _MAPS.get(key, ""))
        return Struct(entries)
    if value is None and key in _MAPS:
        return Map({}, _MAPS[key], nil=True)
    if value is None and key not in _POINTERS:
        return NoList()
    return value


def text(value: Any) -> str:
    """As `fmt.Print` writes it."""
    match value:
        case Missing():
            return "<no value>"
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _float(value)
        case Row():
            return "{" + " ".join(text(value[name]) for name in value.fields()) + "}"
        case Struct():
            return "{" + " ".join(text(entry) for entry in value.values()) + "}"
        case dict():
            return "map[" + " ".join(f"{key}:{text(value[key])}" for key in sorted(value)) + "]"
        case list() | tuple():
            return "[" + " ".join(text(entry) for entry in value) + "]"
        case _:
            return str(value)


def _float(value: float) -> str:
    """`%v`: the shortest digits that give the number back; an exponent below 1e-4 and from 1e6 up."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    number = Decimal(repr(value)).normalize()
    if -4 <= number.adjusted() < 6 or not value:
        return f"{number:f}"
    first, *others = map(str, number.as_tuple().digits)
    mantissa = f"{first}.{''.join(others)}" if others else first
    return f"{'-' if value < 0 else ''}{mantissa}e{number.adjusted():+03d}"


def to_json(value: Any, indent: int | None = None) -> str:
    """As Go's encoder writes it: fields of rows and keys of maps in order, `<`, `>`, `&` of rows escaped."""
    separators = (",", ": ") if indent else (",", ":")
    plain = json.dumps(_plain(value), separators=separators, ensure_ascii=False, indent=indent)
    return plain.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace(_ESCAPED, "\\")


# A private character that stands for the backslash of an escape until the string is written.
_ESCAPED = "\ue0ff"


def _plain(value: Any, html: bool = False) -> Any:
    match value:
        case Missing():
            return None
        case Map(nil=True) | NoList():
            return None
        case Row():
            return {name: _plain(entry, True) for name, entry in sorted(value.fields().items())}
        case Struct():
            return {name: _plain(entry, html) for name, entry in value.items()}
        case dict():
            return {name: _plain(value[name], html) for name in sorted(value)}
        case list() | tuple():
            return [_plain(entry, html) for entry in value]
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(value)
        case str() if html:
            return re.sub(r"[<>&]", lambda found: f"{_ESCAPED}u{ord(found[0]):04x}", value)
        case _:
            return value


def quoted(value: str) -> str:
    """A string as Go's source would have it."""
    escapes = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    escapes |= {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
    return '"' + "".join(escapes.get(c) or (c if c.isprintable() else _code(c)) for c in value) + '"'


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


Function = Callable[..., Any]
