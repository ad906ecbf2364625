"""Rows of a list through `--format`: `json`, `table`, `table TEMPLATE`, or a template for each row.

Rows of several hosts have a further field and column, Host; a template that does not ask for it gives lines
that begin with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hawse.format.functions import HEADINGS
from hawse.format.table import Precedence, aligned, fitted
from hawse.format.template import Template
from hawse.format.values import Map, Row


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One kind of list."""

    headings: Mapping[str, str]
    """Of its fields, by name."""
    table: str
    """The columns that are shown when nothing is said."""
    quiet: str = "{{.ID}}"
    raw: str = "raw"
    """What `--format raw` stands for: a line for each field, as scripts of old expect."""
    precedence: Precedence = Precedence()
    """Of the columns, on a terminal that is too narrow for all of them."""

    def render(
        self,
        rows: Mapping[str, Sequence[Row]],
        form: str = "",
        *,
        quiet: bool = False,
        several: bool = False,
        width: int | None = None,
    ) -> str:
        """What there is on each host, as text that ends in a newline, or "". `width` cuts default tables to a
        terminal's."""
        if quiet and form in ("", "table"):
            form, width = self.quiet, None
        elif form in ("", "table"):
            form = f"table {self.table}"
        else:
            width = None
        template, table = self.template(form, several=several)
        listed = [
            Row({"Host": host, **row} if several else row)
            for host, entries in rows.items()
            for row in entries
        ]
        texts = [template.execute(row) for row in listed]
        if several and not (table or quiet or form == "json" or "Host" in template.fields):
            texts = _prefixed(texts, [row["Host"] for row in listed])
        body = "".join(f"{text}\n" for text in texts)
        if not table:
            return body
        headings: dict[str, object] = {**self.headings, "Host": "HOST", "Label": _label_heading}
        text = f"{template.execute(Map(headings), HEADINGS)}\n{body}"
        return aligned(text) if width is None else fitted(text, width, self.precedence)

    def template(self, form: str, *, several: bool = False) -> tuple[Template, bool]:
        """The template of a format, and whether it is a table's."""
        table = form.startswith("table")
        form = self.raw if form == "raw" else form
        source = "{{json .}}" if form == "json" else form.removeprefix("table") if table else form
        source = source.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
        template = Template(source)
        if several and table and "Host" not in template.fields:
            template = Template(f"{{{{.Host}}}}\t{source}")
        return template, table


def _prefixed(texts: Sequence[str], hosts: Sequence[str]) -> list[str]:
    width = max(map(len, hosts), default=0)
    return [
        "\n".join(f"{host:{width}} | {line}" for line in text.split("\n"))
        for host, text in zip(hosts, texts, strict=True)
    ]


def _label_heading(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def uses(form: str, field: str) -> bool:
    """Whether a format asks for a field that costs something."""
    return form not in ("", "table", "json") and bool(
        {field, "."} & Template(form.removeprefix("table")).fields
    )


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Orders names: `web9` comes before `web10`."""
    parts = re.findall(r"\d+|\D+", text)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
