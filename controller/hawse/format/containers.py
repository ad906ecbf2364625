"""A row of `ps`: a container as a list has it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from hawse.format.listing import Listing
from hawse.format.table import Precedence
from hawse.format.units import human_duration, human_size, local_time, short_id, shortened
from hawse.format.values import Row, quoted
from hawse_agent.distribution.reference import without_defaults

CONTAINERS = Listing(
    headings={
        "ID": "CONTAINER ID",
        "Names": "NAMES",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Ports": "PORTS",
        "State": "STATE",
        "Status": "STATUS",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
    },
    raw="container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n"
    "state: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\n"
    "labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n",
    table="{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    precedence=Precedence(least=("COMMAND", "IMAGE", "PORTS"), kept=("STATUS", "NAMES")),
)
SIZE = "\t{{.Size}}"
"""The column that -s adds."""


def container_row(found: Mapping[str, Any], *, cut: bool, now: float | None = None) -> Row:
    """`cut`: long ids, commands and names are cut."""
    now = time.time() if now is None else now
    labels: Mapping[str, str] = found.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in found.get("Mounts") or ()]
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    names = [name.removeprefix("/") for name in found.get("Names") or ()]
    if cut:
        names = [name for name in names if "/" not in name][:1]
        mounts = [shortened(mount, 15) for mount in mounts]
    size = human_size(found.get("SizeRw") or 0, 3)
    if whole := found.get("SizeRootFs") or 0:
        size = f"{size} (virtual {human_size(whole, 3)})"
    command = found["Command"]
    return Row(
        {
            "ID": short_id(found["Id"]) if cut else found["Id"],
            "Names": ",".join(names),
            "Image": _image(found, cut=cut),
            "Command": quoted(shortened(command, 20) if cut else command),
            "CreatedAt": local_time(found["Created"]),
            "RunningFor": f"{human_duration(now - found['Created'])} ago",
            "Ports": ports(found.get("Ports") or ()),
            "State": found["State"],
            "Status": found["Status"],
            "Size": size,
            "Labels": label_list(labels),
            "Label": lambda name: labels.get(name, ""),
            "Mounts": ",".join(mounts),
            "LocalVolumes": str(sum(m.get("Driver") == "local" for m in found.get("Mounts") or ())),
            "Networks": ",".join(sorted(networks)),
            "Platform": None,
        }
    )


def _image(found: Mapping[str, Any], *, cut: bool) -> str:
    image = str(found.get("Image") or "")
    if not image:
        return "<no image>"
    if not cut:
        return image
    if short_id(image) == (short := short_id(str(found.get("ImageID") or ""))):
        return short
    return without_defaults(image.partition("@")[0])


def label_list(labels: Mapping[str, str] | None) -> str:
    return ",".join(sorted(f"{key}={value}" for key, value in (labels or {}).items()))


def ports(listed: Iterable[Mapping[str, Any]]) -> str:
    """`0.0.0.0:80->80/tcp, 9000-9002/tcp`: neighbours together; those that are moved at the end."""
    groups: dict[str, tuple[int, int]] = {}
    done: list[str] = []
    moved: list[str] = []
    for port in sorted(listed, key=_port_order):
        inner, kind, address = port["PrivatePort"], port["Type"], port.get("IP", "")
        outer = port.get("PublicPort", 0)
        if address and outer != inner:
            moved.append(f"{joined(address, str(outer))}->{inner}/{kind}")
            continue
        key = f"{address}/{kind}" if address else kind
        if key in groups and inner != groups[key][1] + 1:
            done.append(_group(key, *groups[key]))
            groups[key] = (inner, inner)
        else:
            groups[key] = (groups.get(key, (inner, inner))[0], inner)
    return ", ".join([*done, *(_group(key, *group) for key, group in groups.items()), *moved])


def _port_order(port: Mapping[str, Any]) -> tuple[int, str, int, str]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def _group(key: str, first: int, last: int) -> str:
    address, _, kind = key.rpartition("/")
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{joined(address, numbers)}->{numbers}/{kind}" if address else f"{numbers}/{kind}"


def joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
