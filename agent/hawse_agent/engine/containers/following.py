"""What follows from what supervisors tell: ends, restarts, health; and from their own end.

Called by the watcher's thread, which waits for nobody.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers.control import Control
from hawse_agent.engine.containers.removal import Removal
from hawse_agent.engine.containers.shims import Shims
from hawse_agent.engine.containers.starting import Starting
from hawse_agent.engine.live import Live
from hawse_agent.engine.register import Register
from hawse_agent.engine.views import ContainerState, state_from_shim
from hawse_agent.errors import HawseError
from hawse_agent.paths import Paths
from hawse_agent.spec.records import ContainerRecord
from hawse_agent.supervise.client import Watcher


class Following:
    def __init__(
        self,
        *,
        paths: Paths,
        register: Register,
        shims: Shims,
        watcher: Watcher,
        control: Control,
        removal: Removal,
        starting: Starting,
        announce: Announcer,
    ) -> None:
        self._paths = paths
        self._register = register
        self._shims = shims
        self._watcher = watcher
        self._control = control
        self._removal = removal
        self._starting = starting
        self._announce = announce
        self._exec_ended: Callable[[str, int], None] = lambda exec_id, exit_code: None

    def watch(self, container_id: str, stream: socket.socket) -> None:
        self._watcher.add(container_id, stream, self._on_event)

    def _on_event(self, container_id: str, event: dict[str, Any] | None) -> None:
        """Called by the watcher's thread; None is the end of the stream without `gone`: the shim died."""
        known = self._register.known(container_id)
        if known is None:
            return
        record, live = known
        if event is None:
            self._lost(record, live)
            return
        kind = event.get("event")
        if kind is None:  # the answer of one that was asked to be watched
            live.apply_shim(event["state"])
        elif kind == "exited":
            self._exited(record, live, event)
        elif kind == "restarted":
            live.change(
                status="running",
                pid=event["pid"],
                exit_code=0,
                started_at=event["started_at"],
                restart_count=event.get("restart_count", live.state.restart_count + 1),
                oom_killed=False,
                error="",
            )
            self._announce.container("start", record)
        elif kind == "health":
            before = live.state.health
            live.apply_shim(event["state"])
            if before is None or before.status != event["status"]:
                self._announce.container(f"health_status: {event['status']}", record)
        elif kind == "oom":
            live.change(oom_killed=True)
            self._announce.container("oom", record)
        elif kind in ("paused", "unpaused"):
            live.change(status="paused" if kind == "paused" else "running")
        elif kind == "signalled":
            self._announce.container("kill", record, signal=str(event["signal"]))
        elif kind == "dropped":
            live.change(dropped_log_bytes=event["bytes"])
        elif kind == "detached":
            self._announce.container("detach", record)
        elif kind == "exec_detached":
            self._announce.container("exec_detach", record, execID=event["exec"])
        elif kind == "exec_exited":
            self._exec_ended(event["exec"], event["exit_code"])
            code = str(event["exit_code"])
            self._announce.container("exec_die", record, execID=event["exec"], exitCode=code)
        elif kind == "gone":
            self._gone(record, live, event["state"])

    def _exited(self, record: ContainerRecord, live: Live, event: dict[str, Any]) -> None:
        status = "restarting" if event.get("restarting") else "exited"
        lasted = max(0.0, event["finished_at"] - live.state.started_at)
        code = str(event["exit_code"])
        self._announce.container("die", record, exitCode=code, execDuration=str(int(lasted)))
        live.exited(
            status=live.state.status if status == "exited" else status,
            exit_code=event["exit_code"],
            oom_killed=event.get("oom", False),
            finished_at=event["finished_at"],
            pid=0,
            error=event.get("error", ""),
        )

    def _gone(self, record: ContainerRecord, live: Live, state: dict[str, Any]) -> None:
        """The shim has cleaned up and left: addresses and ports are free again."""
        self._control.let_go(record)
        live.apply_shim(state)
        if record.spec.auto_remove:
            threading.Thread(target=self._removal.auto_remove, args=(record, live), daemon=True).start()

    def _lost(self, record: ContainerRecord, live: Live) -> None:
        """The shim was killed and took its container along (PDEATHSIG); the policy decides what follows."""
        if self._watch_again(record, live):  # it lives, and only the stream was lost
            return
        told = self._paths.container(record.id) / "exit.json"
        if told.exists():  # it had ended before its shim did
            ended = self.ended_state(record)
        else:
            error = "the container's supervisor was killed"
            ended = ContainerState(status="exited", exit_code=137, finished_at=time.time(), error=error)
        lasted = max(0.0, ended.finished_at - live.state.started_at)
        self._announce.container("die", record, exitCode=str(ended.exit_code), execDuration=str(int(lasted)))
        self._control.let_go(record)
        live.exited(
            status="exited",
            exit_code=ended.exit_code,
            oom_killed=ended.oom_killed,
            finished_at=ended.finished_at,
            pid=0,
            error=ended.error,
        )

        def follow_up() -> None:
            with live.lock:
                known = self._register.known(record.id)
                if known is None or live.state.running:  # removed, or started again by somebody
                    return
                now = known[0]
                self._control.forget_run(now)
                if self.restarts_after_loss(now, live.state):
                    with contextlib.suppress(HawseError):  # kept in the state, shown by inspect
                        self._starting.run(now, live)
                elif now.spec.auto_remove:
                    self._removal.auto_remove(now, live)

        threading.Thread(target=follow_up, daemon=True).start()

    def _watch_again(self, record: ContainerRecord, live: Live) -> bool:
        """False when it has no shim any more. How it is now comes as the stream's first word."""
        try:
            watch = self._shims.reach(record.id).ask_to_watch()
        except (ConnectionError, FileNotFoundError):
            return False
        except BlockingIOError:
            self.reach_later(record, live)
        else:
            self.watch(record.id, watch)
        return True

    def believe_file(self, record: ContainerRecord, live: Live) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            live.apply_shim(json.loads((self._paths.shim(record.id) / "state.json").read_bytes()))
        live.change(error="the container's supervisor does not answer")

    def reach_later(self, record: ContainerRecord, live: Live) -> None:
        """Of a shim that is held up, with so many waiting for it that no more can."""

        def wait() -> None:
            try:
                watch = self._shims.reach(record.id).ask_to_watch(patient=True)
            except (ConnectionError, FileNotFoundError):
                self._lost(record, live)
            else:
                self.watch(record.id, watch)

        threading.Thread(target=wait, name="reach", daemon=True).start()

    def ended_state(self, record: ContainerRecord) -> ContainerState:
        """What is left of a run: exit.json, or nothing when it never ran."""
        path = self._paths.container(record.id) / "exit.json"
        try:
            return state_from_shim(json.loads(path.read_bytes()))
        except (ValueError, TypeError, AttributeError):  # half a file: a power cut
            return ContainerState(
                status="exited", exit_code=137, error="how it ended was lost with the power"
            )
        except FileNotFoundError:
            if record.desired == "running":  # it ran, and neither shim nor exit.json says how it ended
                return ContainerState(
                    status="exited", exit_code=137, error="ended with its supervisor or with the host"
                )
            return ContainerState()

    def restarts_after_loss(self, record: ContainerRecord, state: ContainerState) -> bool:
        mode = record.spec.restart.mode
        if mode == "always":
            return state.status != "created"
        if record.desired != "running":
            return False
        if mode == "on-failure":
            return state.exit_code != 0 and state.status == "exited"
        return mode == "unless-stopped"

    def when_exec_ends(self, callback: Callable[[str, int], None]) -> None:
        """`callback(id, exit_code)`, in the watcher's thread."""
        self._exec_ended = callback
