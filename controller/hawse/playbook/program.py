"""A play on one host, as a sequence of requests. Pure: whoever runs it does all the talking.

    program = Program(play, host, run, …)
    for step in program:
        match step:
            case Outcome(): show it
            case Apply(): program.feed(results of the host)         … and so on

Tasks are collected into one request until a template needs a result that is still to come (or a handler, a
`failed_when`, a transfer); only then the request is made. Templates that are wrong end the program by an
InputError before the request that they would belong to. After a failed task nothing further is asked for.

Differences from Ansible, on purpose: a loop ends at its first failing round; hosts do not wait for each
other between tasks, so `hostvars` shows of other hosts what they have registered so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hawse.inventory import Connection, Host, load_file
from hawse.playbook.lower import Call, Lowered, lower
from hawse.playbook.model import Play, Task
from hawse.playbook.modules import AssertArguments, DebugArguments, build
from hawse.playbook.requests import (
    Apply,
    Backup,
    GatherFacts,
    Outcome,
    PlannedResult,
    Restore,
    Status,
    Step,
    UnknownResult,
)
from hawse.playbook.run import FactsNeeded, HostVars, Run
from hawse.playbook.tags import selected
from hawse.stack.build import Build
from hawse.template import NotYet, Promise, Scope, UndefinedVariable
from hawse.template.filters import to_bool, to_json
from hawse.template.lookups import find
from hawse.variables import Variable, data
from hawse_agent.errors import InputError, InternalError
from hawse_agent.spec.host import Item

Result = Mapping[str, Any]

_RAW = {"assert": ("that",), "debug": ("var",)}
"""Arguments that are expressions: evaluated, not rendered."""


class ResultNeeded(NotYet):
    """A template uses the result of a task that is collected but not sent yet."""


@dataclass(kw_only=True)
class _Round:
    """One task, or one round of its loop: either already answered, or items and a transfer to be sent."""

    call: Call
    item: Any = None
    label: str = ""
    answer: Result | None = None
    lowered: Lowered = Lowered()
    names: Mapping[str, Variable] = field(default_factory=dict)
    """The loop's own variables."""

    @property
    def result(self) -> Result:
        return self.answer or {}


@dataclass(kw_only=True)
class _Entry:
    task: Task
    rounds: list[_Round]
    looped: bool

    @property
    def answered(self) -> bool:
        """Nothing of it goes to the host."""
        return all(round.answer is not None for round in self.rounds)


