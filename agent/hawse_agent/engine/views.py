"""What the engine shows of a container, image or volume: snapshots that never wait for a stuck container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hawse_agent.spec.records import ContainerRecord, ContainerStatus, EndpointRecord, PortRecord


@dataclass(frozen=True, kw_only=True)
class HealthEntry:
    start: float
    end: float
    exit_code: int
    output: str


@dataclass(frozen=True, kw_only=True)
class HealthView:
    status: str
    failing_streak: int = 0
    log: tuple[HealthEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ContainerState:
    """Times are epoch seconds, 0.0 when it has not happened."""

    status: ContainerStatus = "created"
    pid: int = 0
    exit_code: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0
    oom_killed: bool = False
    error: str = ""
    restart_count: int = 0
    health: HealthView | None = None
    dropped_log_bytes: int = 0

    @property
    def running(self) -> bool:
        """As Docker's State.Running: paused and restarting count."""
        return self.status in ("running", "paused", "restarting")


@dataclass(frozen=True, kw_only=True)
class ContainerView:
    record: ContainerRecord
    state: ContainerState
    endpoints: tuple[EndpointRecord, ...] = ()
    ports: tuple[PortRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """`name:alias`, with the names of today."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.spec.name


@dataclass(frozen=True, kw_only=True)
class ExecView:
    id: str
    container: str
    argv: tuple[str, ...]
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool
    user: str
    privileged: bool
    detach_keys: str
    running: bool
    pid: int
    exit_code: int | None


def state_from_shim(raw: Mapping[str, Any]) -> ContainerState:
    """From a shim's `state.json`, a `state` reply or `exit.json` (which has no status: it is over)."""
    health = raw.get("health")
    return ContainerState(
        status=raw.get("status", "exited"),
        pid=int(raw.get("pid") or 0),
        exit_code=int(raw.get("exit_code") or 0),
        started_at=float(raw.get("started_at") or 0.0),
        finished_at=float(raw.get("finished_at") or 0.0),
        oom_killed=bool(raw.get("oom", False)),
        error=str(raw.get("error") or ""),
        restart_count=int(raw.get("restart_count") or 0),
        health=_health(health) if health else None,
        dropped_log_bytes=int(raw.get("dropped_log_bytes") or 0),
    )


def _health(raw: Mapping[str, Any]) -> HealthView:
    return HealthView(
        status=str(raw["status"]),
        failing_streak=int(raw.get("failing_streak", 0)),
        log=tuple(
            HealthEntry(
                start=float(entry["start"]),
                end=float(entry["end"]),
                exit_code=int(entry["exit_code"]),
                output=str(entry["output"]),
            )
            for entry in raw.get("log", ())
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of `/events`. `attributes` holds name, image, labels, exitCode…"""

    kind: str
    """container | image | network | volume."""
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time: float = 0.0
