"""Values that instructions hold, read as Docker reads them: durations, sizes, ports, modes.

All of them raise InputError that says what was expected.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from hawse_agent.errors import InputError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SHORTEST = 1_000_000


def duration(text: str) -> int:
    """Nanoseconds of `1m30s`; 0 means the default, anything else is at least 1 ms."""
    bare = text.removeprefix("+")
    total = 0.0
    at = 0
    if bare != "0":
        while match := _PART.match(bare, at):
            total += float(match[1]) * _UNITS[match[2]]
            at = match.end()
        if not bare or at != len(bare):
            raise InputError(f"invalid duration {text!r}: expected one such as 30s or 1m30s")
    if 0 < total < _SHORTEST:
        raise InputError(f"duration {text} is less than 1ms")
    if total >= 1 << 63:
        raise InputError(f"duration {text} is too long")
    return round(total)


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?")


def size(text: str) -> int:
    """Bytes of `64m`, units of 1024."""
    match = _SIZE.fullmatch(text.lower())
    if match is None:
        raise InputError(f"invalid size {text!r}: expected one such as 64m")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2] or " "))


_PORT = re.compile(r"(?:.*:)?(\d+)(?:-(\d+))?(?:/([a-zA-Z]+))?")


def exposed_ports(word: str) -> list[str]:
    """`80` → `80/tcp`; `7000-7001/udp` → both; `8080:80`, which Docker lets pass, → `80/tcp`."""
    match = _PORT.fullmatch(word)
    if match is None:
        raise InputError(f"invalid port {word!r}: expected PORT, PORT-PORT or PORT/PROTOCOL")
    first = int(match[1])
    last = int(match[2] or match[1])
    protocol = (match[3] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise InputError(f"invalid port {word!r}: the protocol is tcp, udp or sctp")
    if not first <= last <= 65535:
        raise InputError(f"invalid port {word!r}: expected 0 to 65535, the lower one first")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def stop_signal(text: str) -> int:
    """Number of `SIGTERM`, `term`, `15`, `RTMIN+3`."""
    if text.isdecimal():
        number = int(text)
    else:
        name = text.upper().removeprefix("SIG")
        base, plus, offset = name.partition("+")
        if plus and base == "RTMIN" and offset.isdecimal():
            number = signal.SIGRTMIN + int(offset)
        elif name.startswith("RTMAX-") and name[6:].isdecimal():
            number = signal.SIGRTMAX - int(name[6:])
        else:
            number = getattr(signal, f"SIG{name}", 0)
            if not isinstance(number, signal.Signals):
                raise InputError(f"{text!r} is no signal")
    if not 1 <= number <= signal.SIGRTMAX:
        raise InputError(f"{text!r} is no signal")
    return int(number)


@dataclass(frozen=True, kw_only=True)
class _Clause:
    who: int
    """Masks of user, group, others."""
    operator: str
    permissions: str


@dataclass(frozen=True, kw_only=True)
class Mode:
    """Of `--chmod`: `0755`, or what is to change, `u=rwX,go-w`."""

    fixed: int | None
    clauses: tuple[_Clause, ...] = ()

    def of(self, mode: int, *, directory: bool) -> int:
        """Permission bits after it, of something that has `mode`."""
        if self.fixed is not None:
            return self.fixed
        mode &= 0o7777
        for clause in self.clauses:
            bits = _bits(clause, mode, directory=directory)
            match clause.operator:
                case "+":
                    mode |= bits
                case "-":
                    mode &= ~bits
                case _:
                    mode = mode & ~_reach(clause.who, directory=directory) | bits
        return mode


_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo]|)")


def mode(text: str) -> Mode:
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        return Mode(fixed=int(text, 8))
    clauses: list[_Clause] = []
    for part in text.split(","):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise InputError(f"invalid mode {text!r}: expected octal digits such as 755, or u=rwX,go=rX")
        who = match[1] or "a"
        masks = 0o777 if "a" in who else sum({"u": 0o700, "g": 0o070, "o": 0o007}[one] for one in set(who))
        clauses += [
            _Clause(who=masks, operator=operator, permissions=permissions)
            for operator, permissions in _ACTION.findall(match[2])
        ]
    return Mode(fixed=None, clauses=tuple(clauses))


def _bits(clause: _Clause, mode: int, *, directory: bool) -> int:
    letters = clause.permissions
    if letters in ("u", "g", "o") and letters:
        three = mode >> {"u": 6, "g": 3, "o": 0}[letters] & 7
        return three * 0o111 & clause.who
    bits = 0
    for letter in letters:
        match letter:
            case "r":
                bits |= 0o444 & clause.who
            case "w":
                bits |= 0o222 & clause.who
            case "x":
                bits |= 0o111 & clause.who
            case "X":
                if directory or mode & 0o111:
                    bits |= 0o111 & clause.who
            case "s":
                bits |= (0o4000 if clause.who & 0o700 else 0) | (0o2000 if clause.who & 0o070 else 0)
            case _:
                bits |= 0o1000 if clause.who & 0o007 or clause.who == 0o777 else 0
    return bits


def _reach(who: int, *, directory: bool) -> int:
    """What `=` takes away. As chmod does, a directory keeps its set-id bits."""
    special = (0o4000 if who & 0o700 else 0) | (0o2000 if who & 0o070 else 0)
    return who | (0 if directory else special) | (0o1000 if who == 0o777 else 0)
