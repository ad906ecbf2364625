"""Inventories as text: ranges, INI and YAML values, errors with their line, sources, order, precedence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hawse.inventory import Inventory, extra_variables, load
from hawse.inventory.ini import literal
from hawse.inventory.ranges import expand, parse_address
from hawse.template import Scope
from hawse_agent.errors import InputError, NotSupported


def inventory(tmp_path: Path, text: str, name: str = "hosts.ini") -> Inventory:
    (tmp_path / name).write_text(text)
    return load([tmp_path / name])


def names(hosts: Any) -> list[str]:
    return [host.name for host in hosts]


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("w[01:03]", ["w01", "w02", "w03"]),
        ("[1:7:3]", ["1", "4", "7"]),
        ("a[1:010]", [f"a{n}" for n in range(1, 11)]),
        ("a[001:010:4]", ["a001", "a005", "a009"]),
        ("z[:2]", ["z0", "z1", "z2"]),
        ("n[3:1]", []),
        ("a[3:1:-1]", ["a3"]),
        ("a[-1:1]", ["a-1", "a0", "a1"]),
        ("x[a:b]y[1:2]", ["xay1", "xay2", "xby1", "xby2"]),
        ("[A:C]", ["A", "B", "C"]),
        ("fe80::[1:2]", ["fe80::1", "fe80::2"]),
        ("plain", ["plain"]),
    ],
)
def test_ranges(pattern: str, hosts: list[str]) -> None:
    assert expand(pattern) == hosts


@pytest.mark.parametrize(
    "pattern", ["a[01:100]", "a[aa:cc]", "a[1-3]", "a[5:]", "a[Z:a]", "a[1:3:0]", "a[1:2", "a[1:x]"]
)
def test_bad_ranges(pattern: str) -> None:
    with pytest.raises(InputError):
        expand(pattern)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("h", ("h", None)),
        ("h:22", ("h", 22)),
        ("a[0:2].ex.com:99", ("a[0:2].ex.com", 99)),
        ("10.0.0.1:22", ("10.0.0.1", 22)),
        ("fe80::1", ("fe80::1", None)),
        ("[fe80::1]:22", ("fe80::1", 22)),
        ("[fe80::[1:2]]:22", ("fe80::[1:2]", 22)),
        ("h3:abc", ("h3:abc", None)),
    ],
)
def test_addresses(text: str, address: tuple[str, int | None]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8080", 8080), ("True", True), ("None", None), ("FALSE", "FALSE"), ("yes", "yes"), ("007", "007"),
        ("[1,2", "[1,2"), ("0x10", 16), ("1e3", 1000.0), ("(1, {2})", [1, [2]]), ("8080 # c", 8080),
        ("bar # baz", "bar # baz"), ('"quoted"', "quoted"), ("", ""), ("1j", "1j"),
        ("{'a': (1,)}", {"a": [1]}),
    ],
)  # fmt: skip
def test_ini_values(text: str, value: Any) -> None:
    assert literal(text) == value
    assert type(literal(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[web\n", r"hosts.ini:1: the \[ of '\[web' is never closed"),
        ("h1\n[web:hosts:x]\n", "hosts.ini:2: not a valid section"),
        ("[web:foo]\n", "hosts.ini:1: unknown kind of section: foo"),
        ("[web]\nh1 a=1 b\n", "hosts.ini:2: expected key=value, not 'b'"),
        ("[web]\nh1 a='1\n", "hosts.ini:2: not a valid host line"),
        ("[web:vars]\na=1\n", "hosts.ini:1: group 'web' is not declared in this file"),
        ("[web:children]\ndb\n", "hosts.ini:2: group 'db' is not declared in this file"),
        (
            "[a:children]\nb\n[b:children]\na\n",
            "hosts.ini:4: group 'a' cannot be a child of 'b': it contains it",
        ),
        ("[web]\nh[1-3]\n", "hosts.ini:2: not a valid host range"),
        ("[2001:db8::1]\n", "hosts.ini:1: not a valid section"),
        (
            "[web]\nh\n[web:vars]\nansible_group_priority=x\n",
            "hosts.ini:4: ansible_group_priority is a number",
        ),
    ],
)
def test_ini_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inventory(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web: [h1]\n", "hosts.yml:1: expected a mapping as group 'web', not a list"),
        ("web:\n  hosts: [h1]\n", "hosts.yml:2: expected a mapping as hosts of group 'web', not a list"),
        ("web:\n  host:\n    h1:\n", "hosts.yml:2: unknown key 'host' of group 'web'"),
        ("web:\n  hosts:\n    1:\n", "hosts.yml:3: expected the name of a host, not 1"),
        ("plugin: constructed\n", "hosts.yml:1: inventory plugins are not supported"),
        ("web:\n  hosts:\n    'h[1-2]':\n", "hosts.yml:3: not a valid host range"),
        ("web:\n  vars:\n    yes: 1\n", "hosts.yml:3: a variable's name is text, not True"),
        (
            "a:\n  children:\n    b:\n      children:\n        a:\n",
            "hosts.yml:.: group '.' cannot be a child",
        ),
        ("- web\n", "hosts.yml:1: expected groups"),
    ],
)
def test_yaml_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inventory(tmp_path, text, "hosts.yml")


def test_precedence_of_all_layers(tmp_path: Path) -> None:
    layers = {
        "inv/hosts.ini": "[web]\nh1 h=inline_host\n[web:vars]\ng=inline_group\na=inline_group\n"
        "[all:vars]\na=inline_all\n",
        "inv/group_vars/all.yml": "g: all_file\na: all_file\nb: all_file\n",
        "play/group_vars/all.yml": "b: all_play\nc: all_play\n",
        "inv/group_vars/web.yml": "c: web_file\nh: web_file\nd: web_file\n",
        "play/group_vars/web.yml": "d: web_play\n",
        "inv/host_vars/h1.yml": "e: host_file\nf: host_file\n",
        "play/host_vars/h1.yml": "f: host_play\n",
    }
    for name, text in layers.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = load([tmp_path / "inv/hosts.ini"])
    variables = found.variables(found.host("h1"), tmp_path / "play")
    assert {name: variable.value for name, variable in variables.items()} == {
        "g": "all_file",  # group_vars/all beats inline vars of a group
        "a": "all_file",
        "b": "all_play",
        "c": "web_file",
        "d": "web_play",
        "h": "inline_host",
        "e": "host_file",
        "f": "host_play",
    }
    assert variables["f"].where() == f"{tmp_path}/play/host_vars/h1.yml:1"
    assert variables["h"].where() == f"{tmp_path}/inv/hosts.ini:2"


def test_deeper_groups_win_then_priority_then_name(tmp_path: Path) -> None:
    found = inventory(
        tmp_path,
        "[a]\nh\n[b]\nh\n[deep]\nh\n[top:children]\ndeep\n"
        "[a:vars]\nx=a\ny=a\nansible_group_priority=10\n[b:vars]\nx=b\ny=b\nz=b\n[deep:vars]\ny=deep\n[top:vars]\nz=top\n",
    )
    variables = found.host_json("h")
    assert (variables["x"], variables["y"], variables["z"]) == ("a", "deep", "top")


def test_several_sources_lay_over_each_other(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("[web]\nh1 x=1 y=1\n")
    (tmp_path / "two.yml").write_text("web: {hosts: {h1: {y: 2}, h2: }}\n")
    found = load([tmp_path / "one", tmp_path / "two.yml", "h3,h4:99"])
    assert names(found.hosts) == ["h3", "h4", "h1", "h2"]
    assert found.host_json("h1") == {"x": 1, "y": 2}
    assert found.host_json("h4") == {"ansible_port": 99}


def test_a_directory_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/web.yml").write_text("v: 1\n")
    (tmp_path / "10-web").write_text("[web]\nh1\n")
    (tmp_path / "sub/db.yaml").write_text("---\ndb: {hosts: h2}\n")
    (tmp_path / "README.md").write_text("[not an inventory")
    (tmp_path / ".hidden").write_text("[not an inventory")
    found = load([tmp_path])
    assert names(found.match("all")) == ["h1", "h2"]
    assert found.host_json("h1") == {"v": 1}


def test_a_program_is_run(tmp_path: Path) -> None:
    program = tmp_path / "dynamic"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --list ] || exit 9\n'
        """echo '{"web": {"hosts": ["h1"], "vars": {"v": 1}}, "db": ["h2"],'\n"""
        """echo '"_meta": {"hostvars": {"h1": {"w": 2}}}}'\n"""
    )
    program.chmod(0o755)
    found = load([program])
    assert names(found.match("web,db")) == ["h1", "h2"]
    assert found.host_json("h1") == {"v": 1, "w": 2}
    program.write_text("#!/bin/sh\necho oh no >&2; exit 3\n")
    with pytest.raises(InputError, match="the program ended with 3: oh no"):
        load([program])


def test_sources_that_are_not_there_or_not_supported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such inventory"):
        load([tmp_path / "none"])
    (tmp_path / "x.toml").write_text("")
    with pytest.raises(NotSupported):
        load([tmp_path / "x.toml"])


def test_vars_files_must_hold_variables(tmp_path: Path) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/h1").write_text("- a list\n")
    with pytest.raises(InputError, match="host_vars/h1:1: expected variables"):
        inventory(tmp_path, "h1\n").host_json("h1")


def test_magic_names(tmp_path: Path) -> None:
    found = inventory(tmp_path, "[web]\nweb1.example.com\n[prod:children]\nweb\n")
    host = found.host("web1.example.com")
    scope = Scope(found.magic(host))
    assert scope["inventory_hostname_short"] == "web1"
    assert scope["group_names"] == ["prod", "web"]
    assert scope["groups"]["prod"] == ["web1.example.com"]
    assert scope["inventory_dir"] == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["a=1 b='x y'"], {"a": "1", "b": "x y"}),
        (['{"a": [1]}'], {"a": [1]}),
        (["a=1", "a=2"], {"a": "2"}),
    ],
)
def test_extra_variables(arguments: list[str], value: dict[str, Any]) -> None:
    assert {name: found.value for name, found in extra_variables(arguments).items()} == value


def test_extra_variables_from_a_file_and_wrong_ones(tmp_path: Path) -> None:
    (tmp_path / "e.yml").write_text("a: yes\n")
    assert extra_variables([f"@{tmp_path}/e.yml"])["a"].value is True
    for argument in ("a", "=1", "[1]", "a='", "@/nonexistent"):
        with pytest.raises(InputError):
            extra_variables([argument])


def test_ten_thousand_hosts_are_read_in_no_time(tmp_path: Path) -> None:
    found = inventory(tmp_path, "[web]\nweb[00001:10000] ansible_port=22 role=x\n[web:vars]\na=1\n")
    assert len(found.match("web:!web00001")) == 9999
    assert found.host_json("web10000") == {"ansible_port": 22, "role": "x", "a": 1}