class Program:
    def __init__(
        self,
        play: Play,
        host: Host,
        run: Run,
        *,
        connection: Connection | None = None,
        batch: Sequence[str] = (),
        hosts: Sequence[str] = (),
    ) -> None:
        """`batch` are the hosts that run together, `hosts` all of the play."""
        self.failed = False
        self._play = play
        self._host = host
        self._run = run
        self._connection = connection
        self._memory = run.memory.of(host.name)
        self._directory = play.file.parent
        self._hostvars = HostVars(run, self._directory, own=host.name, gather=play.gather_facts is not False)
        self._magic = self._magic_variables(list(batch), list(hosts))
        self._entries: list[_Entry] = []
        self._notified: set[str] = set()
        self._answer: Mapping[str, Any] | None = None

    def __iter__(self) -> Iterator[Step]:
        if self._play.gather_facts and not self._memory.asked:
            yield from self._gather(self._host.name)
        for task in self._play.tasks:
            if selected(task.tags, self._run.tags, self._run.skip_tags):
                yield from self._task(task)
            if self.failed:
                return
        yield from self._flush()
        for handler in self._play.handlers:
            if not self.failed and self._notified.intersection((handler.name, *handler.listen)):
                yield from self._task(handler)
                if handler.notify is not None:
                    yield from self._flush()
        yield from self._flush()

    def feed(self, answer: Mapping[str, Any]) -> None:
        """The answer to the request that was yielded last."""
        self._answer = answer

    def _ask(self) -> Mapping[str, Any]:
        answer, self._answer = self._answer, None
        if answer is None:
            raise InternalError("a program went on without an answer")
        return answer

    def _gather(self, host: str) -> Iterator[Step]:
        yield GatherFacts(host=host)
        self._run.memory.of(host).gathered(self._ask())

    # tasks

    def _task(self, task: Task) -> Iterator[Step]:
        """Collect one task; send what is collected before when it needs that."""
        while True:
            try:
                entry = self._prepare(task)
                break
            except ResultNeeded:
                yield from self._flush()
                if self.failed:
                    return
            except FactsNeeded as needed:
                yield from self._gather(needed.host)
            except UnknownResult as unknown:
                yield from self._unknown(task, unknown)
                return
        self._entries.append(entry)
        if entry.answered:
            self._learn(entry, [(round, self._judged(task, round, round.result)) for round in entry.rounds])
        elif task.register:
            self._memory.learn({task.register: Variable(Promise(ResultNeeded), templated=False)})
        if self._is_due(entry):
            yield from self._flush()

    def _is_due(self, last: _Entry) -> bool:
        """Whether what is collected must be settled before the next task is looked at."""
        if all(entry.answered for entry in self._entries):
            return True
        decides = last.task.failed_when is not None and last.task.failed_when.value is not False
        return decides or any(
            round.lowered.transfer is not None or _flag(round.result, "failed") for round in last.rounds
        )

    def _prepare(self, task: Task) -> _Entry:
        """Render a task for this host. Has no effect, so that it can be done again."""
        scope = self._scope(task)
        if task.loop is None:
            round = self._round(task, scope, task.id, {}, None, "")
            return _Entry(task=task, rounds=[round], looped=False)
        try:
            items = scope.render(task.loop)
        except UndefinedVariable:
            if all(scope.condition(condition) for condition in task.when) or not task.when:
                raise
            items = []
        if not isinstance(items, list | tuple):
            raise InputError(
                f"loop is a list, not {type(items).__name__}", where=task.loop.where(), hint="try `| list`"
            )
        return _Entry(
            task=task,
            rounds=[self._looped(task, scope, index, item) for index, item in enumerate(items)],
            looped=True,
        )

    def _looped(self, task: Task, scope: Scope, index: int, item: Any) -> _Round:
        control = task.loop_control
        names = {control.loop_var: data(item)}
        if control.index_var:
            names[control.index_var] = data(index)
        inner = scope.child(names)
        label = inner.render(control.label) if control.label is not None else item
        shown = "(hidden)" if self._flag(inner, task.no_log) else str(label)
        return self._round(task, inner, f"{task.id}.{index}", names, item, shown)

    def _round(
        self, task: Task, scope: Scope, id: str, names: Mapping[str, Variable], item: Any, label: str
    ) -> _Round:
        name = self._name(task, scope)
        name += f" ({label})" if label and name == task.name else ""
        call = Call(id=id, name=name, task=task, host=self._host.name, scope=scope)
        round = _Round(call=call, item=item, label=label, names=names)
        for condition in task.when:
            if not scope.condition(condition):
                round.answer = {
                    "changed": False,
                    "skipped": True,
                    "skip_reason": "Conditional result was False",
                }
                return round
        if task.module.local:
            round.call = replace(
                call,
                no_log=self._flag(scope, task.no_log),
                ignore_errors=self._flag(scope, task.ignore_errors),
            )
            round.answer = self._local(task, scope)
            return round
        round.call = self._call(call)
        round.lowered = lower(round.call, self._run)
        if task.failed_when is not None:  # decided here, so the host shall go on
            round.lowered = _tolerant(round.lowered)
        return round

    def _call(self, call: Call) -> Call:
        task, scope = call.task, call.scope
        connection = self._connection
        become = self._run.become if task.become is None else self._flag(scope, task.become)
        user = str(scope.render(task.become_user) or "") if task.become_user is not None else ""
        if connection is not None:
            become = become if connection.become is None else connection.become
            user = connection.become_user or user
        environment: dict[str, str] = {}
        for written in task.environment:
            values = scope.render(written)
            if not isinstance(values, Mapping):
                raise InputError("environment is a mapping from names to values", where=written.where())
            environment |= {str(key): _env(value) for key, value in values.items()}
        return replace(
            call,
            become_user=(user or "root") if become else "",
            environment=environment,
            no_log=self._flag(scope, task.no_log),
            ignore_errors=self._flag(scope, task.ignore_errors),
        )

    def _name(self, task: Task, scope: Scope) -> str:
        """The name for people; one that cannot be rendered is shown as it is written."""
        if "{{" not in task.name:
            return task.name
        try:
            return str(scope.render(Variable(task.name, task.marks, (*task.place, "name"))))
        except (InputError, NotYet):
            return task.name

    def _flag(self, scope: Scope, written: Variable | None) -> bool:
        if written is None:
            return False
        value = to_bool(scope.render(written))
        return bool(value)

    # tasks that never leave the controller

    def _local(self, task: Task, scope: Scope) -> Result:
        raw = _RAW.get(task.module.name, ())
        args = {name: value for name, value in task.args.value.items() if name not in raw}
        values = scope.render(replace(task.args, value=args))
        values |= {name: task.args.value[name] for name in raw if name in task.args.value}
        match task.module.name:
            case "debug":
                return self._debug(task, scope, values)
            case "assert":
                return self._assert(task, scope, values)
            case _:
                return {"changed": False, "ansible_facts": values}

    def _debug(self, task: Task, scope: Scope, values: dict[str, Any]) -> Result:
        arguments = self._arguments(task, DebugArguments, values)
        if arguments.verbosity > self._run.verbosity:
            return {"changed": False, "skipped": True, "skip_reason": "Verbosity threshold not met"}
        if arguments.var:
            expression = Variable(arguments.var, task.args.marks, (*task.args.place, "var"))
            return {"changed": False, arguments.var: scope.evaluate(expression)}
        return {"changed": False, "msg": arguments.msg}

    def _assert(self, task: Task, scope: Scope, values: dict[str, Any]) -> Result:
        arguments = self._arguments(task, AssertArguments, values)
        conditions = arguments.that if isinstance(arguments.that, list) else [arguments.that]
        place = (*task.args.place, "that")
        for index, condition in enumerate(conditions):
            at = (*place, index) if isinstance(arguments.that, list) else place
            if not scope.condition(Variable(condition, task.args.marks, at)):
                message = arguments.fail_msg or f"Assertion failed: {condition}"
                where = task.args.marks.where(at)
                return {"changed": False, "failed": True, "assertion": condition, "evaluated_to": False,
                        "msg": f"{where}: {message}"}  # fmt: skip
        return {"changed": False, "msg": arguments.success_msg or "All assertions passed"}

    def _arguments(self, task: Task, kind: type, values: Mapping[str, Any]) -> Any:
        try:
            return build(kind, values, task.module.name)
        except InputError as error:
            raise InputError(error.message, where=task.args.where(), hint=error.hint) from None

    # sending, and what came of it

    def _flush(self) -> Iterator[Step]:
        """Send what is collected, then settle it in order."""
        entries, self._entries = self._entries, []
        results: dict[str, Result] = {}
        for request in _requests(entries):
            yield request
            results |= self._ask()
            if _stopped(request, results):
                break
        yield from self._settle(entries, results)

    def _settle(self, entries: Sequence[_Entry], results: Mapping[str, Result]) -> Iterator[Step]:
        for entry in entries:
            if not entry.rounds:
                yield _nothing_to_do(entry.task)
            done: list[tuple[_Round, Result]] = []
            for round in entry.rounds:
                result = round.answer if round.answer is not None else _combined(round, results)
                if result is None:  # the host stopped before it
                    self.failed = True
                    return
                result = self._judged(entry.task, round, result)
                done.append((round, result))
                status = _status(round, result)
                self.failed = status == "failed"
                yield _outcome(round, result, status)
                if self.failed:
                    break
            if not entry.answered:
                self._learn(entry, done)
            if self.failed:
                return

    def _judged(self, task: Task, round: _Round, result: Result) -> Result:
        """The result after changed_when and failed_when, which see it under its registered name."""
        if _flag(result, "skipped") or (task.changed_when is None and task.failed_when is None):
            return result
        names = {**round.names, **({task.register: data(result)} if task.register else {})}
        scope = self._scope(task).child(names)
        found: dict[str, bool] = {}
        try:
            if task.changed_when is not None:
                found["changed"] = scope.condition(task.changed_when)
            if task.failed_when is not None:
                found["failed"] = found["failed_when_result"] = scope.condition(task.failed_when)
        except UnknownResult:
            return result
        except ResultNeeded:
            written = task.failed_when or task.changed_when
            where = written.where() if written is not None else task.where
            raise InputError("the condition uses the result of a later task", where=where) from None
        if isinstance(result, PlannedResult):
            return PlannedResult(**{**dict(result), **found})
        return {**result, **found}

    def _learn(self, entry: _Entry, done: Sequence[tuple[_Round, Result]]) -> None:
        """Register results, set facts, note which handlers shall run."""
        task = entry.task
        for _, result in done:
            if task.module.name == "set_fact" and not _flag(result, "skipped"):
                self._memory.learn({name: data(value) for name, value in result["ansible_facts"].items()})
        if task.register:
            self._memory.learn({task.register: data(_registered(entry, done))})
        changed = [
            round for round, result in done if _flag(result, "changed") and not _flag(result, "skipped")
        ]
        if task.notify is not None and changed and not self.failed:
            self._notify(task, self._scope(task).child(changed[0].names))

    def _notify(self, task: Task, scope: Scope) -> None:
        assert task.notify is not None
        names = scope.render(task.notify)
        known = {name for handler in self._play.handlers for name in (handler.name, *handler.listen)}
        for name in names if isinstance(names, list) else [names]:
            if name not in known:
                raise InputError(f"no handler is named {name!r}", where=task.notify.where())
            self._notified.add(name)

    def _unknown(self, task: Task, unknown: UnknownResult) -> Iterator[Step]:
        """In check mode: a task that needs what only a real run can tell. Its own result is as unknown."""
        yield from self._flush()
        if self.failed:
            return
        fact = unknown.key.startswith("ansible_") and self._memory.silent
        message = f"depends on {unknown.key!r}" + (
            ", a fact, and the host has no agent to ask yet"
            if fact
            else " of an earlier task, which is known once that has run"
        )
        yield Outcome(item=task.id, name=task.name, status="unknown", message=message, local=True)
        if task.register:
            self._memory.learn({task.register: data(PlannedResult())})
        if task.notify is not None:
            try:
                self._notify(task, self._scope(task))
            except UnknownResult:
                return

    # variables

    def _scope(self, task: Task) -> Scope:
        """Low to high: inventory, facts, play, vars_files, task, results, command line, magic."""
        lower_layers: dict[str, Variable] = {
            **self._run.inventory.variables(self._host, self._directory),
            **self._memory.facts,
            **self._play.variables,
        }
        upper = {**self._memory.names, **self._run.extra, **self._magic}
        if self._play.vars_files is not None:
            lower_layers |= self._vars_files(self._play.vars_files, self._make({**lower_layers, **upper}))
        return self._make({**lower_layers, **task.variables, **upper})

    def _make(self, variables: dict[str, Variable]) -> Scope:
        search = tuple(dict.fromkeys((self._directory, self._run.project)))
        return Scope(variables, search=search, missing=self._hostvars.fact_hook(self._host.name))

    def _vars_files(self, files: Variable, scope: Scope) -> dict[str, Variable]:
        """Of each entry the file, or of a list the first file that is there."""
        found: dict[str, Variable] = {}
        names = scope.render(files)
        for index, entry in enumerate(names if isinstance(names, list) else [names]):
            where = files.where(index) if isinstance(names, list) else files.where()
            candidates = entry if isinstance(entry, list) else [entry]
            for position, name in enumerate(candidates):
                try:
                    path = find(scope.search, str(name), "vars")
                except InputError as error:
                    if position + 1 < len(candidates):
                        continue
                    raise InputError(error.message, where=where, hint=error.hint) from None
                found |= self._load_vars(path, where)
                break
        return found

    def _load_vars(self, path: Path, where: str) -> dict[str, Variable]:
        if path not in self._files:
            if not path.is_file():
                raise InputError(f"no such file: {path}", where=where)
            self._files[path] = load_file(path)
        return self._files[path]

    def _magic_variables(self, batch: list[str], hosts: list[str]) -> dict[str, Variable]:
        run = self._run
        self._files: dict[Path, dict[str, Variable]] = {}
        values: dict[str, Any] = {
            "hostvars": self._hostvars,
            "playbook_dir": str(self._directory.absolute()),
            "ansible_play_name": self._play.name,
            "ansible_play_batch": batch,
            "ansible_play_hosts": hosts,
            "ansible_play_hosts_all": hosts,
            "play_hosts": hosts,
            "ansible_check_mode": run.check,
            "ansible_diff_mode": run.diff,
            "ansible_limit": ",".join(run.limit),
            "ansible_run_tags": list(run.tags),
            "ansible_skip_tags": list(run.skip_tags),
            "ansible_verbosity": run.verbosity,
        }
        return {
            **run.inventory.magic(self._host),
            **{name: data(value) for name, value in values.items()},
        }


