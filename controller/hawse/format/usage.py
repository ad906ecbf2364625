"""`df`: what images, containers, volumes and the build cache take, in all and one by one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from hawse.format.containers import CONTAINERS, container_row
from hawse.format.images import IMAGES, image_rows
from hawse.format.listing import Listing
from hawse.format.template import Template
from hawse.format.units import human_duration, human_size, short_id
from hawse.format.values import Row, Struct
from hawse.format.volumes import VOLUMES, volume_row

USAGE = Listing(
    headings={
        "Type": "TYPE",
        "TotalCount": "TOTAL",
        "Active": "ACTIVE",
        "Size": "SIZE",
        "Reclaimable": "RECLAIMABLE",
    },
    raw="type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\n"
    "reclaimable: {{.Reclaimable}}\n",
    table="{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
)
_CACHE = Listing(
    headings={
        "ID": "CACHE ID",
        "Parent": "PARENT",
        "CacheType": "CACHE TYPE",
        "Size": "SIZE",
        "CreatedSince": "CREATED",
        "LastUsedSince": "LAST USED",
        "UsageCount": "USAGE",
        "InUse": "IN USE",
        "Shared": "SHARED",
        "Description": "DESCRIPTION",
    },
    table="{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
)
_IMAGES = (
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}"
    "\t{{.Containers}}"
)
_CONTAINERS = (
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}"
    "\t{{.Names}}"
)
_VOLUMES = "{{.Name}}\t{{.Links}}\t{{.Size}}"
_ACTIVE = ("running", "paused", "restarting")

Found = Mapping[str, Any]
"""The answer of `/system/df`."""


def usage_rows(found: Found) -> list[Row]:
    """A line each: how many there are, how many are in use, what they take and what could be had back."""
    images, containers = found.get("Images") or (), found.get("Containers") or ()
    volumes, cache = found.get("Volumes") or (), found.get("BuildCache") or ()
    layers = found.get("LayersSize") or 0
    kept = sum(
        image["Size"] - image["SharedSize"]
        for image in images
        if image["Containers"] and image["Size"] != -1 and image["SharedSize"] != -1
    )
    stopped = [container for container in containers if container["State"] not in _ACTIVE]
    used = [volume for volume in volumes if volume["UsageData"]["RefCount"] > 0]
    unused = [volume for volume in volumes if volume["UsageData"]["RefCount"] == 0]
    own = [entry for entry in cache if not entry.get("Shared")]
    busy = [entry for entry in cache if entry.get("InUse")]
    records = sum(entry["Size"] for entry in own)
    in_use = sum(entry["Size"] for entry in own if entry.get("InUse"))
    return [
        _row("Images", images, sum(image["Containers"] > 0 for image in images), layers, layers - kept),
        _row(
            "Containers",
            containers,
            len(containers) - len(stopped),
            _sum(container.get("SizeRw") for container in containers),
            _sum(container.get("SizeRw") for container in stopped),
        ),
        _row("Local Volumes", volumes, len(used), _volume_sizes(volumes), _volume_sizes(unused)),
        Row(
            {
                **_row("Build Cache", cache, len(busy), records, 0),
                "Reclaimable": human_size(records - in_use),
            }
        ),
    ]


def _row(kind: str, entries: Sequence[Any], active: int, size: int, free: int) -> Row:
    share = f" ({free * 100 // size}%)" if size > 0 else ""
    return Row(
        {
            "Type": kind,
            "TotalCount": str(len(entries)),
            "Active": str(active),
            "Size": human_size(size),
            "Reclaimable": f"{human_size(free)}{share}",
        }
    )


def _sum(sizes: Iterable[int | None]) -> int:
    return sum(size or 0 for size in sizes)


def _volume_sizes(volumes: Iterable[Found]) -> int:
    return sum(volume["UsageData"]["Size"] for volume in volumes if volume["UsageData"]["Size"] != -1)


def details(found: Found, form: str, *, width: int | None = None) -> str:
    """Everything one by one: four tables, or a template over all of it."""
    cut = form in ("", "table")
    images = [Row({**image_rows(image, cut=cut)[0], "Digest": ""}) for image in found.get("Images") or ()]
    # What a container has written, without its image.
    containers = [
        container_row({**entry, "SizeRootFs": 0}, cut=cut) for entry in found.get("Containers") or ()
    ]
    volumes = [volume_row(volume) for volume in found.get("Volumes") or ()]
    cache = [_cache_row(entry, cut=cut) for entry in found.get("BuildCache") or ()]
    if not cut:
        whole = {"Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": cache}
        source = "{{json .}}" if form == "json" else form.replace("\\t", "\t").replace("\\n", "\n")
        return Template(source).execute(Struct(whole))
    size = human_size(sum(e["Size"] for e in found.get("BuildCache") or () if not e.get("Shared")))
    parts = (
        ("Images space usage:", IMAGES, _IMAGES, images),
        ("Containers space usage:", CONTAINERS, _CONTAINERS, containers),
        ("Local Volumes space usage:", VOLUMES, _VOLUMES, volumes),
        (f"Build cache usage: {size}", _CACHE, _CACHE.table, cache),
    )
    return "\n".join(
        f"{title}\n\n{Listing(headings=listing.headings, table=table).render({'': rows}, width=width)}"
        for title, listing, table, rows in parts
    )


def _cache_row(entry: Found, *, cut: bool) -> Row:
    identity = short_id(entry["ID"]) if cut else entry["ID"]
    return Row(
        {
            "ID": f"{identity}*" if entry.get("InUse") else identity,
            "Parent": ", ".join(entry.get("Parents") or ()),
            "CacheType": entry.get("Type", ""),
            "Size": human_size(entry["Size"], 3),
            "CreatedSince": _ago(entry.get("CreatedAt")),
            "LastUsedSince": _ago(entry.get("LastUsedAt")),
            "UsageCount": str(entry.get("UsageCount", 0)),
            "InUse": str(bool(entry.get("InUse"))).lower(),
            "Shared": str(bool(entry.get("Shared"))).lower(),
            "Description": entry.get("Description", ""),
        }
    )


def _ago(stamp: str | None) -> str:
    if not stamp:
        return ""
    seconds = time.time() - datetime.fromisoformat(f"{stamp[:19]}+00:00").timestamp()
    return f"{human_duration(seconds)} ago"
