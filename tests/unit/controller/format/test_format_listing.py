"""Lists as text: tables, templates, json, quiet; several hosts; terminals; units."""

from __future__ import annotations

import json

import pytest

from hawse.format.containers import CONTAINERS, ports
from hawse.format.listing import Listing, natural, uses
from hawse.format.table import aligned, fitted
from hawse.format.units import bytes_size, human_duration, human_size, short_id
from hawse.format.values import Row, quoted

LISTING = Listing(headings={"ID": "THING ID", "Name": "NAME"}, table="{{.ID}}\t{{.Name}}")
ROWS = {
    "web1": [Row({"ID": "1", "Name": "one", "Label": {"a.b-c": "x"}.get}), Row({"ID": "2", "Name": "two"})]
}


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("", "THING ID   NAME\n1          one\n2          two\n"),
        ("table", "THING ID   NAME\n1          one\n2          two\n"),
        ("table {{.Name}}\\t{{upper .ID}}", "NAME      THING ID\none       1\ntwo       2\n"),
        ("{{.Name}}={{.ID}}", "one=1\ntwo=2\n"),
        ("json", '{"ID":"1","Name":"one"}\n{"ID":"2","Name":"two"}\n'),
    ],
)
def test_formats(form: str, shown: str) -> None:
    assert LISTING.render(ROWS, form) == shown


def test_quiet() -> None:
    assert LISTING.render(ROWS, quiet=True) == "1\n2\n"


def test_a_label_as_heading() -> None:
    rows = {"": ROWS["web1"][:1]}
    assert LISTING.render(rows, 'table {{.ID}}\\t{{.Label "a.b-c"}}') == "THING ID   b c\n1          x\n"


def test_several_hosts_have_a_column_more() -> None:
    rows = {**ROWS, "web2": [Row({"ID": "3", "Name": "three"})]}
    table = LISTING.render(rows, several=True).splitlines()
    assert (table[0].split(), table[3].split()) == (["HOST", "THING", "ID", "NAME"], ["web2", "3", "three"])
    assert LISTING.render(rows, "{{.Host}} {{.Name}}", several=True) == "web1 one\nweb1 two\nweb2 three\n"
    assert LISTING.render(rows, "{{.Name}}", several=True) == "web1 | one\nweb1 | two\nweb2 | three\n"
    assert LISTING.render(rows, quiet=True, several=True) == "1\n2\n3\n"
    assert LISTING.render(rows, "table {{.Name}}", several=True).startswith("HOST      NAME\nweb1      one\n")
    last = LISTING.render(rows, "json", several=True).splitlines()[-1]
    assert json.loads(last) == {"Host": "web2", "ID": "3", "Name": "three"}


def test_columns_are_runs_of_cells_above_each_other() -> None:
    assert aligned("a\tb\tc\nlonger than ten\tx\ty\n") == (
        "a                 b         c\nlonger than ten   x         y\n"
    )
    assert aligned("a\tb\nalone\nlonger than ten\tb\n") == "a         b\nalone\nlonger than ten   b\n"
    assert aligned("a\tb\n漢字漢字漢字\tb\n") == "a              b\n漢字漢字漢字   b\n"


def test_a_table_fits_its_terminal() -> None:
    shown = fitted("ID\tCOMMAND\tNAME\n1\t" + "x" * 100 + "\t\x1b[31mred\n", 40)
    assert all(len(line) <= 40 for line in shown.splitlines())
    assert "…" in shown and "\x1b" not in shown and shown.endswith("red\n")
    assert all(len(line) <= 20 for line in fitted("ONE\tANOTHER\tTHIRD\n1\t2\t3\n", 20).splitlines())


PS = [
    Row(
        {
            "ID": "0123456789ab", "Image": "registry.example.com/shop/frontend:2024-11-24",
            "Command": '"nginx -g off"',
            "RunningFor": "About a minute ago", "Status": "Up About a minute (health: starting)",
            "Ports": "0.0.0.0:8080->80/tcp, 0.0.0.0:8443->443/tcp", "Names": "shop-frontend-1",
        }
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "gone"),
    [
        (200, set()),
        (120, set()),
        (99, {"COMMAND", "IMAGE"}),
        (80, {"COMMAND", "IMAGE", "PORTS"}),
        (40, {"COMMAND", "IMAGE", "PORTS"}),
    ],
)
def test_a_list_of_containers_shows_names_and_status_whole(width: int, gone: set[str]) -> None:
    """What matters least is cut first, and left out where that does not do."""
    shown = CONTAINERS.render({"h": PS}, width=width)
    heading, line = shown.splitlines()
    assert "Up About a minute (health: starting)" in line and line.endswith("shop-frontend-1")
    assert len(line) <= width or width < 80
    columns = {"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"}
    assert {column for column in columns if column not in heading} == gone
    assert "About a minute ago" in line or width < 200


def test_what_costs_something_is_known_beforehand() -> None:
    assert (
        uses("{{.Size}}", "Size") and uses("table {{.ID}} {{.Size}}", "Size") and uses("{{json .}}", "Size")
    )
    assert not uses("json", "Size") and not uses("{{.ID}}", "Size") and not uses("", "Size")


@pytest.mark.parametrize(
    ("count", "decimal", "binary"),
    [(0, "0B", "0B"), (999, "999B", "999B"), (1024, "1.024kB", "1KiB"), (123456789, "123.5MB", "117.7MiB")],
)
def test_sizes(count: int, decimal: str, binary: str) -> None:
    assert (human_size(count), bytes_size(count)) == (decimal, binary)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"), (60, "About a minute"),
        (121, "2 minutes"),
        (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"), (49 * 3600, "2 days"),
        (20 * 86400, "2 weeks"), (70 * 86400, "2 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_ages(seconds: float, shown: str) -> None:
    assert human_duration(seconds) == shown


def test_ids() -> None:
    assert short_id("sha256:0123456789abcdef") == short_id("0123456789abcdef") == "0123456789ab"


def test_ports() -> None:
    listed = [
        {"PrivatePort": 9001, "Type": "tcp"},
        {"PrivatePort": 9000, "Type": "tcp"},
        {"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"},
        {"PrivatePort": 443, "PublicPort": 443, "IP": "::", "Type": "tcp"},
        {"PrivatePort": 9003, "Type": "tcp"},
    ]
    assert ports(listed) == "9000-9001/tcp, [::]:443->443/tcp, 9003/tcp, 0.0.0.0:8080->80/tcp"


def test_names_in_their_natural_order() -> None:
    names = ["web10", "web9", "10", "9", "web", "a9", "80/tcp", "443/tcp"]
    assert sorted(names, key=natural) == ["9", "10", "80/tcp", "443/tcp", "a9", "web", "web9", "web10"]


def test_quoted() -> None:
    assert quoted('a"\\\n\x1b é') == r'"a\"\\\n\x1b é"'
