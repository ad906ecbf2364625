"""Rows of `search`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hawse.format.listing import Listing
from hawse.format.template import Template
from hawse.format.units import shortened
from hawse.format.values import Row

SEARCHED = Listing(
    headings={
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "StarCount": "STARS",
        "IsOfficial": "OFFICIAL",
    },
    table="{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
)
_WIDTH = 45


def search_rows(results: Iterable[Mapping[str, Any]], *, cut: bool, form: str) -> list[Row]:
    """In JSON, whether one is official is a word of its own."""
    in_json = form == "json" or "." in Template(form).fields
    yes, no = ("true", "false") if in_json else ("[OK]", "")
    return [
        Row(
            {
                "Name": result.get("name") or "",
                "Description": _one_line(str(result.get("description") or ""), cut),
                "StarCount": str(result.get("star_count") or 0),
                "IsOfficial": yes if result.get("is_official") else no,
            }
        )
        for result in results
    ]


def _one_line(text: str, cut: bool) -> str:
    text = text.replace("\n", " ").replace("\r", " ")
    return shortened(text, _WIDTH) if cut else text
