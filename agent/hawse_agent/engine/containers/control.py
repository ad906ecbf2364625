"""What is done to a container that runs, and clearing up after its run."""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hawse_agent.cgroups import Tree
from hawse_agent.engine import checks, resolve
from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers.shims import Shims
from hawse_agent.engine.images import Images
from hawse_agent.engine.live import STOPPED, Live
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.register import Register
from hawse_agent.engine.views import ContainerState
from hawse_agent.errors import Conflict, HostRefused, NotFound, OutOfSpace
from hawse_agent.failpoints import reach
from hawse_agent.paths import Paths
from hawse_agent.spec.container import Resources, RestartPolicy
from hawse_agent.spec.records import ContainerRecord

END_TIMEOUT = 30.0
"""Seconds from SIGKILL until an end that does not come is given up."""

STUCK_TIMEOUT = 5.0
"""Seconds from SIGKILL until it is looked at why a container has not ended."""


class Control:
    def __init__(
        self,
        *,
        paths: Paths,
        register: Register,
        shims: Shims,
        cgroups: Tree,
        images: Images,
        networks: Networks,
        announce: Announcer,
    ) -> None:
        self._paths = paths
        self._register = register
        self._shims = shims
        self._cgroups = cgroups
        self._images = images
        self._networks = networks
        self._announce = announce

    def stop(self, reference: str, *, signal: str = "", timeout: float | None = None) -> bool:
        """False when it does not run (Docker's 304)."""
        record, live = self._register.find(reference)
        with live.lock:
            if not live.state.running:
                return False
            number = resolve.signal_number(signal) if signal else self._stop_signal(record)
            grace = timeout if timeout is not None else self._grace(record)
            self.end(record, live, signal=number, timeout=grace)
            self._announce.container("stop", record)
        return True

    def end(self, record: ContainerRecord, live: Live, *, signal: int, timeout: float) -> None:
        reach("stop: record")
        self._register.amend(record.id, desired="stopped")
        reach("stop: ask")
        self.ask_to_end(record, signal=signal, timeout=timeout)
        reach("stop: wait")
        self._await_end(record, live, timeout)

    def ask_to_end(self, record: ContainerRecord, *, signal: int, timeout: float) -> None:
        try:
            self._shims.reach(record.id).stop(signal=signal, timeout=timeout)
        except (ConnectionError, FileNotFoundError):
            pass  # it ended on its own in the meantime; the watcher reports how

    def _await_end(self, record: ContainerRecord, live: Live, timeout: float) -> None:
        """Its stop was asked for. Raises HostRefused when SIGKILL, `timeout` seconds later, is in vain."""

        def ended(state: ContainerState) -> bool:
            return state.status in STOPPED

        if timeout < 0:
            live.wait(ended, None)
            return
        if live.wait(ended, timeout + STUCK_TIMEOUT):
            return
        pid = live.state.pid
        stuck = pid > 0 and _is_uninterruptible(pid)
        if not stuck and live.wait(ended, END_TIMEOUT - STUCK_TIMEOUT):
            return
        raise HostRefused(
            f"container {record.spec.name} does not end, not even by SIGKILL"
            + (f": its process {pid} waits for the kernel (state D)" if stuck else ""),
            hint="it ends by itself once the kernel lets it: look for a frozen cgroup or a disk that hangs",
        )

    def kill(self, reference: str, signal: str = "KILL") -> None:
        record, live = self._register.find(reference)
        number = resolve.signal_number(signal)
        if not live.state.running:
            raise Conflict(f"container {record.id} is not running")
        final = number in (9, self._stop_signal(record))
        if final:  # wanted: the policy does not bring it back
            self._register.amend(record.id, desired="stopped")
        elif live.state.status == "restarting":
            raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
        with self._shims.asking(record.id) as shim:
            if live.state.status == "restarting":  # there is no process: it is the restart that ends
                shim.stop(signal=number, timeout=0)
            else:
                shim.signal(number)

    def pause(self, reference: str) -> None:
        record, live = self._register.find(reference)
        with live.lock:
            if live.state.status == "paused":
                raise Conflict(f"Container {record.id} is already paused")
            if live.state.status == "restarting":
                raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
            if live.state.status != "running":
                raise Conflict(f"Container {record.id} is not running")
            with self._shims.asking(record.id) as shim:
                shim.pause()
            live.change(status="paused")
        self._announce.container("pause", record)

    def unpause(self, reference: str) -> None:
        record, live = self._register.find(reference)
        with live.lock:
            if live.state.status != "paused":
                raise Conflict(f"Container {record.id} is not paused")
            with self._shims.asking(record.id) as shim:
                shim.unpause()
            live.change(status="running")
        self._announce.container("unpause", record)

    def update(
        self, reference: str, *, resources: Resources | None = None, restart: RestartPolicy | None = None
    ) -> None:
        """Change limits and restart policy of a container, running or not."""
        if resources is not None:
            checks.check_resources(resources)
        record, live = self._register.find(reference)
        with live.lock:
            if live.state.running:
                with contextlib.suppress(ConnectionError, FileNotFoundError):  # it ends just now
                    self._shims.reach(record.id).update(
                        resources=None if resources is None else resolve.with_swap(resources), restart=restart
                    )
            changed: dict[str, Any] = {"resources": resources, "restart": restart}
            wanted = {name: value for name, value in changed.items() if value is not None}
            record = self._register.rewrite(
                record.id, lambda now: replace(now, spec=replace(now.spec, **wanted))
            )
        self._announce.container("update", record)

    def reapply_limits(self, reference: str) -> None:
        """Write the spec's limits into the cgroup again."""
        record = self._register.record(reference)
        self._shims.reach(record.id).update(resources=resolve.with_swap(record.spec.resources), restart=None)

    def let_go(self, record: ContainerRecord) -> None:
        """What its run held is free again. On a full disk it stays taken until it starts again or goes."""
        try:
            freed = self._networks.release(record.id)
        except OutOfSpace as error:
            text = f"hawse-agent: {record.spec.name} keeps its addresses: {error}"
            print(text, file=sys.stderr, flush=True)
        else:
            self._announce.let_go(record, freed)

    def forget_run(self, record: ContainerRecord) -> None:
        """Remove what a dead shim left: its cgroup (with whatever is still in it) and its run directory."""
        with contextlib.suppress(NotFound, FileNotFoundError):
            cgroup = self._cgroups.open(record.id)
            cgroup.kill()
            cgroup.remove()
        shutil.rmtree(self._paths.shim(record.id), ignore_errors=True)

    def _stop_signal(self, record: ContainerRecord) -> int:
        image = self._images.get(record.image_id)
        return resolve.signal_number(record.spec.stop_signal or image.config.stop_signal)

    def _grace(self, record: ContainerRecord) -> float:
        timeout = record.spec.stop_timeout
        return float(resolve.DEFAULT_STOP_TIMEOUT if timeout is None else timeout)


def _is_uninterruptible(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].startswith("D")
    except (FileNotFoundError, ProcessLookupError):
        return False
