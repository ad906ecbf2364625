"""Rows of `volume ls` and `network ls`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hawse.format.containers import label_list
from hawse.format.listing import Listing
from hawse.format.units import human_size, short_id
from hawse.format.values import Row

VOLUMES = Listing(
    headings={
        "Name": "VOLUME NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "Mountpoint": "MOUNTPOINT",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Size": "SIZE",
        "Group": "GROUP",
        "Availability": "AVAILABILITY",
        "Status": "STATUS",
    },
    raw="name: {{.Name}}\ndriver: {{.Driver}}\n",
    table="{{.Driver}}\t{{.Name}}",
    quiet="{{.Name}}",
)
NETWORKS = Listing(
    headings={
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
    raw="network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
    table="{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
)


def volume_row(found: Mapping[str, Any]) -> Row:
    usage, labels = found.get("UsageData"), found.get("Labels") or {}
    return Row(
        {
            "Name": found["Name"],
            "Driver": found["Driver"],
            "Scope": found["Scope"],
            "Mountpoint": found["Mountpoint"],
            "Labels": label_list(labels),
            "Label": lambda name: labels.get(name, ""),
            "Links": "N/A" if usage is None else str(usage["RefCount"]),
            "Size": "N/A" if usage is None else human_size(usage["Size"]),
            **dict.fromkeys(("Group", "Availability", "Status"), "N/A"),
        }
    )


def network_row(found: Mapping[str, Any], *, cut: bool) -> Row:
    labels = found.get("Labels") or {}
    return Row(
        {
            "ID": short_id(found["Id"]) if cut else found["Id"],
            "Name": found["Name"],
            "Driver": found["Driver"],
            "Scope": found["Scope"],
            "IPv4": str(bool(found.get("EnableIPv4"))).lower(),
            "IPv6": str(bool(found.get("EnableIPv6"))).lower(),
            "Internal": str(bool(found.get("Internal"))).lower(),
            "Labels": label_list(labels),
            "Label": lambda name: labels.get(name, ""),
            "CreatedAt": _go_time(found["Created"]),
        }
    )


def _go_time(stamp: str) -> str:
    """`2026-01-30T14:25:00.5Z` as Go prints a time: `2026-01-30 14:25:00.5 +0000 UTC`."""
    whole, _, rest = stamp.partition(".")
    fraction = rest.rstrip("Z").rstrip("0")
    zone = datetime.fromisoformat(f"{whole.rstrip('Z')}+00:00")
    return f"{zone:%Y-%m-%d %H:%M:%S}{f'.{fraction}' if fraction else ''} +0000 UTC"
