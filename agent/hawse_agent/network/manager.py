"""Networks as the engine sees them: plan what to take, make it, take it away, look whether it is there.

All decisions arrive as records and leave as records; remembered is only where the next free address is
sought. Errors of the kernel become HostRefused, with what was being done.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from hawse_agent.errors import Conflict, HostRefused, InputError, NotSupported
from hawse_agent.network import addresses, links, namespaces, ports
from hawse_agent.network.dns import RESOLV_CONF, nameservers
from hawse_agent.network.dns_client import DnsClient, Start
from hawse_agent.network.firewall import Firewall
from hawse_agent.network.netlink import Netlink
from hawse_agent.network.ruleset import APART_GROUP
from hawse_agent.paths import Paths
from hawse_agent.spec.container import EndpointSpec, PortMap
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.records import EndpointRecord, NetworkRecord, PortRecord

DEFAULT_MTU = 1500

_SYSCTL = Path("/proc/sys/net")
_OPTION = "com.docker.network."

Place = tuple[EndpointRecord, NetworkRecord]


@dataclass(frozen=True, kw_only=True)
class NetworkObservation:
    """What the kernel no longer has."""

    bridges_lost: frozenset[str] = frozenset()
    """Ids of networks whose bridge is gone or down, or has lost ports."""
    links_lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Container → host ends of its links that are gone."""
    ports_lost: tuple[PortRecord, ...] = ()
    firewall_lost: tuple[str, ...] = ()
    names_lost: frozenset[str] = frozenset()
    """Containers whose resolver is not served: `restore_names` serves it again."""


