"""What the daemon knows of running containers: a snapshot per container, kept current by shim events.

The shim is the owner of the truth; this is a cache that answers `ps` and `inspect` without asking it, and
the place where callers wait for a container to end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hawse_agent.engine.views import ContainerState, state_from_shim

STOPPED = ("created", "exited", "dead")


class Live:
    """One container's lock, state and waiters. `lock` serialises start, stop, remove and the like."""

    def __init__(self, state: ContainerState) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition()
        self._state = state
        self._exits = 0
        self._gone = False
        self.runs_over = 0
        """How often it has come to a stop, restarts by its policy not counted."""

    @property
    def state(self) -> ContainerState:
        return self._state

    def set(self, state: ContainerState) -> None:
        with self._changed:
            self._become(state)

    def change(self, **fields: Any) -> ContainerState:
        with self._changed:
            self._become(replace(self._state, **fields))
            return self._state

    def apply_shim(self, raw: dict[str, Any]) -> None:
        self.set(state_from_shim(raw))

    def exited(self, **fields: Any) -> ContainerState:
        """PID 1 ended: those who wait for the next exit go on."""
        with self._changed:
            self._exits += 1
            self._become(replace(self._state, **fields))
            return self._state

    def _become(self, state: ContainerState) -> None:
        if state.status in STOPPED and self._state.status not in STOPPED:
            self.runs_over += 1
        self._state = state
        self._changed.notify_all()

    def removed(self) -> None:
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def wait(self, done: Callable[[ContainerState], bool], timeout: float | None) -> bool:
        """Until `done(state)` or removal; False when `timeout` seconds passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._gone or done(self._state), timeout)

    def next_exit(self) -> Waiter:
        return Waiter(self, self._changed, lambda: self._exits, lambda: self._gone, "next-exit")

    def not_running(self) -> Waiter:
        return Waiter(self, self._changed, lambda: self._exits, lambda: self._gone, "not-running")

    def removal(self) -> Waiter:
        return Waiter(self, self._changed, lambda: self._exits, lambda: self._gone, "removed")


class Waiter:
    """Made before the answer's headers are sent, so that an exit in between is not missed."""

    def __init__(
        self,
        live: Live,
        changed: threading.Condition,
        exits: Callable[[], int],
        gone: Callable[[], bool],
        condition: str,
    ) -> None:
        self._live, self._changed, self._exits, self._gone = live, changed, exits, gone
        self._condition = condition
        self._from = exits()

    def result(self, timeout: float | None = None) -> int | None:
        """The exit code, or None when `timeout` seconds passed first."""
        with self._changed:
            if not self._changed.wait_for(self._done, timeout):
                return None
            return self._live.state.exit_code

    def _done(self) -> bool:
        if self._gone():
            return True
        if self._condition == "removed":
            return False
        state = self._live.state
        if self._condition == "next-exit":
            return self._exits() > self._from and state.status in STOPPED
        return state.status in STOPPED
