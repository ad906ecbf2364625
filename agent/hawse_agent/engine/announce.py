"""What happens to a container as events in Docker's words: its own, its networks' and its volumes'."""

from __future__ import annotations

from collections.abc import Iterable

from hawse_agent.engine.events import EventBus
from hawse_agent.spec.records import ContainerRecord, NetworkRecord


class Announcer:
    def __init__(self, events: EventBus) -> None:
        self._events = events

    def container(self, action: str, record: ContainerRecord, **attributes: str) -> None:
        spec = record.spec
        shown = {**spec.labels, "image": spec.image, "name": spec.name, **attributes}
        self._events.publish("container", action, record.id, shown)

    def started(self, record: ContainerRecord, networks: Iterable[NetworkRecord]) -> None:
        for network in networks:
            self._network("connect", record, network)
        mounts = {mount.target: mount for mount in record.spec.mounts}
        for target, name in record.volumes.items():
            read_only = target in mounts and mounts[target].read_only
            shown = {
                "container": record.id,
                "destination": target,
                "driver": "local",
                "propagation": "",
                "read/write": "false" if read_only else "true",
            }
            self._events.publish("volume", "mount", name, shown)
        self.container("start", record)

    def let_go(self, record: ContainerRecord, networks: Iterable[NetworkRecord]) -> None:
        """Its run is over: what it was on and what it used is no longer in its hands."""
        for network in networks:
            self._network("disconnect", record, network)
        for name in record.volumes.values():
            self._events.publish("volume", "unmount", name, {"container": record.id, "driver": "local"})

    def _network(self, action: str, record: ContainerRecord, network: NetworkRecord) -> None:
        kind = "null" if network.driver == "none" else network.driver
        shown = {"container": record.id, "name": network.name, "type": kind}
        self._events.publish("network", action, network.id, shown)