class NetworkManager:
    def __init__(self, paths: Paths, start_dns: Start) -> None:
        self._instance = paths.instance
        self._firewall = Firewall(paths.name())
        self._dns = DnsClient(paths.dns_socket, start_dns)
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        """Network id → the address given out last."""

    # plan

    def plan_network(self, spec: NetworkSpec, existing: Sequence[NetworkRecord]) -> NetworkRecord:
        """With subnet, gateway and bridge chosen; raises Conflict when they are taken."""
        options = _BridgeOptions.of(spec)
        others = [(f"network {n.name}", IPv4Network(n.subnet)) for n in existing if n.subnet]
        with _refused(f"choose addresses for network {spec.name}"), links.route_socket() as netlink:
            routes = links.routes(netlink)
            if options.name and links.find(netlink, options.name):
                raise Conflict(f"network {spec.name}: a link named {options.name} is on this host already")
        if spec.subnet:
            subnet = addresses.parse_subnet(spec.subnet)
            if owner := addresses.overlap(subnet, others):
                raise Conflict(
                    f"network {spec.name}: {subnet} overlaps with {owner}: "
                    "Pool overlaps with other one on this address space"
                )
            if owner := addresses.overlap(subnet, [(f"route {r}", r) for r in routes if r.prefixlen >= 16]):
                raise Conflict(f"network {spec.name}: {subnet} overlaps with {owner} of this host")
        else:
            taken = [other for _, other in others] + routes + _resolvers()
            subnet = addresses.choose_subnet(taken, self._instance)
        gateway = (
            addresses.parse_inside(spec.gateway, subnet, "gateway")
            if spec.gateway
            else subnet.network_address + 1
        )
        if spec.ip_range:
            addresses.parse_range(spec.ip_range, subnet)
        network_id = secrets.token_hex(32)
        bridge = options.name or (
            addresses.default_bridge(self._instance)
            if spec.name == "bridge"
            else addresses.bridge_for(network_id, self._instance, {n.bridge for n in existing})
        )
        return NetworkRecord(
            id=network_id,
            name=spec.name,
            driver="bridge",
            bridge=bridge,
            subnet=str(subnet),
            gateway=str(gateway),
            ip_range=spec.ip_range,
            internal=spec.internal,
            icc=spec.icc and options.icc,
            mtu=spec.mtu or options.mtu or DEFAULT_MTU,
            options=spec.options,
            labels=spec.labels,
            created=time.time(),
        )

    def plan_endpoint(
        self,
        network: NetworkRecord,
        used: Collection[str],
        spec: EndpointSpec,
        index: int,
        container_id: str,
        names: tuple[str, ...],
    ) -> EndpointRecord:
        """The container's address on a network, `used` being those of the others."""
        subnet = IPv4Network(network.subnet)
        if spec.ipv4:
            address = addresses.parse_inside(spec.ipv4, subnet, "address")
            if str(address) in used or str(address) == network.gateway:
                raise Conflict(f"network {network.name}: address {address} is already in use")
        else:
            part = IPv4Network(network.ip_range) if network.ip_range else subnet
            with self._lock:
                after = self._last.get(network.id, 0)
                taken = {*used, network.gateway}
                address = addresses.choose_address(subnet, part, taken, after, network.name)
                self._last[network.id] = int(address)
        return EndpointRecord(
            container=container_id,
            network=network.id,
            ipv4=f"{address}/{subnet.prefixlen}",
            mac=addresses.parse_mac(spec.mac) if spec.mac else addresses.mac_for(network.id, address),
            host_link=addresses.host_link_for(container_id, network.id, self._instance),
            container_link=f"eth{index}",
            names=names,
            links=spec.links,
        )

    def plan_ports(
        self,
        container_id: str,
        address: str,
        wanted: Sequence[PortMap],
        exposed: Sequence[str],
        taken: Sequence[PortRecord],
        name_of: Callable[[str], str] = lambda container: container[:12],
    ) -> tuple[list[PortRecord], list[int]]:
        """Decide the host ports and reserve them; the caller owns the fds. Raises Conflict."""
        return ports.reserve(container_id, address, ports.wanted(wanted, exposed), taken, name_of)

    # networks

    def ensure_base(self, networks: Sequence[NetworkRecord]) -> None:
        """What all networks need of the host: that it forwards."""
        if any(network.driver == "bridge" for network in networks):
            with _refused("let the host forward packets"):
                _sysctl("ipv4/ip_forward", "1")

    def create(self, network: NetworkRecord) -> None:
        if network.driver != "bridge":
            return
        try:
            with _refused(f"create network {network.name}"):
                self._firewall.add_network(network)
                self._make_bridge(network)
        except BaseException:
            self.remove(network)
            raise

    def remove(self, network: NetworkRecord) -> None:
        if network.driver != "bridge":
            return
        with _refused(f"remove network {network.name}"):
            with links.route_socket() as netlink:
                links.delete(netlink, network.bridge)
            self._firewall.remove_network(network)
        with self._lock:
            self._last.pop(network.id, None)

    # containers

    def attach(self, netns_fd: int, pid: int, places: Sequence[Place], *, dns: bool) -> None:
        """Give a new namespace its loopback, links, addresses and routes, and a resolver when `dns`.

        The first network that leads outside gets the default route. `pid` is only named in errors.
        """
        outward = next((i for i, (_, network) in enumerate(places) if not network.internal), None)
        with _refused(f"connect process {pid} to its networks"):
            with links.route_socket() as host:
                for endpoint, network in places:
                    self._make_veth(host, netns_fd, endpoint, network)
            wanted = [
                links.Address(
                    link=endpoint.container_link,
                    address=IPv4Interface(endpoint.ipv4),
                    gateway=network.gateway if index == outward else "",
                )
                for index, (endpoint, network) in enumerate(places)
            ]
            with namespaces.entered(netns_fd), links.route_socket() as inside:
                links.configure(inside, wanted)
            if dns:
                self._serve_names(netns_fd, places[0][0].container, again=False)

    def detach(self, endpoints: Iterable[EndpointRecord]) -> None:
        """Take links off their bridges. They end with their namespace, which costs nobody any waiting."""
        with _refused("disconnect a container from its networks"), links.route_socket() as netlink:
            for endpoint in endpoints:
                link = links.find(netlink, endpoint.host_link)
                if link is not None and link.master:
                    links.release(netlink, link)

    def publish(self, published: Sequence[PortRecord]) -> None:
        if published:
            with _refused("publish ports"):
                self._firewall.publish(published)

    def unpublish(self, published: Sequence[PortRecord]) -> None:
        """Also ends the connections that are open through them."""
        if published:
            with _refused("withdraw published ports"):
                self._firewall.unpublish(published)

    def dns_update(self, container_id: str, places: Sequence[Place], upstreams: Sequence[str] = ()) -> None:
        """The names of a container, and whom it asks beyond them (none: the host's servers)."""
        self._dns.names(container_id, places, upstreams)

    def dns_forget(self, container_id: str) -> None:
        self._dns.forget(container_id)

    def when_names_are_lost(self, call: Callable[[], None]) -> None:
        """The name server has died: `call` shall restore the names of all."""
        self._dns.lost = call

    def restore_names(
        self, container_id: str, pid: int, places: Sequence[Place], upstreams: Sequence[str] = ()
    ) -> None:
        """Serve a running container's resolver again, after the name server has died."""
        with _refused(f"restore the resolver of container {container_id[:12]}"):
            netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._serve_names(netns_fd, container_id, again=True)
            finally:
                os.close(netns_fd)
        self._dns.names(container_id, places, upstreams)

    # observe and repair

    def observe(
        self,
        networks: Sequence[NetworkRecord],
        endpoints: Sequence[EndpointRecord],
        published: Sequence[PortRecord],
    ) -> NetworkObservation:
        bridges = {network.id: network for network in networks if network.driver == "bridge"}
        lost: set[str] = set()
        links_lost: dict[str, list[str]] = {}
        with _refused("look at the networks"), links.route_socket() as netlink:
            found = {network.id: links.find(netlink, network.bridge) for network in bridges.values()}
            lost |= {network_id for network_id, link in found.items() if link is None or not link.up}
            for endpoint in endpoints:
                link = links.find(netlink, endpoint.host_link)
                bridge = found.get(endpoint.network)
                if link is None:
                    links_lost.setdefault(endpoint.container, []).append(endpoint.host_link)
                elif bridge is not None and link.master != bridge.index:
                    lost.add(endpoint.network)
            losses = self._firewall.observe(networks, published)
            named = {
                e.container for e in endpoints if e.network in bridges and not bridges[e.network].default
            }
            served = self._dns.containers() if named else frozenset()
        return NetworkObservation(
            bridges_lost=frozenset(lost),
            links_lost={container: tuple(names) for container, names in links_lost.items()},
            ports_lost=losses.ports,
            firewall_lost=losses.parts,
            names_lost=frozenset(named - served),
        )

    def repair_network(self, network: NetworkRecord) -> None:
        """The bridge with its address, its ports and its part of the firewall; what is there stays."""
        with _refused(f"repair network {network.name}"):
            self._firewall.add_network(network)
            bridge = self._make_bridge(network)
            with links.route_socket() as netlink:
                for link in links.list_all(netlink):
                    if link.alias.startswith(_alias_of(network)) and link.master != bridge.index:
                        links.set_master(netlink, link, bridge.index)
                        links.make_port(netlink, link.name, link.alias)

    def repair_firewall(self, networks: Sequence[NetworkRecord], published: Sequence[PortRecord]) -> None:
        """The whole table, exactly as it should be; connections go on."""
        with _refused("build the firewall"):
            self._firewall.load(networks, published)

    def repair_ports(self, published: Sequence[PortRecord]) -> None:
        self.publish(published)

    def remove_all(self) -> None:
        """Everything of this instance outside of its directories; its containers must be gone."""
        self._dns.stop()
        with _refused("remove the networks"), links.route_socket() as netlink:
            for link in links.list_all(netlink):
                if addresses.is_ours(link.name, self._instance):
                    links.delete(netlink, link.name)
            self._firewall.remove()

    # internals

    def _make_bridge(self, network: NetworkRecord) -> links.Link:
        subnet = IPv4Network(network.subnet)
        gateway = IPv4Address(network.gateway)
        with links.route_socket() as netlink:
            link = links.ensure_bridge(
                netlink,
                network.bridge,
                address=IPv4Interface(f"{gateway}/{subnet.prefixlen}"),
                mac=addresses.mac_for(network.id, gateway),
                mtu=network.mtu,
            )
        if not network.internal:  # so that 127.0.0.1:PORT of the host can lead to a container; see `guard`
            _sysctl(f"ipv4/conf/{network.bridge}/route_localnet", "1")
        if (_SYSCTL / "ipv6/conf" / network.bridge).is_dir():
            # A container could else send router advertisements to the host (CVE-2020-13401).
            _sysctl(f"ipv6/conf/{network.bridge}/disable_ipv6", "1")
        return link

    def _make_veth(
        self, netlink: Netlink, netns_fd: int, endpoint: EndpointRecord, network: NetworkRecord
    ) -> None:
        bridge = links.find(netlink, network.bridge)
        if bridge is None:  # somebody has deleted it
            bridge = self._make_bridge(network)
        links.create_veth(
            netlink,
            links.Veth(
                host=endpoint.host_link,
                bridge=network.bridge,
                container=endpoint.container_link,
                netns_fd=netns_fd,
                mac=endpoint.mac,
                mtu=network.mtu,
                alias=f"{_alias_of(network)}{endpoint.container[:12]}",
                group=0 if network.icc else APART_GROUP,
            ),
            bridge,
        )

    def _serve_names(self, netns_fd: int, container_id: str, *, again: bool) -> None:
        with namespaces.entered(netns_fd):
            udp, tcp = namespaces.resolver_sockets(again=again)
        with udp, tcp:
            self._dns.listen(container_id, udp, tcp)


