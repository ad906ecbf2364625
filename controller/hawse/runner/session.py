"""One host of a run: answers the requests of its programs, and keeps what the report says of it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hawse.fleet import volumes
from hawse.fleet.client import AgentClient, PlanAnswer
from hawse.images.send import deliver, upload
from hawse.images.store import ImageStore
from hawse.playbook.requests import (
    Apply,
    Backup,
    GatherFacts,
    Outcome,
    Restore,
    Step,
    planned_result,
    planned_results,
)
from hawse.report.console import Progress
from hawse.report.model import HostRecorder, Result
from hawse.report.text import short_size
from hawse.runner import offline
from hawse.runner.builder import Builder
from hawse_agent.distribution.reference import canonical, familiar, parse
from hawse_agent.errors import (
    HawseError,
    HostRefused,
    InputError,
    NotFound,
    PlanChanged,
    ProtocolError,
    TaskFailed,
    Unreachable,
)
from hawse_agent.plan.operations import Operation
from hawse_agent.spec.host import HostSpec, Item

_PIECE = 1 << 18
_CONNECTIONS = 3
"""How many it may take until all that a host lacks is there."""
_PLANS = 3
"""How often a host that is just being changed by another run is planned anew."""


class Reach(Protocol):
    """The way to the hosts, by their names. Each host is asked for by one thread at a time."""

    def agent(self, host: str, say: Callable[[str], None]) -> AgentClient:
        """A client of the agent, which is installed or upgraded where needed."""

    def existing(self, host: str) -> AgentClient | None:
        """A client of the agent as it is; None where there is none."""

    def again(self, host: str, say: Callable[[str], None]) -> AgentClient:
        """`agent`, over a new connection. Raises Unreachable once it was `cut`."""

    def login_user(self, host: str) -> str:
        """Of a connected host."""

    def cut(self, host: str) -> None:
        """End the connection under whoever uses it."""


class Steps(Protocol):
    """A `hawse.playbook.Program`, or what behaves like one."""

    def __iter__(self) -> Iterator[Step]: ...

    def feed(self, answer: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One request as it was planned: enough to apply exactly it later."""

    spec: HostSpec
    digest: str
    files: Mapping[str, str] = field(default_factory=dict)
    """Digest → path here, of contents that are too long to stand in the spec."""


