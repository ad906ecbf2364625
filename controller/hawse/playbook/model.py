"""Playbooks as they are written: plays, tasks, handlers. Everything that can be refused without a host is.

Unknown keywords, modules and argument names, wrong types and templates that cannot be read are errors with
file and line, before any connection. Keywords that only Ansible has are refused by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hawse import yamlmarks
from hawse.playbook.modules import MODULES, Module, check_names, free_form, module_named
from hawse.template import check
from hawse.variables import Variable, written
from hawse.yamlmarks import Marks, Place
from hawse_agent.errors import InputError, NotSupported


@dataclass(frozen=True, kw_only=True)
class LoopControl:
    loop_var: str = "item"
    index_var: str = ""
    label: Variable | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Values that may hold templates are `Variable`s: rendered for each host, told with their line."""

    id: str
    name: str
    module: Module
    args: Variable
    """A mapping, its names already those of the module's arguments."""
    when: tuple[Variable, ...] = ()
    loop: Variable | None = None
    loop_control: LoopControl = LoopControl()
    register: str = ""
    notify: Variable | None = None
    listen: tuple[str, ...] = ()
    """Of a handler: further names that it answers to."""
    tags: frozenset[str] = frozenset()
    become: Variable | None = None
    become_user: Variable | None = None
    environment: tuple[Variable, ...] = ()
    """The play's, then the task's."""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    ignore_errors: Variable | None = None
    no_log: Variable | None = None
    changed_when: Variable | None = None
    failed_when: Variable | None = None
    marks: Marks
    place: Place

    @property
    def where(self) -> str:
        return self.marks.where(self.place)


@dataclass(frozen=True, kw_only=True)
class Play:
    name: str
    hosts: Variable
    variables: Mapping[str, Variable] = field(default_factory=dict)
    vars_files: Variable | None = None
    gather_facts: bool | None = None
    """None gathers facts when a template first uses one."""
    serial: Variable | None = None
    tasks: tuple[Task, ...] = ()
    handlers: tuple[Task, ...] = ()
    max_fail_percentage: Variable | None = None
    any_errors_fatal: bool = False
    file: Path
    marks: Marks
    place: Place

    @property
    def where(self) -> str:
        return self.marks.where(self.place)


def load(path: Path) -> tuple[Play, ...]:
    """The plays of a file. Raises InputError with file and line for the first thing that is wrong."""
    document = yamlmarks.load_file(path)
    if document.value is None:
        raise InputError("the playbook is empty", where=str(path), hint="expected a list of plays")
    if not isinstance(document.value, list):
        raise document.marks.error((), "expected a list of plays", hint="begin each play with `- hosts: …`")
    return tuple(
        _Play(path, document.marks, play, (index,)).read() for index, play in enumerate(document.value)
    )


_BOTH = ("name", "vars", "tags", "become", "become_user", "environment", "any_errors_fatal", "no_log")
_PLAY = (
    *_BOTH, "hosts", "vars_files", "gather_facts", "serial", "tasks", "handlers", "max_fail_percentage",
    "ignore_errors",
)  # fmt: skip
_TASK = (
    *(key for key in _BOTH if key != "any_errors_fatal"), "when", "loop", "loop_control", "register",
    "notify", "ignore_errors", "changed_when", "failed_when", "args",
)  # fmt: skip
_HANDLER = (*_TASK, "listen")
_ANSIBLE = {
    "roles", "pre_tasks", "post_tasks", "vars_prompt", "strategy", "order", "force_handlers", "gather_subset",
    "gather_timeout", "fact_path", "module_defaults", "collections", "remote_user", "port", "connection",
    "throttle", "timeout", "debugger", "run_once", "ignore_unreachable", "check_mode", "diff",
    "become_method", "become_flags", "become_exe", "block", "rescue", "always", "until", "retries", "delay",
    "async", "poll", "delegate_to", "delegate_facts", "action", "local_action", "import_playbook",
    "import_tasks", "include_tasks", "import_role", "include_role", "include_vars", "include", "meta",
}  # fmt: skip
_HINTS = {
    "connection": "set ansible_connection in the inventory",
    "remote_user": "set ansible_user in the inventory",
    "port": "set ansible_port in the inventory",
    "become_method": "sudo is the only method",
}


