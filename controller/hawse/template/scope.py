"""The variables of one host, and everything that is rendered with them.

A variable may refer to others; it is rendered when it is first asked for, and only then. One that cannot be
rendered because a name in it is undefined is itself undefined, so that `default` works through it.

    Scope.render      a written value, natively: `{{ ports }}` gives the list, "http://{{ host }}" text
    Scope.evaluate    a bare expression: `result.rc == 0`
    Scope.condition   `when`: a bare expression, or a list of them, that must come out as yes or no
    render_text       a whole file

Every failure is an InputError with the file and line of the text that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hawse.template import environment as jinja
from hawse.template.environment import Lazy, Undefined
from hawse.variables import Variable, Variables, data
from hawse.yamlmarks import Marks, Unsafe
from hawse_agent.errors import InputError

T = TypeVar("T")


class Omit:
    """The value of `omit`: an argument with it is left out."""

    def __repr__(self) -> str:
        return "(omitted)"


OMIT = Omit()


class NotYet(Exception):
    """A name whose value is still to come; whoever renders waits for it and renders again."""


class Promise:
    """The value of a variable that is still to come; using it raises `NotYet` of the caller's making."""

    def __init__(self, make: Callable[[], NotYet]) -> None:
        self.make = make


class UndefinedVariable(InputError):
    """A template uses a name that nothing defines."""


class Scope(Mapping[str, Any]):
    """Reads as a mapping from names to rendered values. Of one thread."""

    def __init__(
        self,
        variables: Variables,
        *,
        search: tuple[Path, ...] = (),
        missing: Callable[[str], None] | None = None,
    ) -> None:
        """`search` are the directories in which includes and file lookups are searched.

        `missing` hears of each name that is not there before it counts as undefined; it may raise `NotYet`.
        """
        self._variables = variables
        self._search = search
        self._missing = missing
        self._values: dict[str, Any] = {}
        self._open: list[str] = []
        self._names: dict[str, Any] | None = None

    def child(self, more: Variables) -> Scope:
        """The same scope with some variables more, or others under the same names."""
        return Scope({**self._variables, **more}, search=self._search, missing=self._missing)

    def searching(self, *directories: Path) -> Scope:
        """The same variables, with files searched in these directories first."""
        rest = tuple(directory for directory in self._search if directory not in directories)
        return Scope(self._variables, search=directories + rest, missing=self._missing)

    @property
    def search(self) -> tuple[Path, ...]:
        return self._search

    def variable(self, name: str) -> Variable | None:
        """The variable as it is written."""
        return self._variables.get(name)

    # a mapping of values

    def __getitem__(self, name: str) -> Any:
        value = self._resolve(name)
        if isinstance(value, Undefined):
            raise UndefinedVariable(jinja.why(value), where=self._variables[name].where())
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    # rendering

    def render(self, written: Variable) -> Any:
        """The value with every template in it rendered; entries that come out as `omit` are left out."""
        if not written.templated:
            return written.value
        return self._render(written.value, written)

    def text(self, text: str, file: str) -> str:
        """A whole template file."""
        written = Variable(text, Marks(file=file, lines={}))
        pieces = self._try(
            written, lambda: jinja.run(jinja.compiled(self._search, text), self._context_names())
        )
        return jinja.joined(pieces)

    def evaluate(self, written: Variable) -> Any:
        """The value of a bare expression; what is not text is its own value."""
        expression = written.value
        if not isinstance(expression, str):
            return expression
        if "{{" in expression or "{%" in expression:
            return self._render(expression, written)
        return self._try(
            written,
            lambda: jinja.run_expression(
                jinja.compiled_expression(self._search, expression), self._context_names()
            ),
        )

    def condition(self, written: Variable) -> bool:
        """Whether all of the conditions hold. Text is not an answer: "false" would count as true."""
        if isinstance(written.value, list):
            return all(self.condition(_at(written, index, part)) for index, part in enumerate(written.value))
        value = self.evaluate(written)
        if isinstance(value, str):
            raise InputError(
                "the condition comes out as text, not as true or false",
                where=written.where(),
                hint="write `x | bool` for a flag, `x | length > 0` for text that may be empty",
            )
        return bool(value)

    def _render(self, value: Any, written: Variable) -> Any:
        if isinstance(value, str):
            return self._render_text(value, written) if _is_template(value) else str(value)
        if isinstance(value, Mapping):
            rendered = {key: self._render(item, _at(written, key, item)) for key, item in value.items()}
            return {key: item for key, item in rendered.items() if item is not OMIT}
        if isinstance(value, list | tuple):
            items = [self._render(item, _at(written, index, item)) for index, item in enumerate(value)]
            return [item for item in items if item is not OMIT]
        return value

    def _render_text(self, text: str, written: Variable) -> Any:
        pieces = self._try(
            written, lambda: jinja.run(jinja.compiled(self._search, text), self._context_names())
        )
        return pieces[0] if len(pieces) == 1 else jinja.joined(pieces)

    def _try(self, written: Variable, work: Callable[[], T]) -> T:
        """Run a template; tell failures with the place of the text."""
        try:
            return work()
        except Exception as error:
            self._fail(error, written)

    def _fail(self, error: Exception, written: Variable) -> NoReturn:
        if isinstance(error, NotYet) or (isinstance(error, InputError) and error.where):
            raise error
        message, line, file, hint = jinja.describe(error, self._variables)
        if not file and written.marks.file:
            file, line = written.marks.file, written.marks.text_line(written.place, line)
        where = f"{file}:{line}" if file else ""
        if isinstance(error, UndefinedVariable | jinja.UndefinedFailure):
            raise UndefinedVariable(message, where=where, hint=hint) from None
        kind = type(error) if isinstance(error, InputError) else InputError
        raise kind(message, where=where, hint=hint) from error

    # names, as templates see them

    def _context_names(self) -> dict[str, Any]:
        if self._names is None:
            self._names = {
                **jinja.environment(self._search).globals,
                "omit": OMIT,
                "vars": View(self),
                jinja.MISSING: self._missing,
                **{
                    name: Lazy(self._resolve, name)
                    if variable.templated or isinstance(variable.value, Promise)
                    else variable.value
                    for name, variable in self._variables.items()
                },
            }
        return self._names

    def _resolve(self, name: str) -> Any:
        """The rendered value, or an Undefined that tells why there is none."""
        if name in self._values:
            return self._values[name]
        variable = self._variables[name]
        if isinstance(variable.value, Promise):
            raise variable.value.make()
        if name in self._open:
            chain = " → ".join([*self._open[self._open.index(name) :], name])
            raise InputError(f"variable {name!r} refers to itself: {chain}", where=variable.where())
        self._open.append(name)
        try:
            value = self.render(variable)
        except UndefinedVariable as error:
            reason = error.message.removeprefix(f"{error.where}: ")
            at = f", at {error.where}" if error.where else ""
            nested = reason if " (needed by " in reason else f"{reason} (needed by {name!r}{at})"
            return Undefined(hint=nested, name=name)
        finally:
            self._open.pop()
        self._values[name] = value
        return value