@dataclass(kw_only=True)
class Session:
    """`run` it for each program of the host, in order. One thread."""

    name: str
    reach: Reach
    run_id: str
    images: ImageStore
    progress: Progress
    recorder: HostRecorder
    builder: Builder
    registries: Callable[[Collection[str]], Mapping[str, str]] = lambda registries: {}
    """Headers that say who we are at these."""
    check: bool = False
    peers: frozenset[str] = frozenset()
    """The hosts of this run: each of them gets an agent anyway, so its facts can be asked for."""
    show_plan: Callable[[str, tuple[Operation, ...]], None] = lambda host, operations: None
    """Hears of each plan before it is applied."""
    operations: list[Operation] = field(default_factory=list)
    """Of check mode: what would change."""
    planned: list[Planned] = field(default_factory=list)
    unplanned: list[str] = field(default_factory=list)
    """Of check mode: tasks of which no plan can be made before others have run."""
    lost: bool = False
    """Nothing further is asked of this host."""
    _client: AgentClient | None = None
    _connected: bool = False
    _doing: str = ""

    def run(self, steps: Steps) -> bool:
        """Whether the host came to the end of the program."""
        try:
            for step in steps:
                if isinstance(step, Outcome):
                    self._outcome(step)
                else:
                    steps.feed(self._answer(step))
        except HawseError as error:
            self.fail(error)
        return not self.lost

    def fail(self, error: HawseError) -> None:
        self.lost = True
        self.recorder.fail(error)

    def apply_kept(self, planned: Planned) -> None:
        """Exactly what was planned before, or nothing when the host is no longer as it was."""
        try:
            client = self._connect()
            assert client is not None
            spec = replace(planned.spec, run_id=self.run_id)
            self._say("planning")
            answer = client.plan(spec)
            if answer.plan.digest != planned.digest:
                raise PlanChanged(
                    f"{self.name}: the host has changed since the plan was made", hint="make a new plan"
                )
            self._carry_out(client, spec, answer, planned.files)
        except HawseError as error:
            self.fail(error)

    @property
    def doing(self) -> str:
        """What the host is at, for who is interrupted."""
        return self._doing

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    # answers

    def _answer(self, step: Apply | GatherFacts | Backup | Restore) -> Mapping[str, Any]:
        if isinstance(step, GatherFacts):
            return self._facts(step.host)
        if isinstance(step, Apply):
            return self._items(step)
        return self._transfer(step)

    def _connect(self) -> AgentClient | None:
        """None in check mode, when the host has no agent."""
        if self._connected:
            return self._client
        self._say("connecting")
        if self.check:
            self._client = self.reach.existing(self.name)
            if self._client is None:
                self.operations.append(offline.AGENT)
        else:
            self._client = self.reach.agent(self.name, self._say)
        self._connected = True
        return self._client

    def _facts(self, host: str) -> Mapping[str, Any]:
        if host == self.name:
            client = self._connect()
            self._say("gathering facts")
            return client.facts() if client is not None else {}
        try:
            if host in self.peers and not self.check:
                other: AgentClient | None = self.reach.agent(host, lambda text: self._say(f"{host}: {text}"))
            else:
                other = self.reach.existing(host)
            if other is None:
                return {}
            with other.second() as client:
                return client.facts()
        except HawseError:  # shown by the other host's own run; here its facts are undefined
            return {}

    def _items(self, step: Apply) -> Mapping[str, Any]:
        client = self._connect()
        if client is None:
            operations = _with_builds(step, offline.plan(step.items))
            self.operations += operations
            self.unplanned += [item.name for item in step.items]
            return planned_results(step.items, operations)
        items = step.items if self.check else self._built(step)
        spec = HostSpec(items=items, login_user=self.reach.login_user(self.name), run_id=self.run_id)
        if self.check:
            self._say("planning")
            answer = client.plan(spec)
            operations = _with_builds(step, answer.plan.operations)
            self.operations += operations
            files = {digest: str(path.absolute()) for digest, path in step.blobs.items()}
            self.planned.append(Planned(spec=spec, digest=answer.plan.digest, files=files))
            self.unplanned += [
                f"build {build.reference}" for builds in step.builds.values() for build in builds
            ]
            return planned_results(step.items, operations)
        for attempt in itertools.count(1):
            self._say("planning")
            try:
                return self._carry_out(client, spec, client.plan(spec), step.blobs)
            except PlanChanged:  # another run was still at work there; this one has done nothing yet
                if attempt == _PLANS:
                    raise
        raise AssertionError

    def _built(self, step: Apply) -> tuple[Item, ...]:
        """The items with the images that were built for them."""
        items = []
        for item in step.items:
            for build in step.builds.get(item.id, ()):
                assert item.stack is not None
                source, now = self.builder.source(build, self._say)
                if now:
                    result = Result(item=item.id, name=f"build {build.reference}", status="ok", changed=True)
                    self.progress.result(self.name, result)
                same = canonical(build.reference)
                images = (
                    replace(source, reference=image.reference)
                    if canonical(image.reference) == same
                    else image
                    for image in item.stack.images
                )
                item = replace(item, stack=replace(item.stack, images=tuple(images)))
            items.append(item)
        return tuple(items)

    def _carry_out(
        self, client: AgentClient, spec: HostSpec, answer: PlanAnswer, files: Mapping[str, str | Path]
    ) -> Mapping[str, Any]:
        """Nothing further is asked of a host where nothing is to be changed."""
        if not answer.plan.operations:
            unchanged = {"changed": False, "failed": False}
            for item in spec.items:
                self.recorder.event({"event": "item", "id": item.id, **unchanged})
            return {item.id: unchanged for item in spec.items}
        self.show_plan(self.name, answer.plan.operations)
        if answer.missing_blobs:
            client = self._uploaded(client, spec, answer.missing_blobs, files)
        pulled = [op.name for op in answer.plan.operations if op.kind == "image" and op.action == "pull"]
        headers = self.registries({parse(name).registry for name in pulled}) if pulled else {}
        return self._apply(client, spec, answer.plan.digest, headers)

    def _apply(
        self, client: AgentClient, spec: HostSpec, digest: str, headers: Mapping[str, str]
    ) -> Mapping[str, Any]:
        results: dict[str, Any] = {}
        self._doing = "starting"
        try:
            for event in client.apply(spec, digest, headers=headers):
                self.recorder.event(event)
                self.progress.event(self.name, event)
                if event["event"] == "operation" and event["status"] == "start":
                    operation = event["operation"]
                    self._doing = f"{operation['action']} {operation['kind']} {operation['name']}"
                elif event["event"] == "item":
                    results[event["id"]] = event["result"]
                elif event["event"] == "end" and event.get("failed"):
                    self.lost = True
        except (Unreachable, ProtocolError) as error:
            reason = error.message.removeprefix(f"{self.name}: ")
            raise Unreachable(
                f"{self.name}: the connection was lost at: {self._doing} ({reason})",
                stage="agent",
                hint="the agent ends what it was at, and starts nothing further once it notices; run again to"
                " go on",
            ) from error
        self._doing = ""
        return results

    def _uploaded(
        self,
        client: AgentClient,
        spec: HostSpec,
        digests: tuple[str, ...],
        files: Mapping[str, str | Path],
    ) -> AgentClient:
        """Sends these; where the connection is lost, goes on over a new one, and gives that."""
        for left in reversed(range(_CONNECTIONS)):
            try:
                with client.second() as bulk:
                    self._upload(bulk, spec, digests, files)
                return client
            except Unreachable as error:
                if not left:
                    raise
                self._say(f"{error.message}; once more")
                client = self._client = self.reach.again(self.name, self._say)
        raise AssertionError

    def _upload(
        self,
        bulk: AgentClient,
        spec: HostSpec,
        digests: tuple[str, ...],
        files: Mapping[str, str | Path],
    ) -> None:
        for digest in digests:
            if digest in files:
                path = Path(files[digest])
                self._say(f"sending {path.name}")
                try:
                    deliver(bulk, digest, _size(path), partial(_pieces, path, digest))
                except HawseError as error:
                    error.at(f"send {path}")
                    raise
        held = tuple(digest for digest in digests if digest not in files)
        try:
            upload(
                bulk,
                self.images,
                held,
                progress=lambda sent, total: self._say(
                    f"sending image: {short_size(sent)} of {short_size(total)}"
                ),
            )
        except HawseError as error:
            error.at(f"send image {', '.join(_images(spec, set(held)))}")
            raise

    def _transfer(self, step: Backup | Restore) -> Mapping[str, Any]:
        kind = "backup" if isinstance(step, Backup) else "restore"
        if self.check:
            self._connect()
            place = step.dest if isinstance(step, Backup) else step.src
            reason = f"to {place}" if isinstance(step, Backup) else f"from {place}"
            self.operations.append(
                Operation(item=step.id, action="run", kind=f"volume_{kind}", name=step.volume, reason=reason)
            )
            self.unplanned.append(step.name)
            return {step.id: planned_result(changed=True)}
        client = self._connect()
        assert client is not None
        try:
            result = self._move(client, step)
        except (NotFound, HostRefused, TaskFailed) as error:
            return {step.id: {"changed": False, "failed": True, "msg": error.message}}
        return {step.id: {"changed": True, "failed": False, **result}}

    def _move(self, client: AgentClient, step: Backup | Restore) -> dict[str, Any]:
        if isinstance(step, Backup):
            manifest = volumes.backup(
                client,
                step.volume,
                step.dest,
                compression=step.compression,
                progress=lambda done, total: self._say(f"backing up: {short_size(done)} received"),
            )
            self._moved(step, f"volume {step.volume} to {step.dest}")
            return {"dest": str(step.dest), "files": len(manifest.get("files", ()))}
        restored = volumes.restore(
            client,
            step.volume,
            step.src,
            progress=lambda done, total: self._say(
                f"restoring: {short_size(done)} of {short_size(total)} sent"
            ),
        )
        self._moved(step, f"volume {step.volume} from {step.src}")
        return dict(restored)

    def _moved(self, step: Backup | Restore, message: str) -> None:
        self.recorder.answered(step.id, step.name, "ok", changed=True, message=message)
        self.progress.result(
            self.name, Result(item=step.id, name=step.name, status="ok", changed=True, message=message)
        )

    # outcomes

    def _outcome(self, step: Outcome) -> None:
        if step.status == "unknown":
            self.operations.append(
                Operation(
                    item=step.item,
                    action="run",
                    kind="task",
                    name=step.name,
                    reason=step.message,
                    unknown=True,
                )
            )
            self.unplanned.append(step.name)
            return
        if step.local:
            self.recorder.answered(
                step.item, step.name, step.status, changed=step.changed, message=step.message
            )
            if step.status != "skipped" or self.progress.verbose:
                self.progress.result(
                    self.name,
                    Result(
                        item=step.item,
                        name=step.name,
                        status=step.status,
                        changed=step.changed,
                        message=step.message,
                    ),
                )
        else:
            self.recorder.settle(step.item, changed=step.changed)
        if step.status == "failed":
            self.fail(TaskFailed(f"{step.name}: {step.message or 'failed'}", result=dict(step.result)))

    def _say(self, text: str) -> None:
        self._doing = text
        self.progress.note(self.name, text)


