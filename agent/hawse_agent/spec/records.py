"""What the agent has made and remembers: rows that the engine keeps and the lower layers work from.

They live beside the specs because network, images and volumes need them and must not import the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hawse_agent.errors import InputError
from hawse_agent.spec.container import ContainerSpec, Protocol
from hawse_agent.spec.volume import Mount

NOBODY = 65534
"""Who has no id inside."""

ContainerStatus = Literal["created", "running", "paused", "restarting", "exited", "removing", "dead"]


@dataclass(frozen=True, kw_only=True)
class IdRange:
    """Users and groups of the host, `count` of them from `first` on, that a container calls 0, 1, …"""

    first: int
    count: int

    def inside(self, host: int) -> int:
        """What the container calls a user of the host."""
        return host - self.first if 0 <= host - self.first < self.count else NOBODY

    def outside(self, own: int) -> int:
        """The host's user that the container calls so. Raises InputError."""
        if not 0 <= own < self.count:
            raise InputError(f"the container has no user or group {own}: its ids are 0 to {self.count - 1}")
        return self.first + own


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """A network as made: addresses are decided, the bridge has its name."""

    id: str
    name: str
    driver: Literal["bridge", "host", "none"]
    bridge: str = ""
    """Interface name, at most 15 characters; empty for host and none."""
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    internal: bool = False
    icc: bool = True
    mtu: int = 1500
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    default: bool = False
    """The network called `bridge`: no DNS of ours on it, as with Docker."""


@dataclass(frozen=True, kw_only=True)
class EndpointRecord:
    """A container's place on a network, with its leased address."""

    container: str
    network: str
    """Network id."""
    ipv4: str
    """With prefix length: 172.30.0.2/24."""
    mac: str
    host_link: str
    """Name of the veth end on the host, derived from container and network id."""
    container_link: str
    """eth0, eth1…"""
    names: tuple[str, ...] = ()
    """What DNS answers for it: container name, aliases, short id."""
    links: tuple[str, ...] = ()
    """`name:alias`: names that DNS knows for this container alone."""


@dataclass(frozen=True, kw_only=True)
class PortRecord:
    """A published port as it is: host_port is decided. host_ip "" means 0.0.0.0."""

    container: str
    host_ip: str
    host_port: int
    protocol: Protocol
    container_ip: str
    container_port: int


@dataclass(frozen=True, kw_only=True)
class ContainerRecord:
    id: str
    spec: ContainerSpec
    image_id: str
    created: float
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Mount target → volume name, anonymous ones included."""
    anonymous: tuple[str, ...] = ()
    """Volumes that `rm -v` takes along."""
    inherited: tuple[Mount, ...] = ()
    """What `volumes_from` brought when it was created: the lender may go."""
    desired: Literal["running", "stopped"] = "stopped"
    """What the person asked for last; `unless-stopped` and reboot look at it."""
    removing: bool = False
    ids: IdRange | None = None
    """None: the container is in the host's user namespace."""
    of_build: bool = False
    """A step of a build: in no list, and gone with the build, or with the daemon."""
