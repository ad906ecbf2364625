"""Executes a Go template over values: what `--format '{{.ID}}'` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hawse.format import syntax
from hawse.format.functions import FUNCTIONS, true
from hawse.format.syntax import Action, Branch, Chain, Jump, Literal, Node, Operand, Pipeline, Text
from hawse.format.values import MISSING, Entries, Function, Map, Row, Struct, text
from hawse_agent.errors import InputError


class Template:
    """Raises InputError for what cannot be read or executed."""

    def __init__(self, source: str) -> None:
        self._nodes = syntax.parse(source)
        self.fields = syntax.fields_used(self._nodes)
        """Names of all fields that it may ask for."""

    def execute(self, data: Any, functions: Mapping[str, Function] = FUNCTIONS) -> str:
        return "".join(_Execution(data, functions).run(self._nodes, data))


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Execution:
    def __init__(self, data: Any, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._variables: list[tuple[str, Any]] = [("$", data)]

    def run(self, nodes: Sequence[Node], dot: Any) -> Iterator[str]:
        for node in nodes:
            match node:
                case Text():
                    yield node.text
                case Action():
                    value = self._pipeline(node.pipeline, dot)
                    if not node.pipeline.variables:
                        yield text(value)
                case Branch(kind="range"):
                    yield from self._range(node, dot)
                case Branch():
                    yield from self._choose(node, dot)
                case Jump():
                    raise _Break if node.kind == "break" else _Continue

    def _choose(self, node: Branch, dot: Any) -> Iterator[str]:
        mark = len(self._variables)
        value = self._pipeline(node.pipeline, dot)
        if true(value):
            yield from self.run(node.body, value if node.kind == "with" else dot)
        else:
            yield from self.run(node.otherwise, dot)
        del self._variables[mark:]

    def _range(self, node: Branch, dot: Any) -> Iterator[str]:
        over = self._evaluate(node.pipeline, dot)
        entries: list[tuple[Any, Any]]
        match over:
            case Struct() | Row() | bool() | float() | str():
                raise InputError(f"template: range can't iterate over {text(over)}")
            case dict():
                entries = sorted(over.items())
            case list():
                entries = list(enumerate(over))
            case int():
                entries = [(number, number) for number in range(over)]
            case _:
                entries = []
        mark = len(self._variables)
        for key, value in entries:
            names = node.pipeline.variables
            given = (value,) if len(names) == 1 else (key, value)
            for name, each in zip(names, given, strict=False):
                self._assign(name, each, declares=node.pipeline.declares)
            try:
                yield from self.run(node.body, value)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self._variables[mark:]
        if not entries:
            yield from self.run(node.otherwise, dot)

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value = self._evaluate(pipeline, dot)
        for name in pipeline.variables:
            self._assign(name, value, declares=pipeline.declares)
        return value

    def _evaluate(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = None
        for number, command in enumerate(pipeline.commands):
            value = self._command(command, dot, (value,) if number else ())
        return value

    def _command(self, command: tuple[Operand, ...], dot: Any, last: tuple[Any, ...]) -> Any:
        head, rest = command[0], command[1:]
        if isinstance(head, syntax.Function):
            if head.name in ("and", "or"):
                return self._lazily(head.name, rest, dot, last)
            arguments = [*(self._operand(operand, dot) for operand in rest), *last]
            function = self._functions.get(head.name)
            if function is None:
                raise InputError(f'template: function "{head.name}" not defined')
            return _called(head.name, function, arguments)
        if isinstance(head, Chain) and head.fields and (rest or last):
            owner = self._chain(Chain(base=head.base, fields=head.fields[:-1]), dot)
            method = owner.get(head.fields[-1]) if isinstance(owner, dict) else None
            if callable(method):
                arguments = [*(self._operand(operand, dot) for operand in rest), *last]
                return _called(head.fields[-1], method, arguments)
        if isinstance(head, Literal) and head.value is None:
            raise InputError("template: nil is not a command")
        if rest or last:
            raise InputError(f"template: can't give an argument to non-function {_source(head)}")
        return self._operand(head, dot)

    def _lazily(self, name: str, operands: Sequence[Operand], dot: Any, last: tuple[Any, ...]) -> Any:
        """The first operand that decides; the others are not evaluated."""
        value: Any = MISSING
        for operand in operands:
            value = self._operand(operand, dot)
            if true(value) == (name == "or"):
                return value
        if not operands and not last:
            raise InputError(f"template: wrong number of args for {name}: want at least 1 got 0")
        return last[0] if last else value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        match operand:
            case Literal():
                return operand.value
            case Chain():
                return self._chain(operand, dot)
            case _:
                return self._command((operand,), dot, ())

    def _chain(self, chain: Chain, dot: Any) -> Any:
        match chain.base:
            case None:
                value = dot
            case str():
                value = self._variable(chain.base)
            case _:
                value = self._pipeline(chain.base, dot)
        for field in chain.fields:
            value = _field(value, field)
        return value

    def _variable(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise InputError(f"template: undefined variable {name!r}")

    def _assign(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        for number in range(len(self._variables) - 1, -1, -1):
            if self._variables[number][0] == name:
                self._variables[number] = (name, value)
                return
        raise InputError(f"template: undefined variable {name!r}")


def _field(value: Any, name: str) -> Any:
    match value:
        case Row():
            if name not in value:
                known = ", ".join(value)
                raise InputError(f"template: there is no field {name}", hint=f"there are: {known}")
            found = value[name]
            return _called(name, found, []) if callable(found) else found
        case Struct() | Entries():
            found = value.field(name) if isinstance(value, Struct) else value.get(name, MISSING)
            if found is MISSING and name not in value:
                raise InputError(f'template: map has no entry for key "{name}"')
            return found
        case Map() | dict():
            return value.get(name, MISSING)
        case None:
            raise InputError(f'template: nil data; no entry for key "{name}"')
    if value is MISSING:
        return MISSING
    raise InputError(f"template: can't evaluate field {name} in {text(value)}")


def _called(name: str, function: Function, arguments: Sequence[Any]) -> Any:
    try:
        return function(*arguments)
    except (TypeError, AttributeError) as error:
        shown = " ".join(map(text, arguments))
        raise InputError(f"template: {name} cannot be called with: {shown or 'nothing'}") from error


def _source(operand: Operand) -> str:
    match operand:
        case Chain(fields=fields):
            return "." + ".".join(fields)
        case Literal(value=value):
            return text(value)
        case syntax.Function(name=name):
            return name
