from ipaddress import IPv4Address, IPv4Network

import pytest

from hawse_agent.errors import Conflict, HostRefused, InputError, NotSupported
from hawse_agent.network import addresses


def network(text: str) -> IPv4Network:
    return IPv4Network(text)


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], "172.30.0.0/22"),
        (["172.30.0.0/22"], "172.30.4.0/22"),
        (["172.30.1.0/24", "172.30.7.1/32"], "172.30.8.0/22"),
        (["172.16.0.0/12"], "10.210.0.0/22"),
    ],
)
def test_the_first_subnet_that_overlaps_nothing(taken: list[str], chosen: str) -> None:
    assert str(addresses.choose_subnet(map(network, taken), "")) == chosen


def test_instances_begin_at_different_places() -> None:
    chosen = {addresses.choose_subnet([], instance) for instance in ("", "356681", "21e815")}
    assert len(chosen) == 3


def test_full_pools_are_an_error() -> None:
    with pytest.raises(HostRefused, match="could not find an available"):
        addresses.choose_subnet(addresses.POOLS, "abc")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("fd00::/64", NotSupported, "IPv4"),
        ("172.20.0.1/16", InputError, "host bits"),
        ("172.20.0.0/31", InputError, "no room"),
        ("nonsense", InputError, "invalid subnet nonsense"),
    ],
)
def test_subnets_that_are_refused(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        addresses.parse_subnet(text)


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.255", "10.0.1.1", "10.0.0", "x"])
def test_addresses_that_are_no_hosts_of_the_subnet(text: str) -> None:
    with pytest.raises(InputError):
        addresses.parse_inside(text, network("10.0.0.0/24"), "gateway")


def test_addresses_are_given_out_in_turn() -> None:
    subnet = network("10.0.0.0/29")
    given = []
    last = 0
    for taken in ({"10.0.0.1"}, {"10.0.0.1"}, {"10.0.0.1", "10.0.0.4"}, {"10.0.0.1"}, {"10.0.0.1"}):
        address = addresses.choose_address(subnet, subnet, taken, last, "shop")
        last = int(address)
        given.append(str(address))
    assert given == ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


def test_a_range_is_kept_to_until_it_is_full() -> None:
    subnet, part = network("10.0.0.0/24"), network("10.0.0.128/31")
    first = addresses.choose_address(subnet, part, {"10.0.0.1"}, int(IPv4Address("10.0.0.9")), "shop")
    assert str(first) == "10.0.0.128"
    with pytest.raises(Conflict, match="no available IPv4 addresses on network shop"):
        addresses.choose_address(subnet, part, {"10.0.0.128", "10.0.0.129"}, 0, "shop")


def test_a_large_subnet_costs_nothing() -> None:
    subnet = network("10.0.0.0/8")
    assert str(addresses.choose_address(subnet, subnet, {"10.0.0.1"}, 0, "shop")) == "10.0.0.2"


def test_who_takes_over_an_address_has_its_mac() -> None:
    one = addresses.mac_for("a" * 64, IPv4Address("172.30.0.2"))
    assert one == addresses.mac_for("a" * 64, IPv4Address("172.30.0.2"))
    assert one.startswith("02:") and one.endswith("ac:1e:00:02")


def test_macs_are_read_or_refused() -> None:
    assert addresses.parse_mac("02-42-AC-11-0-2") == "02:42:ac:11:00:02"
    for text in ("", "02:42:ac:11:00", "03:42:ac:11:00:02", "00:00:00:00:00:00", "x:0:0:0:0:1"):
        with pytest.raises(InputError, match="invalid MAC"):
            addresses.parse_mac(text)


@pytest.mark.parametrize("instance", ["", "356681"])
def test_names_of_links_fit_and_tell_whose_they_are(instance: str) -> None:
    one = addresses.bridge_for("0123456789abcdef" * 4, instance, set())
    names = [
        addresses.default_bridge(instance),
        one,
        addresses.bridge_for("0123456789abcdef" * 4, instance, {one}),
        addresses.host_link_for("c" * 64, "n" * 64, instance),
    ]
    assert len(set(names)) == 4
    assert all(len(name) <= 15 and addresses.is_ours(name, instance) for name in names)
    assert not any(addresses.is_ours(name, "21e815") for name in names)
    assert not any(addresses.is_ours(name, "") for name in names) or not instance
    assert not any(addresses.is_ours(name, instance) for name in ("eth0", "docker0", "hwsim0", "veth12"))
