"""Host names as inventories write them: `web[01:20].example.com:2222`, `[fe80::1]:22`. Pure."""

from __future__ import annotations

import ipaddress
import re
from string import ascii_letters

from hawse_agent.errors import InputError

_RANGE = re.compile(r"\[[^\[\]]*\]")
_BRACKETED = re.compile(r"\[(?P<host>.+)\]:(?P<port>\d+)")
_WITH_PORT = re.compile(r"(?P<host>(?:[^:\[\]]|\[[^\]]*\])+):(?P<port>\d+)")
_HOSTNAME = re.compile(r"(?!-)[\w-]+(?:\.[\w-]+)*\.?")


def parse_address(text: str) -> tuple[str, int | None]:
    """Host (which may hold ranges) and port; what is no address at all is taken whole as a name."""
    match = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    if match is not None and _is_host(match["host"]):
        return match["host"], int(match["port"])
    return text, None


def is_address(text: str) -> bool:
    """Whether it is a host name or address, with or without port and ranges."""
    return _is_host(text) or parse_address(text)[1] is not None


def expand(pattern: str) -> list[str]:
    """All hosts that a pattern stands for; the leftmost range varies slowest. Raises InputError."""
    start = pattern.find("[")
    if start < 0:
        return [pattern]
    end = pattern.find("]", start)
    if end < 0:
        raise InputError(f"the [ of {pattern!r} is never closed")
    head, inside, tail = pattern[:start], pattern[start + 1 : end], pattern[end + 1 :]
    values = _values(inside, pattern)
    rest = expand(tail)
    return [head + value + more for value in values for more in rest]


def _values(inside: str, pattern: str) -> list[str]:
    bounds = inside.split(":")
    if len(bounds) not in (2, 3):
        raise _bad(pattern, "a range is [begin:end] or [begin:end:step]")
    begin, end = bounds[0] or "0", bounds[1]
    if not end:
        raise _bad(pattern, "a range needs an end")
    try:
        step = int(bounds[2]) if len(bounds) == 3 else 1
    except ValueError:
        raise _bad(pattern, "the step of a range is a number") from None
    if step == 0:
        raise _bad(pattern, "the step of a range may not be 0")
    if len(begin) == len(end) == 1 and begin in ascii_letters and end in ascii_letters:
        first, last = ascii_letters.index(begin), ascii_letters.index(end)
        if first > last:
            raise _bad(pattern, "a range of letters runs upwards, from a to z and from A to Z")
        return list(ascii_letters[first : last + 1 : step])
    try:
        first, last = int(begin), int(end)
    except ValueError:
        raise _bad(pattern, "a range runs between two numbers or two single letters") from None
    width = len(begin) if begin[0] == "0" and len(begin) > 1 else 0
    if width and width != len(end):
        raise _bad(pattern, "both ends of a zero-padded range have the same width")
    return [str(number).zfill(width) for number in range(first, last + 1, step)]


def _is_host(text: str) -> bool:
    plain = _RANGE.sub("1", text)
    if _HOSTNAME.fullmatch(plain):
        return True
    try:
        ipaddress.ip_address(plain.partition("%")[0])
    except ValueError:
        return False
    return True


def _bad(pattern: str, why: str) -> InputError:
    return InputError(f"not a valid host range: {pattern!r}", hint=why)
