"""A container's networks and ports in Docker's JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hawse_agent.api.docker.views.configuration import exposed_ports
from hawse_agent.engine.views import ContainerView
from hawse_agent.images.store import Image
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.records import EndpointRecord, NetworkRecord, PortRecord


def networks_of(view: ContainerView, networks: Mapping[str, NetworkRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for endpoint in view.endpoints:
        network = networks.get(endpoint.network)
        if network is not None:
            found[network.name] = endpoint_json(endpoint, network)
    if found:
        return found
    by_name = {network.name: network for network in networks.values()}
    return {name: _no_endpoint(by_name.get(name)) for name in _wanted_networks(view.record.spec)}


def network_names(view: ContainerView, networks: Mapping[str, NetworkRecord]) -> list[str]:
    """Of the networks that it is on, or will be on when it starts."""
    found = [networks[e.network].name for e in view.endpoints if e.network in networks]
    return found or _wanted_networks(view.record.spec)


def _wanted_networks(spec: ContainerSpec) -> list[str]:
    if spec.network_mode in ("host", "none"):
        return [spec.network_mode]
    if spec.network_mode.startswith("container:"):
        return []
    first = "bridge" if spec.network_mode == "default" else spec.network_mode
    return [wanted.network for wanted in spec.networks] or [first]


def endpoint_json(endpoint: EndpointRecord, network: NetworkRecord) -> dict[str, Any]:
    address, _, prefix = endpoint.ipv4.partition("/")
    return {
        "IPAMConfig": None,
        "Links": list(endpoint.links) or None,
        "Aliases": None if network.default else list(endpoint.names),
        "MacAddress": endpoint.mac,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network.id,
        "EndpointID": f"{network.id[:32]}{endpoint.container[:32]}",
        "Gateway": network.gateway,
        "IPAddress": address,
        "IPPrefixLen": int(prefix or 0),
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None if network.default else list(endpoint.names),
    }


def _no_endpoint(network: NetworkRecord | None) -> dict[str, Any]:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network.id if network is not None else "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def first_endpoint(view: ContainerView, networks: Mapping[str, NetworkRecord]) -> dict[str, Any]:
    """The old place of the default network's address, which clients still read."""
    for endpoint in view.endpoints:
        network = networks.get(endpoint.network)
        if network is not None and network.default:
            shown = endpoint_json(endpoint, network)
            return {key: shown[key] for key in _OF_FIRST}
    shown = _no_endpoint(None)
    return {key: shown[key] for key in _OF_FIRST}


_OF_FIRST = (
    *("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen"),
    *("IPv6Gateway", "MacAddress"),
)


def port_bindings(view: ContainerView, image: Image | None) -> dict[str, Any]:
    """`NetworkSettings.Ports`: null for a port that is exposed and not published."""
    found: dict[str, Any] = dict.fromkeys(exposed_ports(view.record.spec, image))
    for port in view.ports:
        key = f"{port.container_port}/{port.protocol}"
        entry = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}
        found[key] = [*(found.get(key) or []), entry]
    return found


def published(ports: Sequence[PortRecord]) -> list[dict[str, Any]]:
    return [
        {
            "IP": port.host_ip or "0.0.0.0",
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
        for port in ports
    ]


def exposed(spec: ContainerSpec, image: Image | None, ports: Sequence[PortRecord]) -> list[dict[str, Any]]:
    published = {f"{port.container_port}/{port.protocol}" for port in ports}
    found = []
    for port in exposed_ports(spec, image):
        number, _, protocol = port.partition("/")
        if port not in published and number.isdecimal():
            found.append({"PrivatePort": int(number), "Type": protocol})
    return found