def _env(value: Any) -> str:
    return "" if value is None else str(value)


def _tolerant(lowered: Lowered) -> Lowered:
    transfer = lowered.transfer
    return replace(
        lowered,
        items=tuple(replace(item, ignore_errors=True) for item in lowered.items),
        transfer=None if transfer is None else replace(transfer, ignore_errors=True),
    )


def _requests(entries: Sequence[_Entry]) -> list[Apply | Backup | Restore]:
    """What is collected, as few requests as its order allows."""
    requests: list[Apply | Backup | Restore] = []
    items: list[Item] = []
    blobs: dict[str, Path] = {}
    builds: dict[str, tuple[Build, ...]] = {}
    for lowered in (round.lowered for entry in entries for round in entry.rounds):
        items += lowered.items
        blobs |= lowered.blobs
        if lowered.builds:
            builds[lowered.items[0].id] = lowered.builds
        if lowered.transfer is not None:
            if items:
                requests.append(Apply(items=tuple(items), blobs=blobs, builds=builds))
                items, blobs, builds = [], {}, {}
            requests.append(lowered.transfer)
    if items:
        requests.append(Apply(items=tuple(items), blobs=blobs, builds=builds))
    return requests


def _stopped(request: Apply | Backup | Restore, results: Mapping[str, Result]) -> bool:
    """Whether the host gave up in a request: something failed that may not, or was not run at all."""
    for part in request.items if isinstance(request, Apply) else (request,):
        result = results.get(part.id)
        if result is None or (_flag(result, "failed") and not part.ignore_errors):
            return True
    return False


