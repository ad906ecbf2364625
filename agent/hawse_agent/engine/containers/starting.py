"""Starting containers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Literal

from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers.attaching import Attaching
from hawse_agent.engine.containers.control import Control
from hawse_agent.engine.containers.files import Files
from hawse_agent.engine.containers.removal import Removal
from hawse_agent.engine.containers.sharing import Sharing
from hawse_agent.engine.images import Images
from hawse_agent.engine.live import Live
from hawse_agent.engine.networks import Lease, Networks
from hawse_agent.engine.pending import close_all
from hawse_agent.engine.register import Register
from hawse_agent.engine.views import ContainerState, HealthView
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import Conflict, HostRefused, StartFailed
from hawse_agent.failpoints import reach
from hawse_agent.spec.records import ContainerRecord
from hawse_agent.supervise import client as shim_client
from hawse_agent.supervise.zygote import Zygote

START_TIMEOUT = 60.0
"""Seconds from the request to a running PID 1, after which the start is given up."""


class Starting:
    """`watch` gets what a container's supervisor tells from then on."""

    def __init__(
        self,
        *,
        zygote: Zygote,
        register: Register,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        sharing: Sharing,
        files: Files,
        attaching: Attaching,
        control: Control,
        removal: Removal,
        announce: Announcer,
        watch: Callable[[str, socket.socket], None],
    ) -> None:
        self._zygote = zygote
        self._register = register
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._sharing = sharing
        self._files = files
        self._attaching = attaching
        self._control = control
        self._removal = removal
        self._announce = announce
        self._watch = watch

    def start(self, reference: str) -> bool:
        """False when it runs already (Docker's 304). Raises StartFailed with the step that failed."""
        record, live = self._register.find(reference)
        with live.lock:
            record = self._register.record(record.id)  # as it is now that nobody else changes it
            if live.state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if live.state.running:
                return False
            if live.state.status == "dead":
                raise Conflict(f"container {record.id} is marked for removal and cannot be started")
            self.run(record, live)
        return True

    def restart(self, reference: str, *, signal: str = "", timeout: float | None = None) -> None:
        record, live = self._register.find(reference)
        with live.lock:
            self._control.stop(record.id, signal=signal, timeout=timeout)
            self.start(record.id)
        self._announce.container("restart", record)

    def run(self, record: ContainerRecord, live: Live) -> None:
        pending = self._attaching.take(record.id)
        lease, before = Lease(), record.desired
        try:
            if record.removing:
                raise Conflict(f"container {record.id} is marked for removal and cannot be started")
            image = self._images.get(record.image_id)
            reach("start: sources")
            self._volumes.check_sources(record)
            reach("start: ids")
            record = self._sharing.with_ids(record)
            reach("start: lease")
            lease = self._networks.lease(record)
            reach("start: record")  # before it runs, or a daemon killed in between would not know of it
            record = self._register.amend(record.id, desired="running")
            reach("start: files")
            config = self._files.prepare(record, image, lease)
            reach("start: config")
            path = self._files.write_config(record, config)
            reach("start: shim")
            started = shim_client.start(
                self._zygote,
                path,
                configure_network=lambda netns, pid: self._networks.configure(record, lease, netns, pid),
                before_run=lambda shim: self._attaching.hand_over(record.id, shim, pending),
                timeout=START_TIMEOUT,
            )
        except BaseException as error:
            self._control.forget_run(record)
            self._networks.release(record.id)
            close_all(pending)
            if isinstance(error, Exception):
                with contextlib.suppress(HostRefused):  # a full disk: then it is tried again at the next boot
                    self._register.amend(record.id, releasing=True, desired=before)
                code = error.container_exit if isinstance(error, StartFailed) else 128
                live.exited(status=_status_after_failure(live.state), exit_code=code, error=str(error))
                if record.spec.auto_remove and not record.removing:
                    self._removal.auto_remove(record, live)
            raise
        finally:
            lease.close()
        live.set(
            ContainerState(
                status="running",
                pid=started.pid,
                started_at=started.started_at,
                finished_at=live.state.finished_at,
                health=HealthView(status="starting") if config.health is not None else None,
            )
        )
        self._attaching.attach_late(record.id)
        self._announce.started(record, lease.networks)
        reach("start: watch")
        self._watch(record.id, started.watch)
        reach("start: linked")
        self._files.tell_linked(record)


def _status_after_failure(state: ContainerState) -> Literal["created", "exited"]:
    return "exited" if state.status == "exited" else "created"
