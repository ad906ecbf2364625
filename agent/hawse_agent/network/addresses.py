"""Subnets, addresses and names of links: chosen from what is taken. Pure.

Pools are cut into /22: as many addresses as a bridge has ports. An instance other than the default one
begins elsewhere in the pools, so that two that start at the same moment do not choose the same subnet.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from itertools import chain

from hawse_agent.errors import Conflict, HostRefused, InputError, NotSupported

POOLS = tuple(IPv4Network(pool) for pool in ("172.30.0.0/16", "172.29.0.0/16", "10.210.0.0/16"))
POOL_PREFIX = 22
MAX_LINK_NAME = 15

_DEFAULT_BRIDGE = "hawse0"


def choose_subnet(taken: Iterable[IPv4Network], instance: str) -> IPv4Network:
    """The first of the pools that overlaps nothing that is taken."""
    taken = list(taken)
    candidates = [subnet for pool in POOLS for subnet in pool.subnets(new_prefix=POOL_PREFIX)]
    first = int(hashlib.sha256(instance.encode()).hexdigest(), 16) % len(candidates) if instance else 0
    for subnet in candidates[first:] + candidates[:first]:
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise HostRefused(
        "could not find an available, non-overlapping IPv4 address pool among "
        + ", ".join(str(pool) for pool in POOLS),
        hint="remove networks that are not used, or give the network a subnet",
    )


def parse_subnet(text: str) -> IPv4Network:
    if ":" in text:
        raise NotSupported(f"subnet {text}: networks are IPv4")
    try:
        subnet = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise InputError(f"invalid subnet {text}: {error}") from error
    if subnet.prefixlen > 30:
        raise InputError(f"invalid subnet {text}: it has no room for a gateway and a container")
    return subnet


def parse_inside(text: str, subnet: IPv4Network, what: str) -> IPv4Address:
    """An address of a host in the subnet."""
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise InputError(f"invalid {what} {text}: {error}") from error
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
        raise InputError(f"invalid {what} {text}: no host address of {subnet}")
    return address


def parse_range(text: str, subnet: IPv4Network) -> IPv4Network:
    try:
        part = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise InputError(f"invalid ip range {text}: {error}") from error
    if not part.subnet_of(subnet):
        raise InputError(f"invalid ip range {text}: not inside of {subnet}")
    return part


def choose_address(
    subnet: IPv4Network, part: IPv4Network, taken: Collection[str], after: int, network_name: str
) -> IPv4Address:
    """The next free one of `part` after `after`, in turn: one just given back is not used at once."""
    first = max(int(part.network_address), int(subnet.network_address) + 1)
    last = min(int(part.broadcast_address), int(subnet.broadcast_address) - 1)
    start = after + 1 if first <= after < last else first
    for number in chain(range(start, last + 1), range(first, start)):
        address = IPv4Address(number)
        if str(address) not in taken:
            return address
    raise Conflict(f"no available IPv4 addresses on network {network_name} ({part})")


def mac_for(network_id: str, address: IPv4Address) -> str:
    """Locally administered, from the address: who takes over an address takes over its ARP entries too."""
    salt = hashlib.sha256(network_id.encode()).digest()[0]
    return ":".join(f"{byte:02x}" for byte in (0x02, salt, *address.packed))


def parse_mac(text: str) -> str:
    parts = text.lower().replace("-", ":").split(":")
    try:
        octets = [int(part, 16) for part in parts]
    except ValueError as error:
        raise InputError(f"invalid MAC address {text}") from error
    if len(octets) != 6 or any(octet > 255 for octet in octets) or octets[0] & 1 or not any(octets):
        raise InputError(f"invalid MAC address {text}")
    return ":".join(f"{octet:02x}" for octet in octets)


def default_bridge(instance: str) -> str:
    return f"hw{instance}0" if instance else _DEFAULT_BRIDGE


def bridge_for(network_id: str, instance: str, taken: Collection[str]) -> str:
    """`hw-<10 hex>`, or `hw<instance>-<6 hex>`."""
    prefix = f"hw{instance}-"
    room = MAX_LINK_NAME - len(prefix)
    for start in range(len(network_id) - room):
        name = prefix + network_id[start : start + min(room, 10)]
        if name not in taken:
            return name
    raise HostRefused(f"no name is left for a bridge beginning with {prefix}")


def host_link_for(container_id: str, network_id: str, instance: str) -> str:
    """The same for each run of a container, so that a leftover of the last one is found."""
    prefix = f"hv{instance or '-'}"
    digest = hashlib.sha256(f"{container_id} {network_id}".encode()).digest()
    return (prefix + base64.b32encode(digest).decode().lower())[:MAX_LINK_NAME]


def is_ours(link: str, instance: str) -> bool:
    """Whether a link has a name that this instance gives."""
    if instance:
        return link.startswith((f"hw{instance}", f"hv{instance}"))
    return link == _DEFAULT_BRIDGE or link.startswith(("hw-", "hv-"))


def overlap(subnet: IPv4Network, others: Sequence[tuple[str, IPv4Network]]) -> str | None:
    """Who has addresses of `subnet` already."""
    return next((name for name, other in others if subnet.overlaps(other)), None)
