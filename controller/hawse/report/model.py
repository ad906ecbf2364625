"""What a run did on each host, and how each host is. Data only; `console` shows it, `history` keeps it.

    RunReport ── HostRun per host ── Result per operation or local task
    HostReport (from the agent) ── ContainerReport, VolumeReport, ImageReport, Disk

Counts of a host: `changed` operations that changed something, `ok` items that ended well (changed or not),
`failed` and `skipped` items, `unreachable` 0 or 1. An item is a task of a play or a whole stack.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from hawse_agent.errors import HawseError, Unreachable, from_wire
from hawse_agent.plan.operations import Operation
from hawse_agent.spec import codec
from hawse_agent.spec.container import Resources

Status = Literal["ok", "failed", "ignored", "skipped", "cut"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One operation that the agent ran, or a task that the controller answered itself (no `operation`)."""

    item: str
    name: str
    status: Status
    changed: bool = False
    operation: Operation | None = None
    seconds: float = 0.0
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class HostRun:
    host: str
    ok: int = 0
    changed: int = 0
    failed: int = 0
    skipped: int = 0
    unreachable: int = 0
    seconds: float = 0.0
    results: tuple[Result, ...] = ()
    error: Mapping[str, Any] | None = None
    """`HawseError.to_wire()` of what ended the run on this host."""

    @property
    def outcome(self) -> Literal["unreachable", "failed", "changed", "ok"]:
        if self.unreachable:
            return "unreachable"
        if self.failed or self.error is not None:
            return "failed"
        return "changed" if self.changed else "ok"

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return from_wire(dict(self.error)).exit_code
        return 1 if self.failed else 0

    @property
    def message(self) -> str:
        return str(self.error.get("message", "")) if self.error is not None else ""

    @property
    def hint(self) -> str:
        return str(self.error.get("hint", "")) if self.error is not None else ""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    id: str
    command: str
    """The command line without secrets, as a person would say it: `play playbooks/site.yml --check`."""
    started: float
    seconds: float = 0.0
    check: bool = False
    user: str = ""
    hosts: tuple[HostRun, ...] = ()

    @property
    def totals(self) -> Mapping[str, int]:
        return {name: sum(getattr(host, name) for host in self.hosts) for name in COUNTS}

    @property
    def exit_code(self) -> int:
        """The worst of the hosts'."""
        return max((host.exit_code for host in self.hosts), default=0)


def run_json(run: RunReport) -> dict[str, Any]:
    """Every field, for `--json`: unlike on the wire, a script finds the same keys each time."""
    hosts = [{**asdict(host), "outcome": host.outcome} for host in run.hosts]
    return {**asdict(run), "hosts": hosts, "totals": dict(run.totals), "exit_code": run.exit_code}


COUNTS = ("ok", "changed", "failed", "skipped", "unreachable")


@dataclass(kw_only=True)
class HostRecorder:
    """Collects one host's run from the agent's events and the controller's own answers. One thread a host."""

    host: str
    started: float = field(default_factory=time.monotonic)
    _ended: float | None = None
    _results: list[Result] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _open_failures: int = 0
    _error: HawseError | None = None

    def event(self, event: Mapping[str, Any]) -> None:
        """One JSON line of `POST /hawse/v1/apply`; kinds it does not know are for others."""
        if event.get("event") == "operation" and event.get("status") in ("ok", "failed"):
            self._operation(event)
        elif event.get("event") == "item" and event.get("failed"):
            self._open_failures += 1  # whether it was ignored shows at the end
        elif event.get("event") == "item":
            self._counts["ok"] += 1
        elif event.get("event") == "end":
            self._end(event)

    def answered(
        self,
        item: str,
        name: str,
        status: Status,
        *,
        changed: bool = False,
        message: str = "",
    ) -> None:
        """A task that did not go to the host: debug, assert, set_fact, or skipped by its condition."""
        self._results.append(Result(item=item, name=name, status=status, changed=changed, message=message))
        self._counts[
            "ok" if status in ("ok", "ignored") else "failed" if status == "failed" else "skipped"
        ] += 1
        self._counts["changed"] += int(changed)

    def settle(self, item: str, *, changed: bool) -> None:
        """What a task came to in the end: `changed_when` may say that nothing has changed."""
        if changed:
            return
        for index, result in enumerate(self._results):
            if result.item == item and result.changed:
                self._results[index] = replace(result, changed=False)
                self._counts["changed"] -= 1

    @property
    def error(self) -> HawseError | None:
        """What has ended the run here so far."""
        return self._error

    def overrule(self, error: HawseError) -> None:
        """A better reason than the one that the host's thread saw: it was interrupted."""
        self._error = error

    def fail(self, error: HawseError) -> None:
        """What ended the run here: out of reach, or refused as a whole. The first one counts."""
        if self._error is None:
            self._error = error

    def stop(self) -> None:
        """The host is at rest now; what it does in a later play moves this on."""
        self._ended = time.monotonic()

    def finish(self) -> HostRun:
        unreachable = isinstance(self._error, Unreachable)
        failed = self._counts["failed"] + self._open_failures
        if self._error is not None and not unreachable:
            failed = max(failed, 1)
        return HostRun(
            host=self.host,
            ok=self._counts["ok"],
            changed=self._counts["changed"],
            failed=failed,
            skipped=self._counts["skipped"],
            unreachable=int(unreachable),
            seconds=round((self._ended or time.monotonic()) - self.started, 3),
            results=tuple(self._results),
            error=self._error.to_wire() if self._error is not None else None,
        )

    def _operation(self, event: Mapping[str, Any]) -> None:
        # The history does not keep what is in files.
        operation = replace(codec.from_json(Operation, event["operation"]), diff="")
        failed = event["status"] == "failed"
        changed = bool(event.get("changed", not failed))
        error = event.get("error") or {}
        self._results.append(
            Result(
                item=operation.item,
                name=operation.name,
                status="failed" if failed else "ok",
                changed=changed,
                operation=operation,
                seconds=float(event.get("seconds", 0.0)),
                message=str(error.get("message", "")),
            )
        )
        self._counts["changed"] += int(changed)

    def _end(self, event: Mapping[str, Any]) -> None:
        if event.get("failed"):
            error = dict(event.get("error") or {"message": "failed"})
            last = self._results[-1] if self._results else None
            if last and last.operation and last.status == "failed" and last.name not in error["message"]:
                operation = last.operation
                error["message"] = f"{operation.action} {operation.kind} {operation.name}: {error['message']}"
            self.fail(from_wire(error))
            return
        self._counts["ok"] += self._open_failures  # ignored
        self._open_failures = 0