def _combined(round: _Round, results: Mapping[str, Result]) -> Result | None:
    """The result of all parts of a round; None when the host stopped before they were done."""
    transfer = round.lowered.transfer
    if transfer is not None:
        return results.get(transfer.id)
    parts = [results[item.id] for item in round.lowered.items if item.id in results]
    if len(round.lowered.items) == 1:
        return parts[0] if parts else None
    failed = next((part for part in parts if _flag(part, "failed")), None)
    if failed is not None:
        return failed
    if len(parts) < len(round.lowered.items):
        return None
    return {"changed": any(_flag(part, "changed") for part in parts), "failed": False}


def _status(round: _Round, result: Result) -> Status:
    if _flag(result, "skipped"):
        return "skipped"
    if _flag(result, "failed"):
        return "ignored" if round.call.ignore_errors else "failed"
    return "ok"


def _outcome(round: _Round, result: Result, status: Status) -> Outcome:
    skipped = status == "skipped"
    known = dict(result)
    message = known.get("skip_reason", "") if skipped else known.get("msg", "")
    if round.call.task.module.name == "debug" and not message:
        message = {name: value for name, value in known.items() if name != "changed"}
    return Outcome(
        item=round.call.id,
        name=round.call.name,
        status=status,
        changed=bool(known.get("changed")) and not skipped,
        message="" if round.call.no_log else message if isinstance(message, str) else to_json(message),
        result={} if round.call.no_log else known,
        local=round.call.task.module.local or skipped,
    )


