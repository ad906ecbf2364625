"""Networks that containers join."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """`subnet`, `gateway`, `ip_range` are IPv4 in text; empty lets the agent choose from its pools."""

    name: str
    driver: Literal["bridge"] = "bridge"
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    internal: bool = False
    mtu: int = 0
    icc: bool = True
    """Whether containers on this network may talk to each other."""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
