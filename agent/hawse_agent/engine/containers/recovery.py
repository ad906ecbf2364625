"""Taking up the containers that are there: after a crash, an upgrade or a reboot."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence

from hawse_agent.engine.containers.control import Control
from hawse_agent.engine.containers.creation import Creation
from hawse_agent.engine.containers.following import Following
from hawse_agent.engine.containers.looking import Looking
from hawse_agent.engine.containers.removal import Removal
from hawse_agent.engine.containers.sharing import Sharing
from hawse_agent.engine.containers.shims import Shims
from hawse_agent.engine.live import Live
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.register import Register
from hawse_agent.engine.state import State
from hawse_agent.errors import HostRefused, NotFound
from hawse_agent.spec.records import ContainerRecord
from hawse_agent.supervise import client as shim_client

QUIET = 1.5
"""Seconds without a word from any of the shims that a fresh daemon has asked, after which it goes on."""


class Recovery:
    def __init__(
        self,
        *,
        state: State,
        register: Register,
        networks: Networks,
        shims: Shims,
        looking: Looking,
        sharing: Sharing,
        creation: Creation,
        control: Control,
        removal: Removal,
        following: Following,
    ) -> None:
        self._state = state
        self._register = register
        self._networks = networks
        self._shims = shims
        self._looking = looking
        self._sharing = sharing
        self._creation = creation
        self._control = control
        self._removal = removal
        self._following = following

    def recover(self) -> Sequence[str]:
        """Take up every container that the records name; returns ids that must be started again.

        The same path after a crash, an upgrade and a reboot: a shim that answers is watched again, a
        container whose shim is gone has ended and is treated by its restart policy.
        """
        restart: list[ContainerRecord] = []
        records = self._state.containers()
        self._creation.finish_creations({record.id for record in records})
        self._sharing.tidy()
        for record, live, reached in self._reach_all(records):
            if record.of_build:  # nobody is left who would make a layer of it
                self._remove_soon(record.id)
                continue
            if reached:
                continue
            with live.lock:
                self._control.forget_run(record)
                if record.removing or (record.spec.auto_remove and record.desired == "running"):
                    self._removal.auto_remove(record, live)
                elif self._following.restarts_after_loss(record, live.state):
                    restart.append(record)
        return self._sharing.donors_first(restart)

    def _remove_soon(self, container_id: str) -> None:
        """At once, unless its shim is held up."""
        work = threading.Thread(
            target=self._removal.remove,
            args=(container_id,),
            kwargs={"force": True, "volumes": True},
            daemon=True,
        )
        work.start()
        work.join(QUIET)

    def _reach_all(self, records: Sequence[ContainerRecord]) -> list[tuple[ContainerRecord, Live, bool]]:
        """Each with whether it has a shim. They are asked all at once, and none that is held up is waited
        for: its container runs, as its own file says, and is known better once it answers."""
        asked: dict[str, socket.socket] = {}
        late: set[str] = set()
        for record in records:
            try:
                asked[record.id] = self._shims.reach(record.id).ask_to_watch()
            except (ConnectionError, FileNotFoundError):  # it is leaving, or has left
                continue
            except BlockingIOError:
                late.add(record.id)
        told = shim_client.first_answers(asked, QUIET)
        found = []
        for record in records:
            live = self._register.add(record, self._following.ended_state(record))
            watch = asked.get(record.id)
            state = told.get(record.id)
            if state is not None:
                live.apply_shim(state)
            elif record.id in late or (watch is not None and record.id not in told):
                self._following.believe_file(record, live)
            else:
                found.append((record, live, False))
                continue
            found.append((record, live, True))
            if watch is not None:
                self._following.watch(record.id, watch)
            else:
                self._following.reach_later(record, live)
        return found

    def restore_names(self) -> None:
        """Bring back the resolvers of running containers whose name server has died."""
        for container_id in self._networks.observe().names_lost:
            with contextlib.suppress(NotFound):  # removed meanwhile
                view = self._looking.get(container_id)
                try:
                    if view.state.pid:
                        self._networks.restore_names(view.record, view.state.pid)
                except HostRefused:
                    if self._looking.get(container_id).state.pid == view.state.pid:  # it has not just ended
                        raise
