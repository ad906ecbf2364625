"""Links, addresses and routes, by rtnetlink: bridges on the host, veth pairs into network namespaces.

A link is asked for by name; all are listed only when a bridge is repaired and when an instance is reset.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from hawse_agent.network.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nested,
    text,
)

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_GETROUTE = 20, 24, 26
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 20, 26, 27, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BRPORT_HAIRPIN = 4
_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_MODE_NONE = 8, 1
_VETH_INFO_PEER = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_BOOT = 254, 3
_RT_SCOPE_UNIVERSE, _RTN_UNICAST = 0, 1
_IFF_UP = 0x1

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, kw_only=True)
class Link:
    index: int
    name: str
    up: bool
    master: int = 0
    alias: str = ""


@dataclass(frozen=True, kw_only=True)
class Veth:
    """A pair: `host` becomes a port of `bridge`, `container` lies in the namespace of `netns_fd`."""

    host: str
    bridge: str
    container: str
    netns_fd: int
    mac: str
    mtu: int
    alias: str
    group: int = 0
    """The group of the host's end; see `ruleset.APART_GROUP`."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """What a link inside a namespace gets; `gateway` makes the default route go through it."""

    link: str
    address: IPv4Interface
    gateway: str = ""


def route_socket() -> Netlink:
    return Netlink(socket.NETLINK_ROUTE)


def find(netlink: Netlink, name: str) -> Link | None:
    try:
        body = netlink.get(Message(type=_RTM_GETLINK, body=_named(name)))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _link(body)


def list_all(netlink: Netlink) -> list[Link]:
    return [
        _link(body) for body in netlink.dump(Message(type=_RTM_GETLINK, body=_IFINFO.pack(0, 0, 0, 0, 0)))
    ]


def delete(netlink: Netlink, name: str) -> bool:
    """Whether there was such a link. A veth takes 20 ms: better leave it to the end of its namespace."""
    try:
        netlink.request(Message(type=_RTM_DELLINK, body=_named(name)))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def ensure_bridge(netlink: Netlink, name: str, *, address: IPv4Interface, mac: str, mtu: int) -> Link:
    """A bridge that is up and has the address; what is there already stays."""
    link = find(netlink, name)
    if link is None:
        netlink.request(
            Message(
                type=_RTM_NEWLINK,
                flags=NLM_F_CREATE | NLM_F_EXCL,
                body=_named(name)
                + attribute(_IFLA_MTU, mtu)
                # A fixed address: else it changes with the ports, and neighbours lose the gateway.
                + attribute(_IFLA_ADDRESS, _mac(mac))
                + nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, "bridge")),
            )
        )
        link = find(netlink, name)
        if link is None:
            raise NetlinkError(errno.ENODEV, f"{name} is gone again")
    _add_address(netlink, link.index, address)
    netlink.request(_up(name))
    return link


def create_veth(netlink: Netlink, veth: Veth, bridge: Link) -> None:
    """Make the pair, the host's end up and on the bridge. A leftover of the same name is replaced."""
    try:
        netlink.request(_new_veth(veth, bridge))
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        delete(netlink, veth.host)  # of an earlier run, whose namespace the kernel has not freed yet
        netlink.request(_new_veth(veth, bridge))
    make_port(netlink, veth.host, veth.alias)


def make_port(netlink: Netlink, name: str, alias: str) -> None:
    """The settings of a port that is on its bridge: up, and hairpin, since where br_netfilter is on, what a
    container sends to its own published port goes back through the port that it came from."""
    port = nested(_IFLA_INFO_SLAVE_DATA, attribute(_IFLA_BRPORT_HAIRPIN, b"\1"))
    slave = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_SLAVE_KIND, "bridge"), port)
    netlink.run(
        [
            Message(type=_RTM_NEWLINK, body=_named(name) + slave),
            *_without_ipv6(name),
            Message(type=_RTM_SETLINK, body=_named(name, up=True) + attribute(_IFLA_IFALIAS, alias.encode())),
        ]
    )


def set_master(netlink: Netlink, link: Link, master: int) -> None:
    """Make it a port of a bridge."""
    netlink.request(
        Message(
            type=_RTM_SETLINK,
            body=_IFINFO.pack(0, 0, link.index, 0, 0) + attribute(_IFLA_MASTER, master),
        )
    )


