"""Our reading of inventories against Ansible's own; skipped where ansible-inventory is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hawse import inventory

ORACLE = next(
    (
        str(path)
        for path in (
            Path(__file__).parents[4] / ".cache/oracle/bin/ansible-inventory",
            Path(sys.prefix) / "bin/ansible-inventory",
            Path(shutil.which("ansible-inventory") or "/nonexistent"),
        )
        if path.exists()
    ),
    "",
)
pytestmark = pytest.mark.skipif(not ORACLE, reason="ansible-inventory is not installed")

INI = """
loose1 x=1
loose2:2222

[web]
web[01:03].example.com http_port=8080 flag=True name="quoted text" n="2" s="'3'" d={'x':1}
[web:vars]
http_port=9090
a = b = c
list = [1, (2, 3)]
comment = 8080 # c
text = bar # baz
empty=
yes = yes
octal = 007
hex = 0x10
exp = 1e3
none = None
[db]
db-[a:c] ansible_host=10.0.0.1
"user host"  k=v   # comment
[prod:children]
web
db
[eu:children]
prod
[db:vars]
tier=2
ansible_group_priority=10
[all:vars]
top=1
tier=0
[web]
extra.example.com
[fe80::1]:22
[lonely]
[shared]
web01.example.com
db-a
[shared:vars]
tier=9
"""

YAML = """
all:
  vars: {top: 1, yes_: yes, octal: 010}
  hosts:
    plain:
    ported:2222: {a: 1}
  children:
    web:
      hosts:
        "w[1:3]": {p: 80}
      vars: {tier: web, deep: [1, {x: y}]}
      children:
        canary: {hosts: w1}
    db:
      hosts: {d1: , d2: {q: "{{ top }}"}}
other:
  children: {web: }
  vars: {tier: other}
"""

FILES = {
    "group_vars/all.yml": "top: from_all_file\nhttp_port: 1\n",
    "group_vars/web/one.yml": "merged: 1\nwho: dir\n",
    "group_vars/web/two.yaml": "merged: 2\n",
    "group_vars/web/.hidden.yml": "merged: 3\n",
    "group_vars/web.yml": "who: file\n",
    "group_vars/db": "who: bare\n",
    "host_vars/w1.json": '{"p": 81}',
    "host_vars/db-a": "tier: host\n",
}


def ansible(*arguments: str, program: str = "ansible-inventory") -> str:
    environment = {
        **os.environ,
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_CONFIG": "/nonexistent",
        "LC_ALL": "C.UTF-8",
    }
    command = [str(Path(ORACLE).with_name(program)), *arguments]
    return subprocess.run(
        command, capture_output=True, env=environment, check=True, timeout=60, text=True
    ).stdout


def without_profile(listing: dict[str, Any]) -> dict[str, Any]:
    listing["_meta"].pop("profile", None)
    return listing


@pytest.fixture(params=["ini", "yaml", "both", "directory"])
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "one.ini").write_text(INI)
    (tmp_path / "two.yml").write_text(YAML)
    (tmp_path / "notes.md").write_text("not an inventory")
    return {
        "ini": [str(tmp_path / "one.ini")],
        "yaml": [str(tmp_path / "two.yml")],
        "both": [str(tmp_path / "two.yml"), str(tmp_path / "one.ini"), "h1,h2:99,"],
        "directory": [str(tmp_path)],
    }[request.param]


def test_list_and_graph_are_ansibles(sources: list[str]) -> None:
    options = [word for source in sources for word in ("-i", source)]
    ours = inventory.load(sources)
    theirs = without_profile(json.loads(ansible(*options, "--list")))
    listing = ours.list_json()
    assert listing["_meta"]["hostvars"] == theirs["_meta"]["hostvars"]
    assert listing == theirs
    assert ours.graph_text().strip() == ansible(*options, "--graph").strip()


PATTERNS = [
    "all", "*", "web", "web:db", "web,db", "web:&shared", "all:!web", "!db", "&shared", "prod:!shared",
    "web*", "~web", "~.*example", "db-a", "db-a,web", "web[0]", "web[-1]", "web[0:1]", "web[1:]", "web[1:0]",
    "db-?", "*.example.com", "ungrouped", "eu", "localhost", "web:!~web0[12]", "a*", "loose*:db", "db-[ab]*",
]  # fmt: skip


def test_patterns_mean_what_ansible_means(tmp_path: Path) -> None:
    (tmp_path / "one.ini").write_text(INI)
    plays = [{"name": pattern, "hosts": pattern} for pattern in PATTERNS]
    (tmp_path / "plays.yml").write_text(json.dumps(plays))
    options = ["-i", str(tmp_path / "one.ini"), "--list-hosts", str(tmp_path / "plays.yml")]
    text = ansible(*options, program="ansible-playbook")
    theirs = [
        sorted(line.strip() for line in play.partition("hosts (")[2].splitlines()[1:] if line.strip())
        for play in text.split("play #")[1:]
    ]
    ours = inventory.load([tmp_path / "one.ini"])
    assert [sorted(host.name for host in ours.match(pattern)) for pattern in PATTERNS] == theirs


@pytest.mark.parametrize("pattern", ["all", "db,web[-1]", "all:!lonely:&shared"])
def test_hosts_come_in_ansibles_order(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "one.ini").write_text(INI)
    text = ansible("-i", str(tmp_path / "one.ini"), pattern, "--list-hosts", program="ansible")
    ours = [host.name for host in inventory.load([tmp_path / "one.ini"]).match(pattern)]
    assert ours == [line.strip() for line in text.splitlines()[1:]]