class View(Mapping[str, Any]):
    """A scope as templates see it, `vars` and `hostvars[host]`: a mapping and nothing else."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __getitem__(self, name: str) -> Any:
        if name not in self._scope and self._scope._missing is not None:
            self._scope._missing(name)
        return self._scope._resolve(name)

    def __contains__(self, name: object) -> bool:
        return name in self._scope

    def __iter__(self) -> Iterator[str]:
        return iter(self._scope)

    def __len__(self) -> int:
        return len(self._scope)


def check(written: Variable, *, expression: bool = False) -> None:
    """Raises InputError with file and line when a value holds a template that cannot be read.

    With `expression` text is a bare expression, and so is each text of a list.
    """
    value = written.value
    if isinstance(value, str):
        bare = expression and "{{" not in value and "{%" not in value
        if bare or _is_template(value):
            blank = Scope({})
            read = jinja.compiled_expression if bare else jinja.compiled
            blank._try(written, lambda: read((), value))
    elif isinstance(value, Mapping):
        for key in value:
            check(_at(written, key, value[key]))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check(_at(written, index, item), expression=expression)


def render_text(text: str, file: str, variables: Mapping[str, Any]) -> str:
    """The template `text`, which stands in `file`, rendered. A plain mapping holds values, not templates.

    Includes and file lookups are searched beside the file first. Raises InputError with file and line.
    """
    scope = variables if isinstance(variables, Scope) else Scope({k: data(v) for k, v in variables.items()})
    return scope.searching(Path(file).parent).text(text, file)


def _is_template(text: str) -> bool:
    return ("{{" in text or "{%" in text or "{#" in text) and not isinstance(text, Unsafe)


def _at(written: Variable, key: str | int, value: Any) -> Variable:
    """A part of a written value, as a written value."""
    return Variable(value, written.marks, (*written.place, key))
