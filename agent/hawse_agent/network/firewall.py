"""Keeps the instance's nft tables as they should be; touches no other table.

They are replaced as a whole, atomically, at the daemon's start and for repair: connections go on, since
conntrack keeps what they were translated to. After that a published port is one element by raw nfnetlink.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hawse_agent.network import libnftables, nfnetlink, ruleset
from hawse_agent.network.netlink import NetlinkError
from hawse_agent.spec.records import NetworkRecord, PortRecord

_FAMILIES = {"inet": nfnetlink.INET, "bridge": nfnetlink.BRIDGE}


@dataclass(frozen=True, kw_only=True)
class FirewallLosses:
    parts: tuple[str, ...] = ()
    """Tables, chains and elements of networks that are gone or were changed."""
    ports: tuple[PortRecord, ...] = ()


class Firewall:
    def __init__(self, table: str) -> None:
        self._table = table
        self._lock = threading.Lock()
        # Kept open: closing one waits for the kernel to free what was deleted before (7 ms).
        self._netlink = nfnetlink.netfilter_socket()
        self._networks: dict[str, NetworkRecord] = {}
        self._ports: dict[tuple[str, bytes], PortRecord] = {}
        self._rules: dict[str, Mapping[str, tuple[bytes, ...]]] = {}
        """Family → chain → rules as the kernel encodes them, taken after our own load."""

    def load(self, networks: Iterable[NetworkRecord], ports: Iterable[PortRecord]) -> None:
        with self._lock:
            self._networks = {network.id: network for network in networks}
            self._ports = _by_key(ports)
            self._load()

    def add_network(self, network: NetworkRecord) -> None:
        with self._lock:
            self._networks[network.id] = network
            if nfnetlink.has_table(self._netlink, self._table):
                libnftables.run(ruleset.network_text(self._table, "add", network))
            else:
                self._load()

    def remove_network(self, network: NetworkRecord) -> None:
        with self._lock:
            self._networks.pop(network.id, None)
            if not nfnetlink.has_table(self._netlink, self._table):
                return
            # Adding first makes the deletion succeed when somebody has removed an element by hand.
            add, delete = (ruleset.network_text(self._table, verb, network) for verb in ("add", "delete"))
            libnftables.run(add + delete)

    def publish(self, ports: Sequence[PortRecord]) -> None:
        with self._lock:
            self._ports |= _by_key(ports)
            try:
                nfnetlink.add(self._netlink, self._table, [ruleset.port_element(port) for port in ports])
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
                self._load()  # somebody has flushed the ruleset
            for number in {port.host_port for port in ports if port.protocol == "udp"}:
                nfnetlink.end_udp_to_port(self._netlink, number)

    def unpublish(self, ports: Sequence[PortRecord]) -> None:
        """Also ends the connections to their containers."""
        with self._lock:
            for key in _by_key(ports):
                self._ports.pop(key, None)
            nfnetlink.remove(self._netlink, self._table, [ruleset.port_element(port) for port in ports])
            for address in {port.container_ip for port in ports}:
                nfnetlink.end_connections_to(self._netlink, address)

    def observe(self, networks: Sequence[NetworkRecord], ports: Sequence[PortRecord]) -> FirewallLosses:
        """Of what should be there, what is not. Elements that nobody asked for are left to the next load."""
        with self._lock:
            missing = [
                f"table {name} {self._table}"
                for name, family in _FAMILIES.items()
                if not nfnetlink.has_table(self._netlink, self._table, family)
            ]
            if missing:
                return FirewallLosses(parts=tuple(missing))
            parts = self._lost_rules()
            for name, wanted in ruleset.network_elements(networks).items():
                found = self._elements(name)
                if found is None:
                    parts.append(f"set inet {self._table} {name}")
                    continue
                parts += [
                    f"element inet {self._table} {name} {{ {shown} }}"
                    for key, shown in wanted.items()
                    if key not in found
                ]
            lost: list[PortRecord] = []
            maps = {name: self._elements(name) for name in ruleset.MAPS}
            parts += [f"map inet {self._table} {name}" for name, found in maps.items() if found is None]
            for port in ports:
                element = ruleset.port_element(port)
                present = maps[element.set]
                if present is not None and present.get(element.key) != element.data:
                    lost.append(port)
            return FirewallLosses(parts=tuple(parts), ports=tuple(lost))

    def remove(self) -> None:
        """The tables with all in them."""
        with self._lock:
            libnftables.run(ruleset.removal_text(self._table))

    def _load(self) -> None:
        networks = list(self._networks.values())
        libnftables.run(ruleset.tables_text(self._table, networks, self._ports.values()))
        self._rules = {name: self._rules_of(family) for name, family in _FAMILIES.items()}

    def _rules_of(self, family: int) -> Mapping[str, tuple[bytes, ...]]:
        return nfnetlink.rules_of(self._netlink, self._table, family)

    def _lost_rules(self) -> list[str]:
        lost = []
        for name, expected in self._rules.items():
            found = self._rules_of(_FAMILIES[name])
            lost += [
                f"chain {name} {self._table} {chain}"
                for chain, rules in expected.items()
                if found.get(chain) != rules
            ]
        return lost

    def _elements(self, name: str) -> dict[bytes, bytes] | None:
        try:
            return nfnetlink.elements_of(self._netlink, self._table, name)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return None
            raise


def _by_key(ports: Iterable[PortRecord]) -> dict[tuple[str, bytes], PortRecord]:
    elements = ((ruleset.port_element(port), port) for port in ports)
    return {(element.set, element.key): port for element, port in elements}
