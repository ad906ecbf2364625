"""A create request's networks, links and ports. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

from hawse_agent.api.docker.fields import Fields
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.container import EndpointSpec, PortMap


def networks(
    host: Fields, networking: Fields, mac: str, links: tuple[str, ...]
) -> tuple[str, tuple[EndpointSpec, ...]]:
    mode = host.text("NetworkMode") or "default"
    given = networking.mapping("EndpointsConfig")
    networking.rest()
    if mode in ("host", "none") or mode.startswith("container:"):
        if links:
            raise InputError(f"conflicting options: network mode {mode} can't be used with links")
        if mac or any(
            name != mode or _endpoint(name, settings, "") != EndpointSpec(network=name)
            for name, settings in given.items()
        ):
            raise InputError(f"conflicting options: network mode {mode} and settings for a network")
        return mode, ()
    first = "bridge" if mode == "default" else mode
    by_name = {("bridge" if name == "default" else name): settings for name, settings in given.items()}
    names = [first, *(name for name in by_name if name != first)]
    endpoints = tuple(_endpoint(name, by_name.get(name), mac if name == first else "") for name in names)
    if links and is_own(mode) and not endpoints[0].links:
        endpoints = (replace(endpoints[0], links=links), *endpoints[1:])
    plain = EndpointSpec(network=first)
    return mode, () if endpoints == (plain,) else endpoints


def is_own(mode: str) -> bool:
    """A network that a person has made."""
    return mode not in ("default", "bridge", "host", "none") and not mode.startswith("container:")


def link(text: str) -> str:
    """`name`, `name:alias`, and as inspect shows it: `/name:/own/alias`."""
    name, _, alias = text.partition(":")
    name = name.removeprefix("/")
    alias = alias.rpartition("/")[2] or name
    if not name:
        raise InputError(f"bad format for links: {text}")
    return f"{name}:{alias}"


def _endpoint(network: str, settings: Any, mac: str) -> EndpointSpec:
    fields = Fields(settings, f"EndpointsConfig.{network}")
    fields.ignore(
        dict.fromkeys(
            [
                "NetworkID",
                "EndpointID",
                "Gateway",
                "IPAddress",
                "IPPrefixLen",
                "IPv6Gateway",
                "GlobalIPv6Address",
                "GlobalIPv6PrefixLen",
                "DNSNames",
            ],
            "what an endpoint is, not what it shall be",
        )
    )
    ipam = fields.inner("IPAMConfig")
    address = ipam.text("IPv4Address")
    ipam.rest()
    own_mac = fields.text("MacAddress")
    aliases = fields.texts("Aliases")
    links = tuple(link(text) for text in fields.texts("Links"))
    fields.rest()
    if links and network == "bridge":
        raise InputError("links of an endpoint are only supported for user-defined networks")
    if aliases and network == "bridge":
        raise InputError("network-scoped aliases are only supported for user-defined networks")
    return EndpointSpec(network=network, aliases=aliases, ipv4=address, mac=own_mac or mac, links=links)


def ports(given: dict[str, Any]) -> tuple[PortMap, ...]:
    found = []
    for port, bindings in given.items():
        number, protocol = _port(port)
        if bindings is not None and not isinstance(bindings, list):
            raise InputError(f"HostConfig.PortBindings.{port}: expected a list")
        for binding in bindings or [{}]:
            fields = Fields(binding, f"PortBindings.{port}")
            host_ip, host_port = fields.text("HostIp"), fields.text("HostPort")
            fields.rest()
            first, last = _host_ports(host_port, port)
            found.append(
                PortMap(
                    container_port=number,
                    protocol=protocol,
                    host_ip="" if host_ip == "0.0.0.0" else host_ip,
                    host_port=first,
                    host_port_last=last,
                )
            )
    return tuple(found)


def _host_ports(text: str, port: str) -> tuple[int, int]:
    """`8080`, or `8000-8010` of which one is taken; the second is 0 for one alone."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text or "0", re.ASCII)
    if match is None:
        raise InputError(f'invalid port specification: "{text}" for {port}')
    first, last = int(match[1]), int(match[2] or 0)
    if first > 65535 or last > 65535 or (match[2] and not 0 < first <= last):
        raise InputError(f'invalid port specification: "{text}" for {port}')
    return first, last if last > first else 0


def exposed(given: dict[str, Any]) -> tuple[str, ...]:
    """`80/tcp`, each once; `80-89/tcp` is ten of them."""
    found: dict[str, None] = {}
    for text in given:
        numbers, slash, protocol = text.partition("/")
        first, _, last = numbers.partition("-")
        (low, kind), (high, _) = (_port(f"{end}{slash}{protocol}") for end in (first, last or first))
        if high < low:
            raise InputError(f'invalid port specification: "{numbers}": it goes backwards')
        found |= dict.fromkeys(f"{number}/{kind}" for number in range(low, high + 1))
    return tuple(found)


def _port(text: str) -> tuple[int, Literal["tcp", "udp"]]:
    number, _, protocol = text.partition("/")
    if not re.fullmatch(r"[0-9]{1,5}", number) or not 0 < int(number) < 65536:
        raise InputError(f'invalid port specification: "{number}": expected 1 to 65535, as in 80/tcp')
    if protocol.lower() in ("", "tcp"):
        return int(number), "tcp"
    if protocol.lower() == "udp":
        return int(number), "udp"
    raise NotSupported(f"protocol {protocol!r} of port {number} is not supported: tcp and udp are")
