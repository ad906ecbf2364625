"""The firewall of an instance as text of nft and as elements of its sets. Pure.

    table inet hawse
      sets   bridges    interface        bridges of ours
             internal   interface        those that lead nowhere else
             talking    in . out         bridges whose containers may talk to each other
             apart      in . out         bridges whose containers may not
             subnets    interval         addresses of containers that may go out
      maps   published_at   (address, protocol, port) → (container, port)      -p 127.0.0.1:8080:80
             published      (protocol, port) → (container, port)               -p 8080:80
      chains guard        nothing from a container reaches 127.0.0.0/8 of the host (route_localnet allows it)
             forward      into a bridge: answers, published ports, the same bridge; else dropped
             prerouting, output → publish
             postrouting  masquerade what goes out, comes back in by a published port, or came by 127.0.0.1

    table bridge hawse
      chains forward      between the containers of a bridge that is `apart`: only what is let through below

What a rule costs does not grow with networks or ports. Packets between two containers of one bridge pass the
inet table only where br_netfilter is on (Docker turns it on), and then even those to a published port, which
are translated without leaving the bridge. So `icc: false` is kept by the bridge table, by the group of the
ports; the inet table marks what it has translated, and the bridge table lets that through.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network

from hawse_agent.network.nfnetlink import Element
from hawse_agent.spec.records import NetworkRecord, PortRecord

MAPS = ("published_at", "published")
APART_GROUP = 0x68617773
"""Group of the host's end of links to bridges that are `apart`; the same for all instances."""

_MARK = "0x00400000"

_DECLARATIONS = """\
    set bridges {{ type ifname; {bridges}}}
    set internal {{ type ifname; {internal}}}
    set talking {{ type ifname . ifname; {talking}}}
    set apart {{ type ifname . ifname; {apart}}}
    set subnets {{ type ipv4_addr; flags interval; {subnets}}}
    map published_at {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {published_at}
    }}
    map published {{
        type inet_proto . inet_service : ipv4_addr . inet_service; {published}
    }}
"""

_CHAINS = f"""\
    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname @bridges ip daddr 127.0.0.0/8 drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname . oifname @talking accept
        iifname . oifname @apart ct status dnat meta mark set meta mark or {_MARK}
        iifname @internal drop
        oifname @internal drop
        oifname @bridges ct state established,related accept
        oifname @bridges ct status dnat accept
        oifname @bridges drop
    }}
    chain publish {{
        meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @published_at
        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr 127.0.0.0/8 return
        fib daddr type local jump publish
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        fib daddr type local jump publish
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @subnets oifname != @bridges masquerade
        ip saddr @subnets ct status dnat masquerade
        ip saddr 127.0.0.0/8 oifname @bridges masquerade
    }}
"""

_BRIDGE_CHAINS = f"""\
    chain forward {{
        type filter hook forward priority 100; policy accept;
        meta iifgroup {APART_GROUP:#x} meta oifgroup {APART_GROUP:#x} meta mark and {_MARK} != {_MARK} drop
    }}
"""


def tables_text(table: str, networks: Sequence[NetworkRecord], ports: Iterable[PortRecord]) -> str:
    """Both tables, in place of those that are there, in one transaction."""
    elements = {name: _listed(texts) for name, texts in _network_texts(networks).items()}
    for name in MAPS:
        elements[name] = _listed([_port_text(port) for port in ports if _map(port) == name])
    body = _DECLARATIONS.format(**elements) + _CHAINS
    return (
        removal_text(table)
        + f"table inet {table} {{\n{body}}}\n"
        + f"table bridge {table} {{\n{_BRIDGE_CHAINS}}}\n"
    )


def removal_text(table: str) -> str:
    """Adding first makes the deletion succeed when there is none."""
    return "".join(
        f"add table {family} {table}\ndelete table {family} {table}\n" for family in ("inet", "bridge")
    )


def network_text(table: str, verb: str, network: NetworkRecord) -> str:
    """Commands that add the elements of one network, or delete them."""
    lines = []
    for name, texts in _network_texts([network]).items():
        lines += [f"{verb} element inet {table} {name} {{ {text} }}\n" for text in texts]
    return "".join(lines)


def network_elements(networks: Sequence[NetworkRecord]) -> Mapping[str, Mapping[bytes, str]]:
    """Set → the keys that it should have, each with how nft writes it."""
    found: dict[str, dict[bytes, str]] = {name: {} for name in _network_texts([])}
    for network in _bridges(networks):
        name = network.bridge.encode().ljust(16, b"\0")
        found["bridges"][name] = network.bridge
        if network.internal:
            found["internal"][name] = network.bridge
        else:
            found["subnets"][IPv4Network(network.subnet).network_address.packed] = network.subnet
        if network.icc:
            found["talking"][name + name] = f"{network.bridge} . {network.bridge}"
        else:
            found["apart"][name + name] = f"{network.bridge} . {network.bridge}"
    return found


def port_element(port: PortRecord) -> Element:
    key = struct.pack("!B3xH2x", _protocol(port), port.host_port)
    if _map(port) == "published_at":
        key = socket.inet_aton(port.host_ip) + key
    data = socket.inet_aton(port.container_ip) + struct.pack("!H2x", port.container_port)
    return Element(set=_map(port), key=key, data=data)


def anywhere(host_ip: str) -> bool:
    return host_ip in ("", "0.0.0.0")


def _network_texts(networks: Sequence[NetworkRecord]) -> dict[str, list[str]]:
    ours = _bridges(networks)
    return {
        "bridges": [f'"{n.bridge}"' for n in ours],
        "internal": [f'"{n.bridge}"' for n in ours if n.internal],
        "talking": [f'"{n.bridge}" . "{n.bridge}"' for n in ours if n.icc],
        "apart": [f'"{n.bridge}" . "{n.bridge}"' for n in ours if not n.icc],
        "subnets": [n.subnet for n in ours if not n.internal],
    }


def _bridges(networks: Sequence[NetworkRecord]) -> list[NetworkRecord]:
    return [network for network in networks if network.driver == "bridge"]


def _listed(texts: Sequence[str]) -> str:
    return f"elements = {{ {', '.join(texts)} }} " if texts else ""


def _port_text(port: PortRecord) -> str:
    address = "" if anywhere(port.host_ip) else f"{port.host_ip} . "
    return f"{address}{port.protocol} . {port.host_port} : {port.container_ip} . {port.container_port}"


def _map(port: PortRecord) -> str:
    return "published" if anywhere(port.host_ip) else "published_at"


def _protocol(port: PortRecord) -> int:
    return socket.IPPROTO_UDP if port.protocol == "udp" else socket.IPPROTO_TCP
