"""`$NAME` and `${NAME…}` in an instruction's words, and the quotes and escapes around them.

    $NAME ${NAME}                   its value, nothing if there is none
    ${NAME:-word} ${NAME-word}      word if it is unset (or, with the colon, empty)
    ${NAME:+word} ${NAME+word}      word if it is set
    ${NAME:?word} ${NAME?word}      an error that says word, if it is unset
    ${NAME#p} ${NAME##p}            without the shortest, longest beginning that matches p
    ${NAME%p} ${NAME%%p}            without such an end
    ${NAME/p/word} ${NAME//p/word}  the first match, all matches of p replaced

`p` knows `*` and `?`. Nothing is replaced in single quotes. Which instructions are expanded, and with which
variables, is `scope.py`'s. All errors are InputError without a place, which the caller has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hawse_agent.errors import InputError
from hawse_agent.spec.globs import in_turn

_STAR = ".*"
_SEARCHED = 1 << 14
_SHOWN = 1000

LONGEST = 1 << 20
"""Characters that variables may bring into one word, or into an environment. The kernel starts nothing with
much more; without a limit `ENV a=$a$a`, some dozen times, is all of the machine's memory."""

Variables = Mapping[str, str]


def expand(text: str, variables: Variables, escape: str = "\\") -> str:
    """One word, whatever blanks it has."""
    return _Expansion(text, variables, escape).run()[0]


def expand_words(text: str, variables: Variables, escape: str = "\\") -> list[str]:
    """Split at blanks that are not quoted, those of values among them, as EXPOSE does."""
    return _Expansion(text, variables, escape).run()[1]


def expand_heredoc(text: str, variables: Variables) -> str:
    """Content of a heredoc: quotes mean nothing there, and `\\` always escapes."""
    return _Expansion(text, variables, "\\", quotes=False).run()[0]


def names(text: str, escape: str = "\\") -> set[str]:
    """Of the variables that it asks for."""
    asked = _Asked()
    try:
        _Expansion(text, asked, escape).run()
    except InputError:
        pass  # its expansion will say it, with real values
    return asked.names


class _Asked(dict[str, str]):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.add(key)
        return default


