"""Patterns and limits: which hosts, in which order, and which terms are refused.

The order of `all` is breadth first over the groups: canary's hosts come before those of web, which lies
below prod.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hawse.inventory import Inventory, load
from hawse_agent.errors import InputError

TEXT = """\
[web]
w[1:4]
web.example.com
[db]
db1
db2
[prod:children]
web
db
[canary]
w4
db2
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    (tmp_path / "hosts").write_text(TEXT)
    return load([tmp_path / "hosts"])


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("all", "w4 db2 w1 w2 w3 web.example.com db1"),
        ("web:&canary", "w4"),
        ("prod:!web", "db1 db2"),
        ("!db", "w4 w1 w2 w3 web.example.com"),
        ("&canary", "w4 db2"),
        ("w4,w1", "w4 w1"),
        ("w?", "w1 w2 w3 w4"),
        ("w[12]*", "w1 w2"),
        ("*.example.com", "web.example.com"),
        ("~w\\d", "w1 w2 w3 w4"),
        ("~ex", None),
        ("web[0]", "w1"),
        ("web[-1]", "web.example.com"),
        ("web[1:2]", "w2 w3"),
        ("web[3:]", "w4 web.example.com"),
        ("web[1:0]", "w2"),
        ("web[9]", None),
        ("web[:2]", None),
        ("nope", None),
        ("web:!nope", None),
        ("web:!nope*", "w1 w2 w3 w4 web.example.com"),
        ("web:&nope*", None),
        ("localhost", "localhost"),
        ("~(", None),
    ],
)
def test_patterns(inventory: Inventory, pattern: str, hosts: str | None) -> None:
    if hosts is None:
        with pytest.raises(InputError):
            inventory.match(pattern)
    else:
        assert [host.name for host in inventory.match(pattern)] == hosts.split()


def test_a_limit_filters_and_keeps_the_order(inventory: Inventory, tmp_path: Path) -> None:
    (tmp_path / "retry").write_text("# last time\ndb2\nw1\n")
    assert [host.name for host in inventory.match("all", "w1,db2")] == ["db2", "w1"]
    assert [host.name for host in inventory.match("web", f"@{tmp_path}/retry")] == ["w1"]
    assert inventory.match("db", "web") == []
    with pytest.raises(InputError, match="no host and no group matches 'wbe'") as caught:
        inventory.match("all", "wbe")
    assert caught.value.hint == "did you mean 'web'?"


def test_localhost_is_there_only_when_it_is_named(inventory: Inventory) -> None:
    (host,) = inventory.match("localhost")
    assert host.implicit
    assert "localhost" not in [found.name for found in inventory.match("*")]


def test_an_ipv6_address_is_one_term(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("fe80::1\nfe80::2\n")
    found = load([tmp_path / "hosts"])
    assert [host.name for host in found.match("fe80::1")] == ["fe80::1"]