@dataclass(frozen=True, kw_only=True)
class _BridgeOptions:
    """Docker's options of the bridge driver that Hawse knows."""

    name: str = ""
    mtu: int = 0
    icc: bool = True

    @classmethod
    def of(cls, spec: NetworkSpec) -> _BridgeOptions:
        name, mtu, icc = "", 0, True
        for key, value in spec.options.items():
            match key.removeprefix(_OPTION):
                case "bridge.name":
                    name = value
                case "driver.mtu":
                    mtu = _number(spec, key, value)
                case "bridge.enable_icc":
                    icc = _flag(spec, key, value)
                case "bridge.enable_ip_masquerade" if _flag(spec, key, value):
                    pass
                case "bridge.default_bridge":
                    pass
                case _:
                    raise NotSupported(f"network {spec.name}: option {key}={value} is not supported")
        if name and (len(name) > addresses.MAX_LINK_NAME or "/" in name or name != name.strip()):
            raise InputError(f"network {spec.name}: {name!r} cannot be the name of a bridge")
        if not 68 <= (spec.mtu or mtu or DEFAULT_MTU) <= 65535:
            raise InputError(f"network {spec.name}: MTU {spec.mtu or mtu} is not between 68 and 65535")
        return cls(name=name, mtu=mtu, icc=icc)


def _number(spec: NetworkSpec, key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise InputError(f"network {spec.name}: option {key} must be a number, not {value!r}")
    return int(value)


def _flag(spec: NetworkSpec, key: str, value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise InputError(f"network {spec.name}: option {key} must be true or false, not {value!r}")
    return value.lower() in ("true", "1")


def _resolvers() -> list[IPv4Network]:
    """Addresses that the host's resolver needs: a network over them would hide them."""
    with contextlib.suppress(FileNotFoundError):
        return [
            IPv4Network(server)
            for server in nameservers(Path(RESOLV_CONF).read_text(errors="replace"))
            if server.count(".") == 3 and ":" not in server
        ]
    return []


def _alias_of(network: NetworkRecord) -> str:
    """How links tell which network they belong to."""
    return f"hawse {network.id[:12]} "


def _sysctl(name: str, value: str) -> None:
    path = _SYSCTL / name
    if path.read_text().strip() != value:
        path.write_text(value)


@contextlib.contextmanager
def _refused(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostRefused(f"{doing}: {error.strerror or error}") from error
    except HostRefused as error:
        raise HostRefused(f"{doing}: {error.message}", hint=error.hint) from error