def release(netlink: Netlink, link: Link) -> None:
    """Take it off its bridge; it may be going away with its namespace at this moment."""
    try:
        set_master(netlink, link, 0)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise


def configure(netlink: Netlink, addresses: Sequence[Address]) -> None:
    """Inside a namespace (`netlink` was opened there): loopback up, each link with address and routes."""
    netlink.request(_up("lo"))
    for wanted in addresses:
        link = find(netlink, wanted.link)
        if link is None:
            raise NetlinkError(errno.ENODEV, f"{wanted.link} is not in the namespace")
        _add_address(netlink, link.index, wanted.address)
        netlink.run([*_without_ipv6(wanted.link), _up(wanted.link)])
        if wanted.gateway:
            netlink.request(_default_route(link.index, wanted.gateway))


def routes(netlink: Netlink) -> list[IPv4Network]:
    """Where the host's routes lead, the default route aside."""
    found = set()
    body = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    for route in netlink.dump(Message(type=_RTM_GETROUTE, body=body)):
        prefix = _RTMSG.unpack_from(route)[1]
        for kind, value in attributes(route[_RTMSG.size :]):
            if kind == _RTA_DST and prefix:
                found.add(IPv4Network((int.from_bytes(value, "big"), prefix)))
    return sorted(found)


def _new_veth(veth: Veth, bridge: Link) -> Message:
    peer = (
        _named(veth.container)
        + attribute(_IFLA_ADDRESS, _mac(veth.mac))
        + attribute(_IFLA_MTU, veth.mtu)
        + attribute(_IFLA_NET_NS_FD, veth.netns_fd)
    )
    return Message(
        type=_RTM_NEWLINK,
        flags=NLM_F_CREATE | NLM_F_EXCL,
        body=_named(veth.host)
        + attribute(_IFLA_GROUP, veth.group)
        + attribute(_IFLA_MTU, veth.mtu)
        + attribute(_IFLA_MASTER, bridge.index)
        + nested(
            _IFLA_LINKINFO,
            attribute(_IFLA_INFO_KIND, "veth"),
            nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer)),
        ),
    )


def _without_ipv6(name: str) -> list[Message]:
    """No link-local address by itself: networks are IPv4, and each would go through duplicate detection."""
    if not Path("/proc/sys/net/ipv6").is_dir():
        return []
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_MODE_NONE]))
    spec = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return [Message(type=_RTM_SETLINK, body=_named(name) + spec)]


def _up(name: str) -> Message:
    return Message(type=_RTM_SETLINK, body=_named(name, up=True))


def _named(name: str, *, up: bool = False) -> bytes:
    flag = _IFF_UP if up else 0
    return _IFINFO.pack(0, 0, 0, flag, flag) + attribute(_IFLA_IFNAME, name)


def _add_address(netlink: Netlink, index: int, address: IPv4Interface) -> None:
    try:
        netlink.request(
            Message(
                type=_RTM_NEWADDR,
                flags=NLM_F_CREATE | NLM_F_EXCL,
                body=_IFADDR.pack(socket.AF_INET, address.network.prefixlen, 0, _RT_SCOPE_UNIVERSE, index)
                + attribute(_IFA_LOCAL, address.ip.packed)
                + attribute(_IFA_ADDRESS, address.ip.packed)
                + attribute(_IFA_BROADCAST, address.network.broadcast_address.packed),
            )
        )
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise


def _default_route(index: int, gateway: str) -> Message:
    head = _RTMSG.pack(
        socket.AF_INET, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0
    )
    return Message(
        type=_RTM_NEWROUTE,
        flags=NLM_F_CREATE | NLM_F_EXCL,
        body=head + attribute(_RTA_GATEWAY, socket.inet_aton(gateway)) + attribute(_RTA_OIF, index),
    )


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = dict(attributes(body[_IFINFO.size :]))
    return Link(
        index=index,
        name=text(found[_IFLA_IFNAME]),
        up=bool(flags & _IFF_UP),
        master=int.from_bytes(found.get(_IFLA_MASTER, b"\0"), sys.byteorder),
        alias=text(found.get(_IFLA_IFALIAS, b"")),
    )


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