# how a host is


@dataclass(frozen=True, kw_only=True)
class ContainerReport:
    name: str
    image: str = ""
    stack: str = ""
    service: str = ""
    status: str = ""
    health: str = ""
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    restarts: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0
    restart_policy: str = "no"
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    limits: Resources = Resources()
    """What the cgroup says now."""
    memory: int = 0
    cpu_ns: int = 0
    pids: int = 0
    volumes: Mapping[str, str] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Running and not unhealthy, or done with exit code 0."""
        if self.status == "exited":
            return self.exit_code == 0
        return self.status == "running" and self.health not in ("unhealthy",)


@dataclass(frozen=True, kw_only=True)
class VolumeReport:
    name: str
    users: tuple[str, ...] = ()
    size: int | None = None
    """None when nobody asked for it: it walks the volume."""


@dataclass(frozen=True, kw_only=True)
class ImageReport:
    id: str
    tags: tuple[str, ...] = ()
    size: int = 0
    users: int = 0


@dataclass(frozen=True, kw_only=True)
class HostReport:
    host: str
    time: float
    agent_version: str = ""
    containers: tuple[ContainerReport, ...] = ()
    volumes: tuple[VolumeReport, ...] = ()
    images: tuple[ImageReport, ...] = ()
    disk_path: str = ""
    disk_total: int = 0
    disk_free: int = 0

    @property
    def states(self) -> Mapping[str, int]:
        return Counter(container.status for container in self.containers)


def host_report(host: str, data: Mapping[str, Any]) -> HostReport:
    """What `GET /hawse/v1/report` answered. Keys that a newer agent adds are left alone."""
    agent, disk = data.get("agent") or {}, data.get("disk") or {}
    return HostReport(
        host=host,
        time=float(data.get("time", 0.0)),
        agent_version=str(agent.get("version", "")),
        containers=tuple(_container(item) for item in data.get("containers", ())),
        volumes=tuple(
            VolumeReport(name=item["name"], users=tuple(item.get("users", ())), size=item.get("size"))
            for item in data.get("volumes", ())
        ),
        images=tuple(
            ImageReport(
                id=item["id"],
                tags=tuple(item.get("tags", ())),
                size=item.get("size", 0),
                users=item.get("users", 0),
            )
            for item in data.get("images", ())
        ),
        disk_path=str(disk.get("path", "")),
        disk_total=int(disk.get("total", 0)),
        disk_free=int(disk.get("free", 0)),
    )


def fleet_json(reports: Mapping[str, HostReport | HawseError]) -> dict[str, Any]:
    """Host → its report, or `{"error": …}`, for `--json`."""
    return {
        host: {"error": report.to_wire()}
        if isinstance(report, HawseError)
        else {**asdict(report), "states": dict(report.states)}
        for host, report in reports.items()
    }


def _container(data: Mapping[str, Any]) -> ContainerReport:
    usage = data.get("usage") or {}
    return ContainerReport(
        name=data["name"],
        image=data.get("image", ""),
        stack=data.get("stack", ""),
        service=data.get("service", ""),
        status=data.get("status", ""),
        health=data.get("health", ""),
        exit_code=data.get("exit_code") or 0,
        error=data.get("error", ""),
        oom_killed=bool(data.get("oom_killed")),
        restarts=data.get("restarts", 0),
        started_at=data.get("started_at") or 0.0,
        finished_at=data.get("finished_at") or 0.0,
        restart_policy=data.get("restart_policy", "no"),
        addresses=tuple(data.get("addresses", ())),
        ports=tuple(data.get("ports", ())),
        limits=codec.from_json(Resources, _known(data.get("limits") or {}, Resources)),
        memory=usage.get("memory", 0),
        cpu_ns=usage.get("cpu_ns", 0),
        pids=usage.get("pids", 0),
        volumes=data.get("volumes") or {},
    )


def _known(data: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names: Iterable[str] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: data[name] for name in names if name in data}
