"""Rows of `images`: one for each name that an image has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hawse.format.listing import Listing
from hawse.format.units import human_duration, human_size, local_time, short_id
from hawse.format.values import Row

IMAGES = Listing(
    headings={
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
    },
    raw="repository: {{ .Repository }}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\n"
    "virtual_size: {{.Size}}\n",
    table="{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
)
WITH_DIGESTS = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
_NONE = "<none>"


def image_rows(
    found: Mapping[str, Any], *, cut: bool, digests: bool = False, now: float | None = None
) -> list[Row]:
    """`digests`: a row for each digest of a name."""
    tags, hashes = _by_name(found.get("RepoTags"), ":"), _by_name(found.get("RepoDigests"), "@")
    if not tags and not hashes:
        return [_row(found, _NONE, _NONE, _NONE, cut=cut, now=now)]
    named: list[tuple[str, str, str]] = []
    for name, listed in tags.items():
        known = hashes.pop(name, [])
        named += [(name, tag, digest) for tag in listed for digest in (digests and known) or [_NONE]]
    for name, known in hashes.items():
        named += [(name, _NONE, digest) for digest in (known if digests else [_NONE])]
    return [_row(found, *names, cut=cut, now=now) for names in named]


def _by_name(references: list[str] | None, mark: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for reference in references or ():
        name, _, rest = reference.rpartition(mark)
        if _NONE not in (name, rest):
            found.setdefault(name, []).append(rest)
    return found


def _row(found: Mapping[str, Any], name: str, tag: str, digest: str, *, cut: bool, now: float | None) -> Row:
    now = time.time() if now is None else now
    size, shared, users = found["Size"], found.get("SharedSize", -1), found.get("Containers", -1)
    return Row(
        {
            "ID": short_id(found["Id"]) if cut else found["Id"],
            "Repository": name,
            "Tag": tag,
            "Digest": digest,
            "CreatedSince": f"{human_duration(now - found['Created'])} ago",
            "CreatedAt": local_time(found["Created"]),
            "Size": human_size(size, 3),
            "Containers": "N/A" if users == -1 else str(users),
            "VirtualSize": human_size(size),
            "SharedSize": "N/A" if shared == -1 else human_size(shared),
            "UniqueSize": "N/A" if -1 in (size, shared) else human_size(size - shared),
        }
    )


def removed_line(entry: Mapping[str, str]) -> str:
    """`untagged: nginx:1` or `deleted: sha256:…`, of an answer of rmi or prune."""
    return f"untagged: {entry['Untagged']}" if "Untagged" in entry else f"deleted: {entry['Deleted']}"
