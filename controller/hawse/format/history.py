"""Rows of `history`: the steps that an image was made in, the last one first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from hawse.format.listing import Listing
from hawse.format.units import human_duration, human_size, short_id, shortened
from hawse.format.values import Row

HISTORY_LIST = Listing(
    headings={
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
    table="{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
)
FOR_MACHINES = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
_WIDTH = 45
_NO_TIME = 946684800
"""The year 2000: what claims to be older says nothing of its age."""


def history_rows(
    steps: Iterable[Mapping[str, Any]], *, cut: bool, human: bool, now: float | None = None
) -> list[Row]:
    """`human`: ages and sizes for people."""
    now = time.time() if now is None else now
    return [_row(step, cut=cut, human=human, now=now) for step in steps]


def _row(step: Mapping[str, Any], *, cut: bool, human: bool, now: float) -> Row:
    created, by = int(step.get("Created") or 0), str(step.get("CreatedBy") or "").replace("\t", " ")
    at = datetime.fromtimestamp(created).astimezone().isoformat()
    at = at.removesuffix("+00:00") + "Z" if at.endswith("+00:00") else at
    since = f"{human_duration(now - created)} ago" if created > _NO_TIME else ""
    return Row(
        {
            "ID": short_id(str(step["Id"])) if cut else step["Id"],
            "CreatedAt": at,
            "CreatedSince": since if human else at,
            "CreatedBy": shortened(by, _WIDTH) if cut else by,
            "Size": human_size(step["Size"], 3) if human else str(step["Size"]),
            "Comment": step.get("Comment") or "",
        }
    )
