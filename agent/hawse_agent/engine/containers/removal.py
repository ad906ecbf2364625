"""Removing containers."""

from __future__ import annotations

import contextlib

from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers.attaching import Attaching
from hawse_agent.engine.containers.control import Control
from hawse_agent.engine.containers.files import remove_tree
from hawse_agent.engine.containers.sharing import Sharing
from hawse_agent.engine.images import Images
from hawse_agent.engine.live import Live
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.pending import close_all
from hawse_agent.engine.register import Register
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import Conflict, HostRefused
from hawse_agent.failpoints import reach
from hawse_agent.paths import Paths
from hawse_agent.spec.records import ContainerRecord


class Removal:
    def __init__(
        self,
        *,
        paths: Paths,
        register: Register,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        attaching: Attaching,
        sharing: Sharing,
        control: Control,
        announce: Announcer,
    ) -> None:
        self._paths = paths
        self._register = register
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._attaching = attaching
        self._sharing = sharing
        self._control = control
        self._announce = announce

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        record, live = self._register.find(reference)
        if live.state.running and not force:
            first = (
                " and must be unpaused first"
                if live.state.status == "paused"
                else ": stop the container before removing or force remove"
            )
            raise Conflict(
                f'cannot remove container "/{record.spec.name}": container is {live.state.status}{first}'
            )
        with self._register.removing(record.id, reference):
            if live.state.running:  # one that is being stopped with time to spare is not waited for
                self._control.ask_to_end(record, signal=9, timeout=0)
            with live.lock:
                if self._register.known(record.id) is None:  # it has removed itself meanwhile
                    return
                if live.state.running:
                    self._control.end(record, live, signal=9, timeout=0)
                self.carry_out(record, live, volumes=volumes)

    def carry_out(self, record: ContainerRecord, live: Live, *, volumes: bool) -> None:
        """A daemon that is killed meanwhile leaves it to the next one, which knows by the record."""
        if not record.removing:
            kept = () if not volumes else record.anonymous
            reach("remove: record")
            record = self._register.amend(record.id, releasing=True, removing=True, anonymous=kept)
        close_all(self._attaching.take(record.id))
        try:
            reach("remove: lease")
            self._networks.release(record.id)
            reach("remove: run")
            self._control.forget_run(record)
            reach("remove: files")
            remove_tree(self._paths.container(record.id))
        except OSError as error:
            message = f"unable to remove the files of container {record.id}: {error}"
            live.change(status="dead", error=message)
            raise HostRefused(message, hint="remove it again once the cause is gone") from error
        reach("remove: volumes")
        self._volumes.discard(record.anonymous, of=record.id)
        reach("remove: ids")
        self._sharing.give_back_ids(record)
        reach("remove: forget")
        self._register.forget(record.id)
        self._images.touch(record.image_id)
        self._announce.container("destroy", record)

    def auto_remove(self, record: ContainerRecord, live: Live) -> None:
        """Once its run is over, unless it was started again: a restart holds the lock from its stop to
        its start. What stands in its way makes it dead, and its state says what it was."""
        with live.lock, contextlib.suppress(HostRefused):
            known = self._register.known(record.id)
            if known is not None and not live.state.running:
                self.carry_out(known[0], live, volumes=True)
