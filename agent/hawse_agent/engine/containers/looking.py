"""What is shown of containers, and waiting for what they become. Waits for no supervisor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from hawse_agent.cgroups import Cgroup, Stats, Tree
from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.live import STOPPED, Waiter
from hawse_agent.engine.register import Register
from hawse_agent.engine.state import State
from hawse_agent.engine.views import ContainerState, ContainerView
from hawse_agent.errors import Conflict, HawseError, NotFound
from hawse_agent.linux import files, namespace
from hawse_agent.paths import Paths
from hawse_agent.spec.container import Resources
from hawse_agent.spec.records import ContainerRecord
from hawse_agent.supervise import logs as shim_logs

END_TIMEOUT = 30.0
"""Seconds from the end of a PID 1 until its supervisor must have told of it."""


class Looking:
    def __init__(
        self,
        *,
        paths: Paths,
        state: State,
        register: Register,
        cgroups: Tree,
        announce: Announcer,
    ) -> None:
        self._paths = paths
        self._state = state
        self._register = register
        self._cgroups = cgroups
        self._announce = announce

    def list(self) -> Sequence[ContainerView]:
        """All containers, newest first; not those of builds."""
        known = [pair for pair in self._register.all() if not pair[0].of_build]
        known.sort(key=lambda pair: pair[0].created, reverse=True)
        endpoints: dict[str, list[Any]] = {}
        ports: dict[str, list[Any]] = {}
        for endpoint in self._state.endpoints():
            endpoints.setdefault(endpoint.container, []).append(endpoint)
        for port in self._state.ports():
            ports.setdefault(port.container, []).append(port)
        return [
            ContainerView(
                record=record,
                state=live.state,
                endpoints=tuple(endpoints.get(record.id, ())),
                ports=tuple(ports.get(record.id, ())),
            )
            for record, live in known
        ]

    def get(self, reference: str) -> ContainerView:
        record, live = self._register.find(reference)
        return ContainerView(
            record=record,
            state=live.state,
            endpoints=tuple(self._state.endpoints(record.id)),
            ports=tuple(self._state.ports(record.id)),
            links=tuple(f"{other.spec.name}:{alias}" for other, alias in self.linked(record)),
        )

    def linked(self, record: ContainerRecord) -> Iterator[tuple[ContainerRecord, str]]:
        """Those that it knows by a link, each with its alias. One that is removed takes the link along."""
        for link in record.spec.links:
            other, _, alias = link.partition(":")
            with contextlib.suppress(NotFound):
                yield self._register.record(other), alias

    def record(self, reference: str) -> ContainerRecord:
        return self._register.record(reference)

    def cgroup(self, container_id: str) -> Cgroup:
        return self._cgroups.open(container_id)

    def limits(self, container_id: str) -> Resources | None:
        """What the cgroup's files say now; None when the container has none."""
        try:
            return self._cgroups.open(container_id).limits()
        except (NotFound, FileNotFoundError):
            return None

    def size(self, reference: str) -> int:
        """Bytes on the disk of the files that the container has written over its image."""
        upper = self._paths.container(self._register.record(reference).id) / "upper"
        return files.disk_usage(upper, directories=False)

    def stats(self, reference: str) -> Stats:
        return self._cgroups.open(self._register.record(reference).id).stats()

    def top(self, reference: str) -> Sequence[int]:
        """Its processes, as this PID namespace numbers them; raises Conflict when it has none."""
        view = self.get(reference)
        if not view.state.running:
            raise Conflict(f"Container {view.id} is not running")
        if view.state.status == "restarting":
            raise Conflict(f"Container {view.id} is restarting, wait until the container is running")
        try:
            pids = self._cgroups.open(view.id).pids()
        except (NotFound, FileNotFoundError):  # it has just ended
            raise Conflict(f"Container {view.id} is not running") from None
        self._announce.container("top", view.record)
        return pids

    def logs(
        self,
        reference: str,
        *,
        follow: bool = False,
        since: float | None = None,
        until: float | None = None,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[shim_logs.LogRecord]:
        """With `follow` until its run ends, over restarts by its policy."""
        record, live = self._register.find(reference)
        if live.state.status == "dead":
            raise Conflict("can not get logs from container which is dead or marked for removal")
        run = live.runs_over
        return shim_logs.read(
            self._paths.container(record.id) / f"{record.id}-json.log",
            follow=follow,
            since=since,
            until=until,
            tail=tail,
            stdout=stdout,
            stderr=stderr,
            stop=lambda: stop() or live.state.status in STOPPED or live.runs_over != run,
        )

    def waiter(
        self, reference: str, condition: Literal["not-running", "next-exit", "removed"] = "not-running"
    ) -> Waiter:
        _, live = self._register.find(reference)
        if condition == "next-exit":
            return live.next_exit()
        return live.removal() if condition == "removed" else live.not_running()

    def wait_healthy(self, reference: str, timeout: float) -> ContainerState:
        """Until healthy (or running, without a health check), unhealthy, or ended."""
        _, live = self._register.find(reference)

        def settled(state: ContainerState) -> bool:
            if state.status != "running":
                return state.status in STOPPED
            return state.health is None or state.health.status != "starting"

        live.wait(settled, timeout)
        return live.state

    def wait_completed(self, reference: str, timeout: float) -> ContainerState:
        _, live = self._register.find(reference)
        live.wait(lambda state: state.status in STOPPED, timeout)
        return live.state

    def has_stopped(self, container_id: str) -> bool:
        """Or is gone."""
        known = self._register.known(container_id)
        return known is None or known[1].state.status in STOPPED

    def check_executable(self, container_id: str) -> None:
        """Raises Conflict when nothing can be executed in it now."""
        state = self._register.live(container_id).state
        if state.status == "paused":
            raise Conflict(f"Container {container_id} is paused, unpause the container before exec")
        if state.status == "restarting":
            raise Conflict(f"Container {container_id} is restarting, wait until the container is running")
        if state.status != "running":
            raise Conflict(f"container {container_id} is not running")

    def open_init(self, container_id: str) -> int | None:
        """An owned pidfd of its PID 1; None when it does not run. An end that is under way is waited for."""
        while True:
            _, live = self._register.find(container_id)
            state = live.state
            if state.pid and (pidfd := self._checked_pidfd(container_id, state.pid)) is not None:
                return pidfd
            if not state.pid and state.status not in ("running", "paused"):
                return None

            def changed(now: ContainerState, before: ContainerState = state) -> bool:
                return (now.pid, now.status) != (before.pid, before.status)

            if not live.wait(changed, END_TIMEOUT):
                raise HawseError(f"container {container_id} has ended, but its supervisor does not say so")

    def _checked_pidfd(self, container_id: str, pid: int) -> int | None:
        """None when the process has ended: its number may be another's by now, so it must be one of the
        container's cgroup, and live still when that was read."""
        try:
            pidfd = namespace.pidfd_open(pid)
        except ProcessLookupError:
            return None
        with contextlib.suppress(NotFound, FileNotFoundError):
            if pid in self._cgroups.open(container_id).pids() and not namespace.has_ended(pidfd):
                return pidfd
        os.close(pidfd)
        return None
