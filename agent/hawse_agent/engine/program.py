"""Plan a host's whole program, and apply exactly that plan.

`plan` and `apply` share one function, so a plan cannot promise what an apply would not do. Apply runs in a
thread of its own: when the caller goes away, the operation in hand is finished and nothing further starts.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hawse_agent.distribution import reference
from hawse_agent.distribution.credentials import NO_KEYS, Keyring
from hawse_agent.engine import checks
from hawse_agent.engine.images import Images
from hawse_agent.engine.observe import Observer
from hawse_agent.engine.platforms import suited
from hawse_agent.engine.stacks import Stacks, Tell, obtain_image
from hawse_agent.engine.state import State
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import Conflict, HawseError, InputError, InternalError, PlanChanged
from hawse_agent.paths import Paths
from hawse_agent.plan.observed import ObservedContainer, ObservedHost, ObservedNetwork
from hawse_agent.plan.operations import Change, Operation, Plan, make_plan
from hawse_agent.plan.planner import plan_stack
from hawse_agent.provision import MODULES, Context, Module
from hawse_agent.spec import codec
from hawse_agent.spec.host import LABEL_STACK, HostSpec, Item, StackSpec, TaskSpec
from hawse_agent.spec.records import ContainerRecord, NetworkRecord
from hawse_agent.spec.volume import VolumeSpec

BEAT = 5.0
"""Seconds between two signs of life on an event stream."""

CLOSE_WAIT = 60.0
"""Seconds that a daemon which leaves waits for the operation in hand; then its outcome is not known."""

LOCK_WAIT = 300.0
"""Seconds that an apply waits for another one on this host to end."""

ENGINE_MODULES = ("image", "volume")
"""Modules that the engine itself carries out; all others live in `provision`."""

Event = dict[str, Any]


@dataclass(kw_only=True)
class _Outcome:
    """What running one item came to."""

    changed: bool = False
    failed: bool = False
    result: dict[str, Any] = field(default_factory=dict)


class Program:
    def __init__(
        self,
        *,
        paths: Paths,
        state: State,
        observer: Observer,
        stacks: Stacks,
        images: Images,
        volumes: Volumes,
    ) -> None:
        self._paths = paths
        self._state = state
        self._observer = observer
        self._stacks = stacks
        self._images = images
        self._volumes = volumes
        self._host_lock = threading.Lock()
        self._holder = ""
        self._keyring = NO_KEYS
        """Of the run that has the lock."""
        self._closing = threading.Event()

    def close(self) -> None:
        """Let the operation in hand end and no further one start; the journal says where it was cut."""
        self._closing.set()
        if self._host_lock.acquire(timeout=CLOSE_WAIT):
            self._host_lock.release()

    # planning

    def plan(self, spec: HostSpec) -> Plan:
        """What would change, in order. Changes nothing. Raises InputError, Conflict."""
        spec = suited(spec)
        seen = self._observer.observe()
        operations: list[Operation] = []
        for item in spec.items:
            planned, seen = self._plan_item(item, spec, seen)
            operations += planned
        return make_plan(operations)

    def missing_blobs(self, spec: HostSpec, plan: Plan) -> list[str]:
        """Blobs that the controller must send before this plan can be applied."""
        spec = suited(spec)
        wanted: list[str] = []
        sent = {(op.item, op.name) for op in plan.operations if op.kind == "image" and op.action == "send"}
        for item in spec.items:
            if item.stack is not None:
                for source in item.stack.images:
                    if (item.id, _full(source.reference)) in sent:
                        wanted += source.blobs
            elif item.task is not None:
                if item.task.module == "image" and any(op == item.id for op, _ in sent):
                    wanted += [str(blob) for blob in item.task.args.get("blobs", ())]
                if content := item.task.args.get("content_blob"):
                    wanted.append(str(content))
        return self._images.store.missing_blobs(list(dict.fromkeys(wanted)))

    def _plan_item(
        self, item: Item, spec: HostSpec, seen: ObservedHost
    ) -> tuple[list[Operation], ObservedHost]:
        if item.stack is not None:
            _check_containers(item.stack)
            planned = plan_stack(item.id, _canonical(item.stack), seen)
            return planned, _after(seen, item.stack)
        if item.task is None:
            raise InputError(f"item {item.name!r} has neither a stack nor a task")
        return self._plan_task(item, item.task, spec, seen), seen

    def _plan_task(self, item: Item, task: TaskSpec, spec: HostSpec, seen: ObservedHost) -> list[Operation]:
        if task.module == "image":
            return _plan_image(item, task.args, seen)
        if task.module == "volume":
            return _plan_volume(item, task.args, seen)
        planned = _module(task).plan(task.args, self._context(task, spec))
        if not planned.changed and not planned.unknown:
            return []
        return [
            Operation(
                item=item.id,
                action="run",
                kind=task.module,
                name=item.name,
                changes=planned.changes,
                reason=planned.reason,
                diff="" if task.no_log else planned.diff,
                unknown=planned.unknown,
            )
        ]

    # applying

    def apply(
        self,
        spec: HostSpec,
        digest: str,
        *,
        keyring: Keyring = NO_KEYS,
        gone: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Events of the run, the last one `end`. No further operation starts once the iterator is closed or
        its reader is `gone`, which is asked before each. `keyring` is for the registries that images are
        pulled from.

        Raises PlanChanged before anything is touched when the host is no longer what the plan was made for.
        """
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        cancelled = threading.Event()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self._apply_locked(spec, digest, events.put, lambda: cancelled.is_set() or gone(), keyring)
            except BaseException as error:
                failures.append(error)
            finally:
                events.put(None)

        worker = threading.Thread(target=work, name="apply", daemon=True)
        worker.start()
        try:
            while True:
                try:
                    event = events.get(timeout=BEAT)
                except queue.Empty:
                    yield {"event": "beat"}
                    continue
                if event is None:
                    break
                yield event
        finally:
            cancelled.set()
        worker.join()
        if failures:
            raise failures[0]

    def _apply_locked(
        self,
        spec: HostSpec,
        digest: str,
        emit: Callable[[Event], None],
        cancelled: Callable[[], bool],
        keyring: Keyring,
    ) -> None:
        if not self._host_lock.acquire(timeout=LOCK_WAIT):
            raise Conflict(
                f"run {self._holder} is still changing this host", hint="wait for it, then run again"
            )
        try:
            self._holder, self._keyring = spec.run_id, keyring
            spec = suited(spec)
            plan = self.plan(spec)
            if plan.digest != digest:
                raise PlanChanged(
                    "the host has changed since the plan was made", hint="run again to plan afresh"
                )
            self._run(spec, plan, emit, cancelled)
        finally:
            self._keyring = NO_KEYS
            self._host_lock.release()

    def _run(
        self, spec: HostSpec, plan: Plan, emit: Callable[[Event], None], cancelled: Callable[[], bool]
    ) -> None:
        changed = 0
        hidden = False
        failure: HawseError | None = None
        by_item: dict[str, list[Operation]] = {}
        for operation in plan.operations:
            by_item.setdefault(operation.item, []).append(operation)
        for item in spec.items:
            outcome = _Outcome()
            try:
                operations = by_item.get(item.id, [])
                if changed and item.task is not None:
                    # What ran before may have made this task necessary, or spared it.
                    operations = self._plan_task(item, item.task, spec, self._observer.observe())
                if not operations and item.task is not None:
                    outcome.result = self._result_of_nothing(item.task, spec)
                    outcome.changed = bool(outcome.result["changed"])
                for operation in operations:
                    if self._closing.is_set() or cancelled():
                        self._note(spec, {"event": "cut", "item": item.id})
                        return
                    changed += self._operate(spec, item, operation, outcome, emit, cancelled)
                self._settle(item, operations, emit)
            except HawseError as error:
                outcome.failed = True
                outcome.result = {**getattr(error, "result", {}), "msg": error.message, **outcome.result}
                if not item.ignore_errors:
                    failure = error
            result = {"changed": outcome.changed, "failed": outcome.failed, **outcome.result}
            event = {"event": "item", "id": item.id, "name": item.name, **_flags(outcome), "result": result}
            emit({**event, "no_log": True} if _no_log(item) else event)
            if failure is not None:
                hidden = _no_log(item)
                break
        end: Event = {"event": "end", "changed": changed, "failed": failure is not None}
        if failure is not None:
            wire = failure.to_wire()
            end["error"] = {k: v for k, v in wire.items() if k != "result"} if hidden else wire
        self._note(spec, end)
        emit(end)

    def _result_of_nothing(self, task: TaskSpec, spec: HostSpec) -> dict[str, Any]:
        """What `register` keeps of a task that had nothing to do: a module that finds nothing to change
        describes what is there."""
        if task.module in ENGINE_MODULES:
            return {"changed": False}
        return _module(task).apply(task.args, self._context(task, spec), lambda line: None)

    def _operate(
        self,
        spec: HostSpec,
        item: Item,
        operation: Operation,
        outcome: _Outcome,
        emit: Callable[[Event], None],
        cancelled: Callable[[], bool],
    ) -> int:
        """Run one operation, tell and note it; 1 when it changed something."""
        shown = codec.to_json(operation)
        head = {"event": "operation", "operation": shown}
        emit({**head, "status": "start"})
        started = time.monotonic()
        self._note(spec, {**head, "status": "start"})

        def tell(line: str) -> None:
            emit({**head, "status": "progress", "detail": line})

        try:
            result = self._perform(spec, item, operation, tell, cancelled)
        except HawseError as error:
            failed = {**head, "status": "failed", "seconds": round(time.monotonic() - started, 3)}
            emit({**failed, "error": error.to_wire()})
            self._note(spec, {**failed, "error": error.message})
            raise
        changed = bool(result.get("changed", True))
        outcome.changed = outcome.changed or changed
        if item.task is not None:
            outcome.result = result
        done = {**head, "status": "ok", "changed": changed, "seconds": round(time.monotonic() - started, 3)}
        emit(done)
        self._note(spec, done)
        return int(changed)

    def _perform(
        self, spec: HostSpec, item: Item, operation: Operation, tell: Tell, cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        if item.stack is not None:
            self._stacks.run(_canonical(item.stack), operation, tell, self._keyring)
            return {"changed": True}
        task = item.task
        if task is None:
            raise InternalError(f"item {item.id} has neither stack nor task")
        if task.module == "image":
            return self._do_image(operation, task.args, tell)
        if task.module == "volume":
            return self._do_volume(operation, task.args)
        context = replace(self._context(task, spec), cancelled=cancelled)
        return _module(task).apply(task.args, context, tell)

    def _settle(self, item: Item, operations: list[Operation], emit: Callable[[Event], None]) -> None:
        if item.stack is None:
            return
        touched = [
            op.name
            for op in operations
            if op.kind == "container" and op.action in ("create", "recreate", "start")
        ]
        if touched:
            self._stacks.settle(
                item.stack, touched, lambda line: emit({"event": "progress", "item": item.id, "detail": line})
            )

    def _do_image(self, operation: Operation, args: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        if operation.action == "remove":
            self._images.remove(operation.name)
        else:
            obtain_image(
                self._images,
                operation,
                str(args.get("manifest", "")),
                str(args.get("id", "")),
                tell,
                self._keyring,
            )
        return {"changed": True}

    def _do_volume(self, operation: Operation, args: Mapping[str, Any]) -> dict[str, Any]:
        if operation.action == "remove":
            self._volumes.remove(operation.name)
        else:
            self._volumes.create(_volume_spec(args))
        return {"changed": True}

    def _context(self, task: TaskSpec, spec: HostSpec) -> Context:
        return Context(
            login_user=spec.login_user,
            become_user=task.become_user,
            environment=task.environment,
            blobs=self._paths.blobs,
            no_log=task.no_log,
        )

    def _note(self, spec: HostSpec, entry: dict[str, Any]) -> None:
        """Without the texts that changed: what is in a file stays there."""
        if "operation" in entry:
            entry = {**entry, "operation": {k: v for k, v in entry["operation"].items() if k != "diff"}}
        self._state.add_journal(spec.run_id, time.time(), entry)


def _module(task: TaskSpec) -> Module:
    try:
        return MODULES[task.module]
    except KeyError:
        raise InputError(f"this agent has no module {task.module!r}") from None


def _plan_image(item: Item, args: Mapping[str, Any], seen: ObservedHost) -> list[Operation]:
    name = _full(str(args["reference"]))
    present, wanted = seen.images.get(name, ""), str(args.get("id", ""))
    if args.get("state", "present") == "absent":
        reason = "state: absent"
        return (
            [Operation(item=item.id, action="remove", kind="image", name=name, reason=reason)]
            if present
            else []
        )
    if wanted:
        if present == wanted:
            return []
        changes = (Change(field="id", old=present[7:19] or "(none)", new=wanted[7:19]),)
        return [Operation(item=item.id, action="send", kind="image", name=name, changes=changes)]
    if present and not args.get("force"):
        return []
    reason = "not on this host" if not present else "asked for again"
    return [Operation(item=item.id, action="pull", kind="image", name=name, reason=reason)]


def _plan_volume(item: Item, args: Mapping[str, Any], seen: ObservedHost) -> list[Operation]:
    wanted = _volume_spec(args)
    existing = seen.volumes.get(wanted.name)
    if args.get("state", "present") == "absent":
        if existing is None:
            return []
        return [
            Operation(item=item.id, action="remove", kind="volume", name=wanted.name, reason="state: absent")
        ]
    if existing is None:
        return [Operation(item=item.id, action="create", kind="volume", name=wanted.name)]
    if dict(existing.options) != dict(wanted.options):
        raise Conflict(f"volume {wanted.name} exists with other driver options ({dict(existing.options)})")
    return []


def _volume_spec(args: Mapping[str, Any]) -> VolumeSpec:
    return VolumeSpec(
        name=str(args["name"]), options=dict(args.get("options", {})), labels=dict(args.get("labels", {}))
    )


def _check_containers(stack: StackSpec) -> None:
    """None is made before it is known that all can be."""
    for container in stack.containers:
        try:
            checks.check(container)
        except InputError as error:
            raise error.at(f"stack {stack.name}: container {container.name}") from None


def _canonical(stack: StackSpec) -> StackSpec:
    """One form of each reference, so that `redis` and `docker.io/library/redis:latest` are the same image."""
    return replace(
        stack,
        images=tuple(replace(i, reference=_full(i.reference)) for i in stack.images),
        containers=tuple(replace(c, image=_full(c.image)) for c in stack.containers),
    )


def _full(image: str) -> str:
    return image if image.startswith("sha256:") else reference.familiar(reference.canonical(image))


def _after(seen: ObservedHost, stack: StackSpec) -> ObservedHost:
    """The host as it will be once this stack is applied: what later items of one program plan against."""
    containers = {
        name: container
        for name, container in seen.containers.items()
        if container.record.spec.labels.get(LABEL_STACK) != stack.name
    }
    networks = {
        name: network
        for name, network in seen.networks.items()
        if network.record.labels.get(LABEL_STACK) != stack.name
    }
    volumes, images = dict(seen.volumes), dict(seen.images)
    if stack.state == "present":
        stack = _canonical(stack)
        images |= {source.reference: source.id or "pulled" for source in stack.images}
        volumes |= {volume.name: volume for volume in stack.volumes}
        for spec in stack.containers:
            record = ContainerRecord(
                id="planned", spec=spec, image_id=images.get(spec.image, ""), created=0.0, desired="running"
            )
            containers[spec.name] = ObservedContainer(record=record, status="running")
        for network in stack.networks:
            kept = NetworkRecord(
                id="planned",
                name=network.name,
                driver="bridge",
                internal=network.internal,
                icc=network.icc,
                mtu=network.mtu or 1500,
                subnet=network.subnet,
                gateway=network.gateway,
                ip_range=network.ip_range,
                labels=network.labels,
            )
            networks[network.name] = ObservedNetwork(record=kept)
    elif stack.remove_volumes:
        volumes = {n: v for n, v in volumes.items() if v.labels.get(LABEL_STACK) != stack.name}
    return replace(seen, containers=containers, networks=networks, volumes=volumes, images=images)


def _flags(outcome: _Outcome) -> dict[str, bool]:
    return {"changed": outcome.changed, "failed": outcome.failed}


def _no_log(item: Item) -> bool:
    return item.task is not None and item.task.no_log
