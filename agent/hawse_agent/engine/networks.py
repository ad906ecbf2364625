"""Networks and what containers hold on them: addresses, published ports, names.

The decisions (which subnet, which address, which host port) are kept in the state before the kernel is
touched, and given back when the container's run is over.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hawse_agent.engine.events import EventBus
from hawse_agent.engine.state import State
from hawse_agent.errors import Conflict, Forbidden, InputError, NotFound
from hawse_agent.network.manager import NetworkManager, NetworkObservation
from hawse_agent.spec.container import ContainerSpec, EndpointSpec
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.records import ContainerRecord, EndpointRecord, NetworkRecord, PortRecord

DEFAULT_NETWORK = "bridge"
_PREDEFINED = ("bridge", "host", "none")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What one run of a container holds. `reserved` are sockets that keep its host ports; `close` them
    when the shim has its own copies."""

    endpoints: tuple[EndpointRecord, ...] = ()
    networks: tuple[NetworkRecord, ...] = ()
    ports: tuple[PortRecord, ...] = ()
    reserved: tuple[int, ...] = ()
    gateway: str = ""
    embedded_dns: bool = False

    def close(self) -> None:
        for fd in self.reserved:
            os.close(fd)


class Networks:
    def __init__(self, *, state: State, manager: NetworkManager, events: EventBus) -> None:
        self._state = state
        self._manager = manager
        self._events = events
        self._lock = threading.Lock()
        self._records = {record.id: record for record in state.networks()}

    def prepare(self) -> None:
        """At the daemon's start: the networks that always exist, and everything the kernel lacks."""
        for name in _PREDEFINED:
            if not any(record.name == name for record in self._records.values()):
                self._add_predefined(name)
        self._manager.ensure_base(list(self._records.values()))
        self._manager.repair_firewall(list(self._records.values()), self._state.ports())
        for record in self._records.values():
            if record.driver == "bridge":
                self._manager.repair_network(record)

    # networks

    def list(self) -> Sequence[NetworkRecord]:
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.created)

    def get(self, reference: str) -> NetworkRecord:
        """By name, id or unique id prefix."""
        records = self.list()
        for record in records:
            if reference in (record.name, record.id):
                return record
        matches = [record for record in records if reference and record.id.startswith(reference)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise Conflict(f"network {reference} is ambiguous ({len(matches)} matches found on id prefix)")
        raise NotFound(f"network {reference} not found")

    def create(self, spec: NetworkSpec) -> NetworkRecord:
        if spec.name in _PREDEFINED:
            raise Forbidden(f"operation is not permitted on predefined {spec.name} network")
        with self._lock:
            if any(record.name == spec.name for record in self._records.values()):
                raise Conflict(f"network with name {spec.name} already exists")
            record = self._manager.plan_network(spec, list(self._records.values()))
            self._state.add_network(record)
            try:
                self._manager.create(record)
            except BaseException:
                self._state.delete_network(record.id)
                raise
            self._records[record.id] = record
        self._events.publish("network", "create", record.id, {"name": record.name, "type": record.driver})
        return record

    def remove(self, reference: str) -> None:
        record = self.get(reference)
        if record.name in _PREDEFINED:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        with self._lock:
            users = [e for e in self._state.endpoints() if e.network == record.id]
            if users:
                names = ", ".join(sorted(e.names[0] if e.names else e.container[:12] for e in users))
                raise Conflict(f"network {record.name} has active endpoints: {names}")
            self._manager.remove(record)
            self._state.delete_network(record.id)
            del self._records[record.id]
        self._events.publish("network", "destroy", record.id, {"name": record.name, "type": record.driver})

    def endpoints(self, network_id: str) -> Sequence[EndpointRecord]:
        return [endpoint for endpoint in self._state.endpoints() if endpoint.network == network_id]

    # containers

    def check(self, spec: ContainerSpec) -> None:
        """Raises NotFound for a network that is not there, InputError for a host:container port clash."""
        for endpoint in self._wanted(spec):
            self.get(endpoint.network)
        if spec.network_mode.startswith("container:") and spec.ports:
            raise InputError("conflicting options: port publishing and the container type network mode")

    def lease(self, record: ContainerRecord) -> Lease:
        """Choose addresses and ports and keep them; raises Conflict when a port is taken."""
        spec = record.spec
        wanted = self._wanted(spec)
        if not wanted:
            return Lease()
        with self._lock:
            self._give_back(record.id)
            networks = [self._find(endpoint.network) for endpoint in wanted]
            held = self._state.endpoints()
            endpoints = [
                self._manager.plan_endpoint(
                    network,
                    {e.ipv4.split("/")[0] for e in held if e.network == network.id},
                    endpoint,
                    index,
                    record.id,
                    _names(record, endpoint),
                )
                for index, (endpoint, network) in enumerate(zip(wanted, networks, strict=True))
            ]
            outward = next((i for i, n in enumerate(networks) if not n.internal), None)
            ports: list[PortRecord] = []
            reserved: list[int] = []
            if outward is not None and (spec.ports or spec.publish_all):
                address = endpoints[outward].ipv4.split("/")[0]
                ports, reserved = self._manager.plan_ports(
                    record.id,
                    address,
                    spec.ports,
                    spec.expose if spec.publish_all else (),
                    self._state.ports(),
                    self._container_name,
                )
            lease = Lease(
                endpoints=tuple(endpoints),
                networks=tuple(networks),
                ports=tuple(ports),
                reserved=tuple(reserved),
                gateway=networks[outward].gateway if outward is not None else "",
                embedded_dns=any(not network.default for network in networks),
            )
            try:
                self._state.add_lease(endpoints, ports)
            except BaseException:
                lease.close()
                raise
        return lease

    def _container_name(self, container: str) -> str:
        names = (record.spec.name for record in self._state.containers() if record.id == container)
        return next(names, container[:12])

    def configure(self, record: ContainerRecord, lease: Lease, netns: int | None, pid: int) -> Sequence[int]:
        """Give a new network namespace what the lease says; returns the sockets that the shim shall hold."""
        mode = record.spec.network_mode
        if netns is None or mode == "host" or mode.startswith("container:"):
            return []
        pairs = list(zip(lease.endpoints, lease.networks, strict=True))
        self._manager.attach(netns, pid, pairs, dns=lease.embedded_dns)
        if lease.embedded_dns:
            self._manager.dns_update(record.id, pairs, record.spec.dns)
        self._manager.publish(lease.ports)
        return list(lease.reserved)

    def release(self, container_id: str) -> Sequence[NetworkRecord]:
        """Give back what a run held, and return the networks that it was on; none when it holds nothing."""
        with self._lock:
            return self._give_back(container_id)

    def renamed(self, record: ContainerRecord, old: str) -> None:
        """Answer for the container's new name instead of `old`."""
        held = self._state.endpoints(record.id)
        if not held:
            return
        endpoints = [
            replace(e, names=tuple(record.spec.name if name == old else name for name in e.names))
            for e in held
        ]
        ports = self._state.ports(record.id)
        with self._lock:
            self._state.delete_lease(record.id)
            self._state.add_lease(endpoints, ports)
        pairs = self._pairs(endpoints)
        if any(not network.default for _, network in pairs):
            self._manager.dns_update(record.id, pairs, record.spec.dns)

    def when_names_are_lost(self, call: Callable[[], None]) -> None:
        self._manager.when_names_are_lost(call)

    def restore_names(self, record: ContainerRecord, pid: int) -> None:
        """Serve a running container's resolver again, after the name server has died."""
        pairs = self._pairs(self._state.endpoints(record.id))
        self._manager.restore_names(record.id, pid, pairs, record.spec.dns)

    # plan and repair

    def observe(self) -> NetworkObservation:
        return self._manager.observe(self.list(), self._state.endpoints(), self._state.ports())

    def repair_network(self, name: str) -> None:
        self._manager.repair_network(self.get(name))

    def repair_ports(self, container_id: str) -> None:
        self._manager.repair_ports(self._state.ports(container_id))

    def repair_firewall(self) -> None:
        self._manager.repair_firewall(self.list(), self._state.ports())

    # internals

    def _pairs(self, endpoints: Sequence[EndpointRecord]) -> Sequence[tuple[EndpointRecord, NetworkRecord]]:
        with self._lock:
            return [(endpoint, self._records[endpoint.network]) for endpoint in endpoints]

    def _wanted(self, spec: ContainerSpec) -> tuple[EndpointSpec, ...]:
        mode = spec.network_mode
        if mode in ("host", "none") or mode.startswith("container:"):
            return ()
        if spec.networks:
            return spec.networks
        return (EndpointSpec(network=DEFAULT_NETWORK if mode in ("default", "bridge") else mode),)

    def _find(self, reference: str) -> NetworkRecord:
        for record in self._records.values():
            if reference in (record.name, record.id):
                return record
        matches = [record for record in self._records.values() if record.id.startswith(reference)]
        if len(matches) != 1:
            raise NotFound(f"network {reference} not found")
        return matches[0]

    def _give_back(self, container_id: str) -> Sequence[NetworkRecord]:
        endpoints, ports = self._state.endpoints(container_id), self._state.ports(container_id)
        if not endpoints and not ports:
            return ()
        self._manager.unpublish(ports)
        self._manager.detach(endpoints)
        self._manager.dns_forget(container_id)
        self._state.delete_lease(container_id)
        return [self._records[e.network] for e in endpoints if e.network in self._records]

    def _add_predefined(self, name: str) -> None:
        if name == DEFAULT_NETWORK:
            planned = self._manager.plan_network(NetworkSpec(name=name), list(self._records.values()))
            record = replace(planned, default=True)
        else:
            record = NetworkRecord(
                id=secrets.token_hex(32),
                name=name,
                driver="host" if name == "host" else "none",
                created=time.time(),
            )
        self._state.add_network(record)
        self._records[record.id] = record


def _names(record: ContainerRecord, endpoint: EndpointSpec) -> tuple[str, ...]:
    names = (record.spec.name, *endpoint.aliases, record.id[:12])
    return tuple(dict.fromkeys(names))
