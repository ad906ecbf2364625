"""A pretended fleet behind `Reach`: files that `copy` writes, and a record of what was asked."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hawse.fleet.client import AgentClient, PlanAnswer
from hawse.images.store import ImageStore
from hawse.inventory import Connection, Host
from hawse.playbook import Run, load
from hawse.report.console import Console
from hawse.runner.builder import Builder
from hawse.runner.fleet import Finished, Runner, play_works, validate
from hawse.ssh.target import Target
from hawse_agent.errors import HawseError, NotFound, PlanChanged, TaskFailed, Unreachable
from hawse_agent.plan.operations import Change, Operation, Plan, make_plan
from hawse_agent.spec import codec
from hawse_agent.spec.host import HostSpec, Item


@dataclass(kw_only=True)
class FakeAgent:
    """As much of an agent as plays of copy, command and volumes need."""

    name: str
    files: dict[str, str] = field(default_factory=dict)
    facts_known: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    volumes: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    """Commands, in order; `false` fails."""
    specs: list[HostSpec] = field(default_factory=list)
    cut_uploads: int = 0
    """So many are cut, each with its connection."""
    cut_at: str = ""
    """The command at which the connection breaks."""
    hold: str = ""
    """The command that lasts until `cut`."""
    holding: threading.Event = field(default_factory=threading.Event)
    was_cut: threading.Event = field(default_factory=threading.Event)

    def facts(self) -> dict[str, Any]:
        self.asked.append("facts")
        return {"ansible_hostname": self.name, **self.facts_known}

    def plan(self, spec: HostSpec) -> PlanAnswer:
        self.asked.append("plan")
        wanted = {item.task.args.get("content_blob") for item in spec.items if item.task is not None}
        missing = tuple(str(digest) for digest in wanted if digest and digest not in self.blobs)
        return PlanAnswer(plan=self._plan(spec), missing_blobs=missing)

    def apply(self, spec: HostSpec, digest: str, *, headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        self.asked.append("apply")
        self.specs.append(spec)
        if self._plan(spec).digest != digest:
            raise PlanChanged("the host has changed since the plan was made")
        for item in spec.items:
            yield from self._item(item)
            if self._fails(item) and not item.ignore_errors:
                error = TaskFailed(f"{item.name}: it returned 1").to_wire()
                yield {"event": "end", "changed": 1, "failed": True, "error": error}
                return
        yield {"event": "end", "changed": 1, "failed": False}

    def second(self) -> FakeAgent:
        return self

    def blob_offset(self, digest: str) -> int | None:
        return None if digest in self.blobs else 0

    def upload_blob(self, digest: str, pieces: Iterable[bytes], size: int, *, offset: int) -> None:
        self.asked.append("upload")
        if self.cut_uploads:
            self.cut_uploads -= 1
            raise Unreachable(f"{self.name}: cut", stage="tcp")
        data = b"".join(pieces)
        assert len(data) == size and f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
        self.blobs[digest] = data

    def restore_volume(
        self, name: str, manifest: Mapping[str, Any], pieces: Iterable[bytes]
    ) -> dict[str, Any]:
        self.asked.append("restore")
        if name not in self.volumes:
            raise NotFound(f"no such volume: {name}")
        self.volumes[name] = b"".join(pieces)
        return {"files": 1, "bytes": len(self.volumes[name]), "restarted": []}

    def close(self) -> None:
        self.asked.append("close")

    def __enter__(self) -> FakeAgent:
        return self

    def __exit__(self, *_: object) -> None:
        """The control channel stays: `second` gives the same."""

    def _plan(self, spec: HostSpec) -> Plan:
        return make_plan(operation for item in spec.items for operation in self._operations(item))

    def _operations(self, item: Item) -> Iterator[Operation]:
        assert item.task is not None
        args = item.task.args
        if item.task.module != "copy":
            yield Operation(item=item.id, action="run", kind="command", name=item.name, unknown=True)
        elif self.files.get(args["dest"]) != _content(args):
            old = self.files.get(args["dest"], "absent")
            change = Change(field="content", old=old, new=_content(args))
            yield Operation(
                item=item.id,
                action="update",
                kind="file",
                name=str(args["dest"]),
                changes=(change,),
                diff=f"-{old}\n+{_content(args)}",
            )

    def _item(self, item: Item) -> Iterator[dict[str, Any]]:
        assert item.task is not None
        operations = list(self._operations(item))
        for operation in operations:
            said = {"event": "operation", "operation": codec.to_json(operation)}
            yield {**said, "status": "start"}
            if item.task.module == "copy":
                self.files[item.task.args["dest"]] = _content(item.task.args)
            else:
                self._command(str(item.task.args["cmd"]))
            yield {**said, "status": "failed" if self._fails(item) else "ok", "seconds": 0.1}
        failed, changed = self._fails(item), bool(operations)
        result = {"changed": changed, "failed": failed, "rc": int(failed), "stdout": f"out of {item.name}"}
        yield {"event": "item", "id": item.id, "changed": changed, "failed": failed, "result": result}

    def _command(self, command: str) -> None:
        self.ran.append(command)
        if command == self.hold:
            self.holding.set()
            assert self.was_cut.wait(10)
        if command in (self.cut_at, self.hold):
            raise _cut(self.name)

    def _fails(self, item: Item) -> bool:
        assert item.task is not None
        return item.task.args.get("cmd") == "false"


def _content(args: Mapping[str, Any]) -> str:
    if "content_blob" in args:
        return str(args["content_blob"])
    return base64.b64decode(args["content_b64"]).decode()


def _cut(host: str) -> HawseError:
    return Unreachable(f"{host}: the peer has gone", stage="agent")


@dataclass(kw_only=True)
class FakeReach:
    agents: dict[str, FakeAgent]
    lost: dict[str, HawseError] = field(default_factory=dict)
    """Hosts out of reach."""
    bare: set[str] = field(default_factory=set)
    """Hosts without an agent."""
    connected: list[str] = field(default_factory=list)

    def agent(self, host: str, say: Callable[[str], None]) -> AgentClient:
        self.bare.discard(host)
        client = self.existing(host)
        assert client is not None
        return client

    def again(self, host: str, say: Callable[[str], None]) -> AgentClient:
        return self.agent(host, say)

    def existing(self, host: str) -> AgentClient | None:
        self.connected.append(host)
        if host in self.lost:
            raise self.lost[host]
        return None if host in self.bare else cast(AgentClient, self.agents[host])

    def login_user(self, host: str) -> str:
        return "alice"

    def cut(self, host: str) -> None:
        self.agents[host].was_cut.set()


@dataclass(kw_only=True)
class Scene:
    """A directory for playbooks, and the fleet."""

    directory: Path
    run: Run
    reach: FakeReach
    out: io.StringIO = field(default_factory=io.StringIO)
    diff: bool = False
    runner: Runner | None = None

    def __getitem__(self, host: str) -> FakeAgent:
        return self.reach.agents[host]

    def write(self, text: str) -> Path:
        path = self.directory / "p.yml"
        path.write_text(text)
        return path

    def play(self, text: str, **settings: Any) -> Finished:
        """As `hawse play` does it: validate all, then run."""
        plays = load(self.write(text))
        run = self.settings(**settings)
        validate(plays, run, connection)
        return self.new_runner(check=run.check).run(play_works(plays, run, connection))

    def tasks(self, text: str, **settings: Any) -> Finished:
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        return self.play(f"- hosts: all\n  tasks:\n{indented}", **settings)

    def settings(self, **settings: Any) -> Run:
        return Run(inventory=self.run.inventory, project=self.directory, **settings)

    def new_runner(self, *, check: bool = False, run_id: str = "run-1") -> Runner:
        images = ImageStore(self.directory / "images")
        self.runner = Runner(
            run_id=run_id,
            command="play p.yml",
            user="alice",
            reach=self.reach,
            images=images,
            builder=Builder(images=images, local=lambda: None, remote=self.reach.agent, headers=dict),
            registries=lambda registries: {},
            console=Console(self.out, diff=self.diff),
            forks=8,
            check=check,
        )
        return self.runner

    def ran(self) -> dict[str, list[str]]:
        return {name: agent.ran for name, agent in self.reach.agents.items() if agent.ran}


def connection(host: Host) -> Connection:
    return Connection(target=Target(name=host.name))


def outcomes(finished: Finished) -> dict[str, str]:
    return {host.host: host.outcome for host in finished.report.hosts}
