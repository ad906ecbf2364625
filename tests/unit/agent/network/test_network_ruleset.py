import dataclasses

from hawse_agent.network import ruleset
from hawse_agent.spec.records import NetworkRecord, PortRecord

SHOP = NetworkRecord(
    id="a", name="shop", driver="bridge", bridge="hw-1", subnet="172.30.0.0/22", gateway="172.30.0.1"
)
VAULT = dataclasses.replace(SHOP, id="b", name="vault", bridge="hw-2", internal=True, icc=False)
HOST = NetworkRecord(id="h", name="host", driver="host")
PORT = PortRecord(
    container="c",
    host_ip="",
    host_port=8080,
    protocol="tcp",
    container_ip="172.30.0.2",
    container_port=80,
)
LOCAL = dataclasses.replace(PORT, host_ip="127.0.0.1", protocol="udp", host_port=53)


def test_the_tables_replace_what_is_there() -> None:
    text = ruleset.tables_text("hawse-abc", [SHOP, VAULT, HOST], [PORT, LOCAL])
    assert text.startswith("add table inet hawse-abc\ndelete table inet hawse-abc\n")
    for line in (
        'set bridges { type ifname; elements = { "hw-1", "hw-2" } }',
        'set internal { type ifname; elements = { "hw-2" } }',
        'set talking { type ifname . ifname; elements = { "hw-1" . "hw-1" } }',
        'set apart { type ifname . ifname; elements = { "hw-2" . "hw-2" } }',
        "set subnets { type ipv4_addr; flags interval; elements = { 172.30.0.0/22 } }",
        "elements = { tcp . 8080 : 172.30.0.2 . 80 }",
        "elements = { 127.0.0.1 . udp . 53 : 172.30.0.2 . 80 }",
    ):
        assert line in text
    assert text.count("{") == text.count("}")


def test_nothing_to_list() -> None:
    text = ruleset.tables_text("hawse", [], [])
    assert "elements" not in text
    assert "set bridges { type ifname; }" in text


def test_commands_for_one_network() -> None:
    assert ruleset.network_text("hawse", "add", SHOP).splitlines() == [
        'add element inet hawse bridges { "hw-1" }',
        'add element inet hawse talking { "hw-1" . "hw-1" }',
        "add element inet hawse subnets { 172.30.0.0/22 }",
    ]
    assert ruleset.network_text("hawse", "delete", HOST) == ""


def test_elements_as_the_kernel_has_them() -> None:
    element = ruleset.port_element(PORT)
    assert element.set == "published"
    assert element.key == bytes.fromhex("060000001f900000")
    assert element.data == bytes.fromhex("ac1e000200500000")
    local = ruleset.port_element(LOCAL)
    assert local.set == "published_at"
    assert local.key == bytes.fromhex("7f0000011100000000350000")
    assert ruleset.port_element(dataclasses.replace(PORT, host_ip="0.0.0.0")) == element


def test_elements_of_networks_as_the_kernel_has_them() -> None:
    found = ruleset.network_elements([SHOP, VAULT, HOST])
    name = b"hw-1".ljust(16, b"\0")
    assert found["bridges"] == {name: "hw-1", b"hw-2".ljust(16, b"\0"): "hw-2"}
    assert found["talking"] == {name + name: "hw-1 . hw-1"}
    assert list(found["apart"].values()) == ["hw-2 . hw-2"]
    assert found["subnets"] == {bytes([172, 30, 0, 0]): "172.30.0.0/22"}
