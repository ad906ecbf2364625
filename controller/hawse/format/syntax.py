"""The syntax of Go's text/template: text → nodes. Raises InputError, and evaluates nothing.

`define`, `template` and `block` are refused by name: nobody has a second template to name in an option.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hawse_agent.errors import InputError, NotSupported


@dataclass(frozen=True, kw_only=True)
class Literal:
    value: Any


@dataclass(frozen=True, kw_only=True)
class Chain:
    """`.A.B`, `$x.A`, `(…).A`: `base` is None for the dot, a name for a variable."""

    base: str | Pipeline | None
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Function:
    name: str


Operand = Literal | Chain | Function


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Commands, each with its arguments; the value of one is the last argument of the next."""

    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    text: str


@dataclass(frozen=True, kw_only=True)
class Action:
    pipeline: Pipeline


@dataclass(frozen=True, kw_only=True)
class Branch:
    """`if`, `with`, `range`."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True)
class Jump:
    """`break`, `continue`."""

    kind: str


Node = Text | Action | Branch | Jump

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<character>'(?:[^'\\\n]|\\.)+')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<variable>\$\w*)
    |(?P<dot>\.)
    |(?P<name>[^\W\d]\w*)
    |(?P<mark>:=|[|(),=])""",
    re.VERBOSE,
)
_CONSTANTS = {"true": True, "false": False, "nil": None}
_WORDS = frozenset({"if", "else", "end", "range", "with", "break", "continue", "define", "template", "block"})


@dataclass(frozen=True, kw_only=True)
class Token:
    kind: str
    text: str


def parse(source: str) -> tuple[Node, ...]:
    reader = _Reader(_pieces(source))
    nodes, end = reader.block(())
    assert end is None
    return nodes


