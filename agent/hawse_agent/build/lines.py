"""A Dockerfile's text as one line for each instruction: directives, comments, continuations and heredocs.

    # syntax=docker/dockerfile:1     directives: only above everything else, even above other comments
    RUN apt-get update && \\          joined with the next, whose leading blanks stay
        # a comment                  gone, wherever it stands
        apt-get install -y make
    COPY <<EOF /etc/motd             what follows belongs to the line before, up to its mark
    ...
    EOF

Which words the lines have is `parser.py`'s to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hawse_agent.build.instructions import Heredoc
from hawse_agent.build.words import heredoc_marks
from hawse_agent.errors import InputError, NotSupported

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_SYNTAX = re.compile(r"(?:docker\.io/)?docker/dockerfile:1(?:[.-][0-9a-z.-]*)?(?:@sha256:[0-9a-f]{64})?")
_MOST = 1 << 22
"""Bytes of a Dockerfile: far more than anybody writes, and little enough to read it at once."""


@dataclass(frozen=True, kw_only=True)
class Line:
    number: int
    """Of its first line, from 1."""
    text: str
    """Joined, without blanks around."""
    heredocs: tuple[Heredoc, ...] = ()
    gap: bool = False
    """An empty line stands within it."""


@dataclass(kw_only=True)
class Directives:
    escape: str = "\\"
    skipped: frozenset[str] = frozenset()
    """Names of warnings that `# check=skip=…` turns off; `all` is all of them."""
    strict: bool = False
    """`# check=error=true`: a warning is an error."""
    lines: dict[str, int] = field(default_factory=dict)
    """Where each stands."""


def decode(source: bytes | str) -> str:
    """Raises InputError: not UTF-8, or too long."""
    if len(source) > _MOST:
        raise InputError(f"a Dockerfile may have {_MOST} bytes, this one has {len(source)}")
    if isinstance(source, bytes):
        try:
            source = source.decode()
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise InputError(f"line {line} is not UTF-8") from error
    return source.removeprefix("\ufeff")


def directives(text: str) -> Directives:
    """Raises InputError with the line's number in front: one that occurs twice, or an escape that is none;
    NotSupported: a frontend of somebody else."""
    found = Directives()
    for number, line in enumerate(_rows(text), 1):
        if number == 1 and line.startswith("#!"):
            continue
        match = _DIRECTIVE.fullmatch(line.strip())
        name = match[1].lower() if match else ""
        if match is None or name not in ("syntax", "escape", "check"):
            break
        if name in found.lines:
            raise InputError(f"{number}: only one {name} directive can be used")
        found.lines[name] = number
        _take(found, name, match[2], number)
    return found


def _take(found: Directives, name: str, value: str, number: int) -> None:
    match name:
        case "syntax":
            frontend = value.split()[0]
            if _SYNTAX.fullmatch(frontend) is None:
                raise NotSupported(
                    f"{number}: # syntax={frontend}: only docker/dockerfile:1 is known, none is fetched"
                )
        case "escape":
            if value not in ("\\", "`"):
                raise InputError(f"{number}: # escape={value}: expected \\ or `")
            found.escape = value
        case _:
            for part in value.split(";"):
                key, _, words = part.strip().partition("=")
                if key == "skip":
                    found.skipped = frozenset(word.strip() for word in words.split(","))
                elif key == "error" and words in ("true", "false"):
                    found.strict = words == "true"
                else:
                    raise InputError(f"{number}: # check={part.strip()}: expected skip=NAME,… or error=true")


def logical_lines(
    text: str, escape: str, takes_heredocs: Callable[[str], bool]
) -> Iterator[Line | tuple[int, InputError]]:
    """Each instruction's line, or where and why there is none. `takes_heredocs` says of a joined line
    whether `<<NAME` in it means one."""
    rows = text.split("\n")
    if rows[-1] == "":
        rows.pop()
    continued = re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
    at = 0
    while at < len(rows):
        start = at
        first = _without_comment(rows[at].removesuffix("\r").lstrip())
        first, more = _continuation(first, continued, escape)
        parts = [first]
        at += 1
        gap = False
        while more and at < len(rows):
            row = rows[at].removesuffix("\r")
            at += 1
            if row.lstrip().startswith("#"):
                continue
            if not row.strip():
                gap = True
                continue
            part, more = _continuation(row, continued, escape)
            parts.append(part)
        joined = "".join(parts).strip()
        if not joined:
            continue
        heredocs: list[Heredoc] = []
        problem: InputError | None = None
        if "<<" in joined and takes_heredocs(joined):
            for mark in heredoc_marks(joined):
                content, end = _body(rows, at, mark.name, strip_tabs=mark.strip_tabs)
                if end is None:
                    problem = InputError(f"heredoc <<{mark.name} has no line {mark.name} that ends it")
                    at = len(rows)
                    break
                at = end
                heredocs.append(Heredoc(name=mark.name, content=content, expand=mark.expand))
        if problem is not None:
            yield start + 1, problem
        else:
            yield Line(number=start + 1, text=joined, heredocs=tuple(heredocs), gap=gap)


def _rows(text: str) -> Iterator[str]:
    return (row.removesuffix("\r") for row in text.split("\n"))


def _without_comment(row: str) -> str:
    return "" if row.startswith("#") else row


def _continuation(row: str, continued: re.Pattern[str], escape: str) -> tuple[str, bool]:
    if continued.search(row) is None:
        return row, False
    return row[: row.rindex(escape)], True


def _body(rows: list[str], at: int, name: str, *, strip_tabs: bool) -> tuple[str, int | None]:
    """Content and where the line after its end is."""
    content: list[str] = []
    for number in range(at, len(rows)):
        row = rows[number]
        if strip_tabs:
            row = row.lstrip("\t")
        if row.rstrip("\r") == name:
            return "".join(content), number + 1
        content.append(row + "\n")
    return "", None