def _nothing_to_do(task: Task) -> Outcome:
    return Outcome(item=task.id, name=task.name, status="skipped", message="No items in the loop", local=True)


def _registered(entry: _Entry, done: Sequence[tuple[_Round, Result]]) -> Result:
    """What `register` keeps: the result, or for a loop all of them."""
    if not entry.looped:
        return done[0][1] if done else {"changed": False, "failed": True}
    results = []
    for round, result in done:
        about = {
            entry.task.loop_control.loop_var: round.item,
            "ansible_loop_var": entry.task.loop_control.loop_var,
        }
        if isinstance(result, PlannedResult):
            results.append(PlannedResult(**dict(result), **about))
        else:
            results.append({**result, **about})  # type: ignore[arg-type]
    ran = [result for result in results if not _flag(result, "skipped")]
    whole: dict[str, Any] = {
        "results": results,
        "changed": any(_flag(result, "changed") for result in ran),
        "failed": any(_flag(result, "failed") for result in ran),
        "msg": "All items completed",
    }
    if any(isinstance(result, PlannedResult) and "failed" not in result for result in ran):
        del whole["failed"]
        return PlannedResult(**whole, skipped=False)
    return whole if ran else {**whole, "skipped": True}


def _flag(result: Result, key: str) -> bool:
    """What is known of a flag; of a planned result not all are."""
    return key in result and bool(result[key])