def fields_used(nodes: Sequence[Node]) -> set[str]:
    """Names of all fields that a template may ask for; "." where it takes all of them."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, Action | Branch):
            found |= _in_pipeline(node.pipeline)
        if isinstance(node, Branch):
            found |= fields_used(node.body) | fields_used(node.otherwise)
    return found


def _in_pipeline(pipeline: Pipeline) -> set[str]:
    found: set[str] = set()
    for operand in (operand for command in pipeline.commands for operand in command):
        if isinstance(operand, Chain):
            found.update(operand.fields or (".",) if operand.base is None else operand.fields)
            if isinstance(operand.base, Pipeline):
                found |= _in_pipeline(operand.base)
    return found


def _bad(message: str) -> InputError:
    return InputError(f"template: {message}")


def _pieces(source: str) -> Iterator[str | list[Token]]:
    """Text, and the tokens of actions; spaces around `{{-` and `-}}` are gone, and comments."""
    rest, trim = source, False
    while True:
        before, opened, rest = rest.partition("{{")
        before = before.lstrip() if trim else before
        left = opened and re.match(r"-\s", rest) is not None
        yield before.rstrip() if left else before
        if not opened:
            return
        rest = rest[1:] if left else rest
        if comment := re.match(r"\s*/\*(?s:.*?)\*/(\s*-)?\s*\}\}", rest):
            trim, rest = bool(comment[1]), rest[comment.end() :]
            continue
        tokens: list[Token] = []
        while True:
            if close := re.match(r"(\s-)?\s*\}\}", rest):
                trim, rest = bool(close[1]), rest[close.end() :]
                break
            found = _TOKEN.match(rest)
            if found is None:
                raise _bad(f"unexpected {rest[:1]!r} in an action" if rest else "unclosed action")
            tokens.append(Token(kind=found.lastgroup or "", text=found[0]))
            rest = rest[found.end() :]
        yield tokens


class _Reader:
    def __init__(self, pieces: Iterator[str | list[Token]]) -> None:
        self._pieces = pieces
        self._loops = 0

    def block(self, ends: tuple[str, ...]) -> tuple[tuple[Node, ...], _Action | None]:
        """Nodes up to one of `ends`, which is given back as well."""
        nodes: list[Node] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                if piece:
                    nodes.append(Text(text=piece))
                continue
            action = _Action(piece)
            word = action.word()
            if word in ends:
                return tuple(nodes), action
            nodes.append(self._node(action, word))
        if ends:
            raise _bad("unexpected end: an `end` is missing")
        return tuple(nodes), None

    def _node(self, action: _Action, word: str) -> Node:
        match word:
            case "if" | "with" | "range":
                return self._branch(action, word)
            case "break" | "continue":
                if not self._loops:
                    raise _bad(f"{{{{{word}}}}} outside of range")
                action.finish()
                return Jump(kind=word)
            case "define" | "template" | "block":
                raise NotSupported(f"template: {word} is not supported: one template is all there is")
            case "end" | "else":
                raise _bad(f"unexpected {{{{{word}}}}}")
        return Action(pipeline=action.pipeline())

    def _branch(self, action: _Action, kind: str) -> Branch:
        pipeline = action.pipeline(most=2 if kind == "range" else 1)
        self._loops += kind == "range"
        body, end = self.block(("end", "else"))
        self._loops -= kind == "range"
        assert end is not None
        otherwise: tuple[Node, ...] = ()
        if end.was == "else":
            again = end.word()
            if again in ("if", "with") and again == kind:
                otherwise = (self._branch(end, again),)
                return Branch(kind=kind, pipeline=pipeline, body=body, otherwise=otherwise)
            end.finish()
            otherwise, end = self.block(("end",))
            assert end is not None
        end.finish()
        return Branch(kind=kind, pipeline=pipeline, body=body, otherwise=otherwise)


class _Action:
    """The tokens of one `{{…}}`, read from left to right."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self.was = ""
        """The keyword that `word` read last."""

    def word(self) -> str:
        """A keyword at this place, or ""."""
        self._skip()
        token = self._peek()
        if token is None or token.kind != "name" or token.text not in _WORDS:
            return ""
        self._at += 1
        self.was = token.text
        return token.text

    def finish(self) -> None:
        self._skip()
        if (token := self._peek()) is not None:
            raise _bad(f"unexpected {token.text!r}")

    def pipeline(self, most: int = 1, closing: bool = False) -> Pipeline:
        variables, declares = self._variables(most)
        commands = [self._command()]
        while self._mark("|"):
            commands.append(self._command())
        if not closing:
            self.finish()
        for command in commands[1:]:
            if not isinstance(command[0], Function | Chain):
                raise _bad("non executable command in a pipeline")
        return Pipeline(commands=tuple(commands), variables=variables, declares=declares)

    def _variables(self, most: int) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =`, `$i, $x :=` in front of a pipeline."""
        start, names = self._at, []
        self._skip()
        while (token := self._peek()) is not None and token.kind == "variable":
            names.append(token.text)
            self._at += 1
            if (declares := self._mark(":=")) or self._mark("="):
                if len(names) > most:
                    raise _bad("too many variables")
                return tuple(names), declares
            if not self._mark(","):
                break
            self._skip()
        self._at = start
        return (), False

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while True:
            spaced = self._skip()
            token = self._peek()
            if token is None or (token.kind == "mark" and token.text in "|)"):
                break
            if operands and not spaced:
                raise _bad(f"unexpected {token.text!r} in an operand")
            operands.append(self._operand())
        if not operands:
            raise _bad("missing value for a command")
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._tokens[self._at]
        self._at += 1
        match token.kind:
            case "string":
                return Literal(value=_unquoted(token.text))
            case "raw":
                return Literal(value=token.text[1:-1])
            case "character":
                return Literal(value=ord(_unquoted(f'"{token.text[1:-1]}"')))
            case "number":
                return Literal(value=_number(token.text))
            case "name" if token.text in _CONSTANTS:
                return Literal(value=_CONSTANTS[token.text])
            case "name":
                return Function(name=token.text)
            case "dot":
                return Chain(base=None, fields=())
            case "field":
                self._at -= 1
                return Chain(base=None, fields=self._fields())
            case "variable":
                return Chain(base=token.text, fields=self._fields())
            case "mark" if token.text == "(":
                inner = self.pipeline(closing=True)
                if not self._mark(")"):
                    raise _bad("unclosed left parenthesis")
                return Chain(base=inner, fields=self._fields())
        raise _bad(f"unexpected {token.text!r}")

    def _fields(self) -> tuple[str, ...]:
        found = []
        while (token := self._peek()) is not None and token.kind == "field":
            found.append(token.text[1:])
            self._at += 1
        return tuple(found)

    def _mark(self, text: str) -> bool:
        start = self._at
        self._skip()
        token = self._peek()
        if token is not None and token.kind == "mark" and token.text == text:
            self._at += 1
            return True
        self._at = start
        return False

    def _skip(self) -> bool:
        start = self._at
        while (token := self._peek()) is not None and token.kind == "space":
            self._at += 1
        return self._at > start

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None


def _unquoted(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        raise _bad(f"bad string {text}") from None


def _number(text: str) -> int | float:
    try:
        return int(text, 0) if not re.fullmatch(r"[+-]?0\d+", text) else int(text, 8)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise _bad(f"bad number {text}") from None
