"""Networks in Docker's JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hawse_agent.api.docker.views.times import stamp
from hawse_agent.spec.records import EndpointRecord, NetworkRecord


def network(record: NetworkRecord, members: Sequence[tuple[EndpointRecord, str]]) -> dict[str, Any]:
    """`members` are the endpoints with the names of their containers."""
    pool = {"Subnet": record.subnet, "Gateway": record.gateway, "IPRange": record.ip_range}
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": stamp(record.created),
        "Scope": "local",
        "Driver": "null" if record.driver == "none" else record.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{key: value for key, value in pool.items() if value}] if record.subnet else [],
        },
        "Internal": record.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            endpoint.container: {
                "Name": name,
                "EndpointID": f"{record.id[:32]}{endpoint.container[:32]}",
                "MacAddress": endpoint.mac,
                "IPv4Address": endpoint.ipv4,
                "IPv6Address": "",
            }
            for endpoint, name in members
        },
        "Options": {**(_default_options(record) if record.default else {}), **record.options},
        "Labels": dict(record.labels),
    }


def _default_options(record: NetworkRecord) -> dict[str, str]:
    """Where clients look for the name of the default bridge."""
    prefix = "com.docker.network"
    return {
        f"{prefix}.bridge.default_bridge": "true",
        f"{prefix}.bridge.enable_icc": "true" if record.icc else "false",
        f"{prefix}.bridge.enable_ip_masquerade": "true",
        f"{prefix}.bridge.host_binding_ipv4": "0.0.0.0",
        f"{prefix}.bridge.name": record.bridge,
        f"{prefix}.driver.mtu": str(record.mtu),
    }