class _Reader:
    """One mapping of a playbook, with typed access to its keys."""

    def __init__(self, marks: Marks, value: Any, place: Place, what: str) -> None:
        self.marks = marks
        self.place = place
        if not isinstance(value, dict):
            raise marks.error(place, f"expected {what}: a mapping")
        self.value: dict[Any, Any] = value

    def error(self, key: str, message: str, *, hint: str = "") -> InputError:
        return self.marks.error((*self.place, key), message, hint=hint)

    def unknown(self, key: Any, known: tuple[str, ...], what: str) -> InputError:
        where = self.marks.where((*self.place, key))
        if key in _ANSIBLE or str(key).startswith("with_"):
            hint = _HINTS.get(key, "use `loop`" if str(key).startswith("with_") else "")
            return NotSupported(f"{key!r} of {what} is not supported by Hawse", where=where, hint=hint)
        close = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
        return InputError(f"unknown keyword {key!r} of {what}", where=where, hint=hint)

    def variable(self, key: str, *, expression: bool = False) -> Variable | None:
        """A value that may hold templates; None when it is not given."""
        if self.value.get(key) is None:
            return None
        found = Variable(self.value[key], self.marks, (*self.place, key))
        check(found, expression=expression)
        return found

    def text(self, key: str) -> str:
        value = self.value.get(key)
        if value is None:
            return ""
        if isinstance(value, dict | list | bool):
            raise self.error(key, f"{key} is a text")
        check(Variable(str(value), self.marks, (*self.place, key)))
        return str(value)

    def flag(self, key: str) -> bool | None:
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, f"{key} is true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """One text, or a list of texts; a text with commas is several."""
        value = self.value.get(key)
        items = value if isinstance(value, list) else [] if value is None else str(value).split(",")
        if isinstance(value, dict) or any(isinstance(item, dict | list) for item in items):
            raise self.error(key, f"{key} is a name or a list of names")
        return tuple(str(item).strip() for item in items if str(item).strip())

    def variables(self, key: str) -> dict[str, Variable]:
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(key, f"{key} is a mapping from names to values")
        found = written(value, self.marks, (*self.place, key))
        for variable in found.values():
            check(variable)
        return found

    def environment(self, outer: tuple[Variable, ...] = ()) -> tuple[Variable, ...]:
        own = self.variable("environment")
        return outer if own is None else (*outer, own)

    def items(self, key: str) -> Iterator[tuple[Any, Place]]:
        value = self.value.get(key)
        if value is not None and not isinstance(value, list):
            raise self.error(key, f"{key} is a list")
        for index, item in enumerate(value or ()):
            yield item, (*self.place, key, index)


class _Play(_Reader):
    def __init__(self, file: Path, marks: Marks, value: Any, place: Place) -> None:
        super().__init__(marks, value, place, "a play")
        self._file = file

    def read(self) -> Play:
        for key in self.value:
            if key not in _PLAY:
                raise self.unknown(key, _PLAY, "a play")
        hosts = self.variable("hosts")
        if hosts is None:
            raise self.marks.error(self.place, "the play has no hosts", hint="write `hosts: all`")
        if not isinstance(hosts.value, str | list):
            raise self.error("hosts", "hosts is a pattern or a list of patterns")
        handlers = tuple(
            _Task(self, item, place, f"{self.place[0]}.h{place[-1]}", handler=True).read()
            for item, place in self.items("handlers")
        )
        tasks = tuple(
            _Task(self, item, place, f"{self.place[0]}.t{place[-1]}").read()
            for item, place in self.items("tasks")
        )
        self._check_notified(tasks + handlers, handlers)
        shown = hosts.value if isinstance(hosts.value, str) else ",".join(map(str, hosts.value))
        return Play(
            name=self.text("name") or shown,
            hosts=hosts,
            variables=self.variables("vars"),
            vars_files=self._vars_files(),
            gather_facts=self.flag("gather_facts"),
            serial=self._serial(),
            tasks=tasks,
            handlers=handlers,
            max_fail_percentage=self._percentage(),
            any_errors_fatal=bool(self.flag("any_errors_fatal")),
            file=self._file,
            marks=self.marks,
            place=self.place,
        )

    def _vars_files(self) -> Variable | None:
        found = self.variable("vars_files")
        if found is not None and not isinstance(found.value, str | list):
            raise self.error("vars_files", "vars_files is a list of files")
        return found

    def _serial(self) -> Variable | None:
        found = self.variable("serial")
        for step in () if found is None else found.value if isinstance(found.value, list) else [found.value]:
            text = str(step)
            if isinstance(step, bool) or not ("{{" in text or text.removesuffix("%").isdecimal()):
                raise self.error("serial", "serial is a number, a percentage such as 30%, or a list of these")
        return found

    def _percentage(self) -> Variable | None:
        found = self.variable("max_fail_percentage")
        if found is not None and "{{" not in str(found.value):
            try:
                percentage = float(str(found.value).removesuffix("%"))
            except ValueError:
                percentage = -1
            if isinstance(found.value, bool) or not 0 <= percentage <= 100:
                raise self.error("max_fail_percentage", "max_fail_percentage is a number from 0 to 100")
        return found

    def _check_notified(self, tasks: tuple[Task, ...], handlers: tuple[Task, ...]) -> None:
        """Every name that is notified has a handler; names with templates are checked when they are known."""
        known = [name for handler in handlers for name in (handler.name, *handler.listen)]
        for task in tasks:
            for name in notified_names(task.notify):
                if "{{" not in name and name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean {close[0]!r}?" if close else ""
                    where = task.marks.where((*task.place, "notify"))
                    raise InputError(f"no handler is named {name!r}", where=where, hint=hint)


def notified_names(notify: Variable | None) -> list[str]:
    if notify is None:
        return []
    return [str(name) for name in (notify.value if isinstance(notify.value, list) else [notify.value])]


class _Task(_Reader):
    def __init__(self, play: _Play, value: Any, place: Place, item: str, *, handler: bool = False) -> None:
        super().__init__(play.marks, value, place, "a handler" if handler else "a task")
        self._play = play
        self._id = item
        self._known = _HANDLER if handler else _TASK
        self._what = "a handler" if handler else "a task"

    def read(self) -> Task:
        key, module = self._module()
        play = self._play
        inherited = {
            name: own if (own := self.variable(name)) is not None else play.variable(name)
            for name in ("become", "become_user", "ignore_errors", "no_log")
        }
        for name in ("become", "ignore_errors", "no_log"):
            self._flag_or_template(name)
        return Task(
            id=self._id,
            name=self.text("name") or key,
            module=module,
            args=self._arguments(key, module),
            when=self._when(),
            loop=self._loop(),
            loop_control=self._loop_control(),
            register=self._register(),
            notify=self.variable("notify"),
            listen=self.texts("listen"),
            tags=frozenset(self.texts("tags")) | frozenset(play.texts("tags")),
            become=inherited["become"],
            become_user=inherited["become_user"],
            environment=self.environment(play.environment()),
            variables=self.variables("vars"),
            ignore_errors=inherited["ignore_errors"],
            no_log=inherited["no_log"],
            changed_when=self.variable("changed_when", expression=True),
            failed_when=self.variable("failed_when", expression=True),
            marks=self.marks,
            place=self.place,
        )

    def _module(self) -> tuple[str, Module]:
        found = [key for key in self.value if key not in self._known and module_named(str(key)) is not None]
        strange = [key for key in self.value if key not in self._known and key not in found]
        if strange:
            raise self._strange(strange[0], has_module=bool(found))
        if not found:
            raise self.marks.error(self.place, f"{self._what} names no module")
        if len(found) > 1:
            raise self.error(found[1], f"{self._what} names two modules: {found[0]} and {found[1]}")
        module = module_named(found[0])
        assert module is not None
        return found[0], module

    def _strange(self, key: Any, *, has_module: bool) -> InputError:
        if has_module or key in _ANSIBLE or str(key).startswith("with_"):
            return self.unknown(key, self._known, self._what)
        close = difflib.get_close_matches(str(key).rpartition(".")[2], [*MODULES, *self._known], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"modules: {', '.join(sorted(MODULES))}"
        where = self.marks.where((*self.place, key))
        return InputError(f"unknown module or keyword {key!r}", where=where, hint=hint)

    def _arguments(self, key: str, module: Module) -> Variable:
        given, place = self.value[key], (*self.place, key)
        more = self.value.get("args")
        try:
            if given is None:
                given = {}
            elif isinstance(given, str | int | float) and not isinstance(given, bool):
                given = free_form(module, str(given))
            elif not isinstance(given, dict):
                raise InputError(f"expected the arguments of {module.name} as a mapping")
            if more is not None and not isinstance(more, dict):
                raise self.error("args", "args is a mapping of arguments")
            given = {**(more or {}), **given}
            meant = check_names(module, given)
        except InputError as error:
            if error.where:
                raise
            named = (
                next((name for name in given if f"{name!r}" in error.message), None)
                if isinstance(given, dict)
                else None
            )
            at = (*place, named) if named is not None else place
            raise type(error)(error.message, where=self.marks.where(at), hint=error.hint) from None
        values = {meant[name]: value for name, value in given.items()}
        expressions = {"that"} if module.name == "assert" else set()
        for name, value in given.items():
            check(Variable(value, self.marks, (*place, name)), expression=meant[name] in expressions)
        return Variable(values, self.marks, place)

    def _when(self) -> tuple[Variable, ...]:
        found = self.variable("when", expression=True)
        if found is None:
            return ()
        parts = found.value if isinstance(found.value, list) else [found.value]
        if any(part is not None and not isinstance(part, str | bool | int) for part in parts):
            raise self.error("when", "when is an expression, or a list of them")
        return (found,)

    def _loop(self) -> Variable | None:
        found = self.variable("loop")
        if found is not None and not isinstance(found.value, str | list):
            raise self.error("loop", "loop is a list, or a template that gives one")
        return found

    def _loop_control(self) -> LoopControl:
        value = self.value.get("loop_control")
        if value is None:
            return LoopControl()
        inner = _Reader(self.marks, value, (*self.place, "loop_control"), "loop_control")
        known = ("loop_var", "index_var", "label")
        for key in inner.value:
            if key not in known:
                raise inner.unknown(key, known, "loop_control")
        return LoopControl(
            loop_var=inner.text("loop_var") or "item",
            index_var=inner.text("index_var"),
            label=inner.variable("label"),
        )

    def _register(self) -> str:
        name = self.text("register")
        if name and not name.isidentifier():
            raise self.error("register", f"register is the name of a variable, not {name!r}")
        return name

    def _flag_or_template(self, key: str) -> None:
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool) and "{{" not in str(value):
            raise self.error(key, f"{key} is true or false")
