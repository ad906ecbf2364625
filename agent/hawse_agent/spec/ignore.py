""".dockerignore: which files of a directory are no part of a build's context.

    # comment            only at the very beginning of a line
    *.o                  at the top; `dir/*.o` in dir
    **/*.o               at any depth, the top too
    build                a file, or a directory with all that is in it
    !build/keep          but not this: the last line that matches decides
    /top                 the same as `top`

The rules are those of moby's patternmatcher: a path is looked at from the top down, and what matched a
directory matches all below it. A file is taken back from an excluded directory whatever wildcards its
exception has, as BuildKit does; the classic docker command looks into such a directory only for exceptions
that name it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import NamedTuple, Self

from hawse_agent.errors import InputError
from hawse_agent.spec.automaton import ALL, DIRECTORIES, Automaton
from hawse_agent.spec.globs import STAR, element, has_wildcards

FILE = ".dockerignore"

_FEW = 2
"""Wildcards of any length that a regular expression is the fastest for."""

Matched = tuple[bool, ...]
"""Of a directory: which of the patterns matched it."""


def candidates(dockerfile: str) -> tuple[str, str]:
    """Paths in the context; the first that exists counts alone."""
    return f"{dockerfile}{FILE}", FILE


class _Pattern(NamedTuple):
    text: str
    exception: bool
    matches: Callable[[str], object]
    """Of a whole path; true or false."""


class Ignore:
    """Nothing of it crosses the wire: what it leaves out is not sent."""

    def __init__(self, patterns: tuple[_Pattern, ...] = ()) -> None:
        self.patterns = patterns

    @classmethod
    def parse(cls, source: bytes | str, *, file: str = FILE) -> Self:
        """Raises InputError with file and line."""
        text = source.decode(errors="surrogateescape") if isinstance(source, bytes) else source
        patterns: list[_Pattern] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if line.startswith("#") or not line.strip():
                continue
            try:
                patterns.append(_pattern(line.strip()))
            except InputError as error:
                raise InputError(error.message, where=f"{file}:{number}") from error
        return cls(tuple(patterns))

    def without(self, *paths: str) -> Ignore:
        """The same, but never these: the Dockerfile and .dockerignore are always sent. They are no part of
        the build all the same, when `excludes` says so of them."""
        exceptions = tuple(
            _Pattern(text=path, exception=True, matches=path.__eq__) for path in paths if self.excludes(path)
        )
        return Ignore(self.patterns + exceptions)

    def excludes(self, path: str) -> bool:
        """Of a path relative to the context's top, without a slash at its ends."""
        matched: Matched = ()
        excluded = False
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            excluded, matched = self.look("/".join(parts[:end]), matched)
        return excluded

    def look(self, path: str, above: Matched = ()) -> tuple[bool, Matched]:
        """For a walk: whether it is excluded, and what `above` is for all that is in it."""
        excluded = False
        matched: list[bool] = []
        for number, pattern in enumerate(self.patterns):
            found = bool(above) and above[number]
            # One that would change nothing is not asked, and counts below as one that did not match.
            if not found and pattern.exception == excluded:
                found = bool(pattern.matches(path))
            matched.append(found)
            if found:
                excluded = not pattern.exception
        return excluded, tuple(matched)

    def keeps_below(self, directory: str) -> bool:
        """Whether some exception may match in an excluded directory, so that a walk must go on."""
        for pattern in self.patterns:
            if not pattern.exception:
                continue
            literal = _literal_beginning(pattern.text)
            if f"{pattern.text}/".startswith(f"{directory}/"):
                return True
            if literal != pattern.text and f"{directory}/".startswith(literal):
                return True
        return False


def _pattern(line: str) -> _Pattern:
    exception = line.startswith("!")
    text = line[1:].strip() if exception else line
    if not text:
        raise InputError("'!' alone excepts nothing")
    text = posixpath.normpath(text)
    if text.strip("/"):
        text = text.lstrip("/")
    elif exception:
        raise InputError("'!/' excepts nothing")
    return _Pattern(text=text, exception=exception, matches=_matcher(text))


def _matcher(pattern: str) -> Callable[[str], object]:
    rest = pattern.removeprefix("**")
    if rest != pattern and rest and not has_wildcards(rest):
        # `**x` is whatever ends in x, and `**/x` x itself too.
        itself = rest.removeprefix("/")
        return lambda path: path == itself or path.endswith(rest)
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if not pattern.startswith("**", at):
            part, at = element(pattern, at)
            parts.append(part)
            continue
        at += 2
        at += pattern.startswith("/", at)
        parts.append(ALL if at >= len(pattern) else DIRECTORIES)
    if sum(part in (STAR, ALL, DIRECTORIES) for part in parts) > _FEW:
        return Automaton(parts).matches
    return re.compile("".join(parts), re.DOTALL).fullmatch


def _literal_beginning(pattern: str) -> str:
    end = next((at for at, char in enumerate(pattern) if char in "*?[\\"), len(pattern))
    return pattern[:end]