class _Words:
    """Text that grows, and its words."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._words: list[str] = []
        self._word: list[str] = []

    def add(self, text: str) -> None:
        self._text.append(text)
        for number, part in enumerate(re.split(r"\s+", text)):
            if number:
                self._end_word()
            self._word.append(part)

    def add_quoted(self, text: str) -> None:
        self._text.append(text)
        self._word.append(text)

    def _end_word(self) -> None:
        word = "".join(self._word)
        self._word = []
        if word:
            self._words.append(word)

    def finish(self) -> tuple[str, list[str]]:
        self._end_word()
        return "".join(self._text), self._words


class _Expansion:
    def __init__(self, text: str, variables: Variables, escape: str, *, quotes: bool = True) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._brought = 0

    def run(self) -> tuple[str, list[str]]:
        try:
            return self._until("")
        except InputError as error:
            text = self._text if len(self._text) <= _SHOWN else f"{self._text[:_SHOWN]}…"
            raise InputError(f"{error.message}, in {text!r}") from error

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _until(self, stop: str, *, keep_escapes: bool = False) -> tuple[str, list[str]]:
        """Up to `stop`, which is taken; to the end if it is empty."""
        found = _Words()
        special = f"$'\"{self._escape}{stop}"
        while char := self._peek():
            if char == stop:
                self._at += 1
                return found.finish()
            if char == "$":
                found.add(self._dollar())
            elif self._quotes and char == "'":
                found.add_quoted(self._single())
            elif self._quotes and char == '"':
                found.add_quoted(self._double(keep_escapes=keep_escapes))
            elif char == self._escape:
                self._at += 1
                escaped = self._next()
                if escaped or keep_escapes:
                    found.add_quoted((char if keep_escapes else "") + escaped)
            else:
                start = self._at
                self._at += 1
                while (char := self._peek()) and char not in special:
                    self._at += 1
                found.add(self._text[start : self._at])
        if stop:
            raise InputError(f"missing {stop}")
        return found.finish()

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise InputError("a single quote is not closed")
        inner = self._text[self._at + 1 : end]
        self._at = end + 1
        return inner

    def _double(self, *, keep_escapes: bool) -> str:
        self._at += 1
        inner: list[str] = []
        while char := self._peek():
            if char == '"':
                self._at += 1
                return "".join(inner)
            if char == "$":
                inner.append(self._dollar())
                continue
            self._at += 1
            if char == self._escape:
                following = self._peek()
                if not following:
                    break
                if following in ('"', "$", self._escape):
                    self._at += 1
                    char = char + following if keep_escapes else following
            inner.append(char)
        raise InputError("a double quote is not closed")

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            return self._value(name) or "" if name else "$"
        self._at += 1
        if self._peek() in ("", "{", "}", ":"):
            raise InputError("bad substitution" if self._peek() else "missing }")
        name = self._name()
        operator = self._next()
        if operator == "}":
            return self._value(name) or ""
        if operator == "/":
            return self._replaced(name)
        empty_is_unset = operator == ":"
        if empty_is_unset:
            operator = self._next()
        if operator in ("#", "%") and not empty_is_unset:
            return self._trimmed(name, operator)
        if not operator:
            raise InputError("missing }")
        if operator not in ("-", "+", "?"):
            raise InputError(f"${{{name}{':' if empty_is_unset else ''}{operator}: unknown modifier")
        word, _ = self._until("}")
        value = self._value(name)
        missing = value is None or (empty_is_unset and not value)
        match operator:
            case "-":
                return word if missing else value or ""
            case "+":
                return "" if missing else word
            case _:
                if missing:
                    raise InputError(f"{name}: {word or ('is unset' if value is None else 'is empty')}")
                return value or ""

    def _trimmed(self, name: str, operator: str) -> str:
        pattern, _ = self._until("}", keep_escapes=True)
        longest = pattern.startswith(operator)
        value = self._value(name) or ""
        parts = _parts(pattern[longest:])
        if operator == "%":
            parts, value = parts[::-1], value[::-1]
        found = re.compile(in_turn(parts, _STAR, _STAR if longest else f"{_STAR}?")).match(value)
        left = value[found.end() :] if found else value
        return left[::-1] if operator == "%" else left

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        self._at += every
        pattern, _ = self._until("/", keep_escapes=True)
        replacement, _ = self._until("}", keep_escapes=True)
        value = self._value(name) or ""
        parts = _parts(pattern)
        if _STAR in parts and len(value) > _SEARCHED:
            raise InputError(
                f"${{{name}/…}}: the value is longer than the {_SEARCHED} characters that * is for"
            )
        found: list[str] = []
        end = -1
        for match in re.compile(in_turn(parts, _STAR)).finditer(value):
            if match.start() == match.end() == end:
                continue  # nothing, right behind a match, is none: in Go, and in shells
            self._bring(replacement)
            found += [value[max(end, 0) : match.start()], replacement]
            end = match.end()
            if not every:
                break
        return "".join([*found, value[max(end, 0) :]])

    def _name(self) -> str:
        start = self._at
        first = self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in "@*#?-$!":
            self._at += 1
        else:
            while self._peek().isalnum() or self._peek() == "_":
                self._at += 1
        return self._text[start : self._at]

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        self._bring(value or "")
        return value

    def _bring(self, value: str) -> None:
        self._brought += len(value)
        if self._brought > LONGEST:
            raise InputError(f"its variables make it longer than {LONGEST} characters")


def _parts(text: str) -> list[str]:
    """Regular expressions of a shell's pattern without brackets, one a character or star. `.` is not the end
    of a line, as in Docker."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            parts.append(_STAR)
        elif char == "?":
            parts.append(".")
        elif char == "\\":
            following = text[at : at + 1]
            if following in ("}", "/") and following:
                continue  # escaped from ${…}, not from the pattern
            if following not in ("*", "?", "\\") or not following:
                raise InputError(f"invalid escape \\{following} in the pattern {text}")
            parts.append(re.escape(following))
            at += 1
        else:
            parts.append(re.escape(char))
    return parts