def _with_builds(step: Apply, operations: Iterable[Operation]) -> list[Operation]:
    """What check mode says: an image that is built here before is not pulled."""
    wanted = {
        (item, canonical(build.reference)): build for item, builds in step.builds.items() for build in builds
    }
    kept = [
        operation
        for operation in operations
        if operation.kind != "image"
        or operation.action != "pull"
        or (operation.item, canonical(operation.name)) not in wanted
    ]
    first = [
        Operation(
            item=item,
            action="run",
            kind="build",
            name=build.reference,
            reason=f"of {build.context}",
            unknown=True,
        )
        for (item, _), build in wanted.items()
    ]
    return [*first, *kept]


def _images(spec: HostSpec, blobs: set[str]) -> Iterator[str]:
    """Names of the images that need some of these blobs."""
    for item in spec.items:
        if item.stack is not None:
            for image in item.stack.images:
                if blobs & {*image.blobs, *(blob for other in image.others for blob in other.blobs)}:
                    yield familiar(image.reference)
        elif item.task is not None and blobs & set(item.task.args.get("blobs", ())):
            yield familiar(str(item.task.args["reference"]))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _pieces(path: Path, digest: str, offset: int) -> Iterator[bytes]:
    """What follows after `offset` bytes. Raises before the last piece when it is not what was planned."""
    seen = hashlib.sha256()
    with path.open("rb") as file:
        while offset and (piece := file.read(min(_PIECE, offset))):
            seen.update(piece)
            offset -= len(piece)
        ahead = b""
        while piece := file.read(_PIECE):
            seen.update(piece)
            if ahead:
                yield ahead
            ahead = piece
    if f"sha256:{seen.hexdigest()}" != digest:
        raise InputError(f"{path} has changed since the plan was made", hint="plan again")
    yield ahead
