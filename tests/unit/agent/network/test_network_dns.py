import socket
import struct

import pytest

from hawse_agent.network import dns_packets as packets
from hawse_agent.network.dns import Member, Place, Registry, nameservers

QUERY = bytes.fromhex("123401000001000000000000") + b"\x03Web\x04shop\x00\x00\x01\x00\x01"


def test_a_question_is_read() -> None:
    question = packets.parse(QUERY)
    assert question is not None
    assert (question.name, question.type, question.klass) == ("web.shop", 1, 1)
    assert (question.header, question.udp_size) == ((0x1234, 0x0100), 512)


def test_the_size_that_a_client_takes() -> None:
    options = b"\x00" + struct.pack("!HHIH", 41, 1232, 0, 0)
    question = packets.parse(QUERY[:10] + b"\x00\x01" + QUERY[12:] + options)
    assert question is not None
    assert question.udp_size == 1232


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        QUERY[:11],
        QUERY[:-1],
        QUERY[:12] + b"\x3f",
        QUERY[:12] + b"\xc0\x0c\x00\x01\x00\x01",  # a pointer in a question
        QUERY[:2] + b"\x81\x00" + QUERY[4:],  # a response
        QUERY[:2] + b"\x29\x00" + QUERY[4:],  # an update
        QUERY[:4] + b"\x00\x02" + QUERY[6:],
    ],
)
def test_what_is_no_plain_question(packet: bytes) -> None:
    assert packets.parse(packet) is None


def test_an_answer_repeats_the_question_as_it_was_asked() -> None:
    question = packets.parse(QUERY)
    assert question is not None
    assert packets.addresses_answer(question, ["172.30.0.2"], limit=512) == (
        bytes.fromhex("123481800001000100000000")
        + QUERY[12:]
        + bytes.fromhex("c00c000100010000000a0004ac1e0002")
    )


def test_an_answer_that_does_not_fit_says_so() -> None:
    question = packets.parse(QUERY)
    assert question is not None
    many = [f"172.30.0.{number}" for number in range(2, 102)]
    answer = packets.addresses_answer(question, many, limit=512)
    assert len(answer) <= 512
    assert answer[2] & 0x02
    assert int.from_bytes(answer[6:8], "big") == (512 - 12 - 14) // 16
    whole = packets.addresses_answer(question, many, limit=65535)
    assert not whole[2] & 0x02
    assert int.from_bytes(whole[6:8], "big") == 100


def test_only_the_answer_to_the_question_counts() -> None:
    question = packets.parse(QUERY)
    assert question is not None
    answer = packets.addresses_answer(question, ["172.30.0.2"], limit=512)
    assert packets.answers(answer, QUERY, question)
    assert packets.answers(answer.replace(b"Web", b"wEB"), QUERY, question)
    assert not packets.answers(answer.replace(b"Web", b"Wxb"), QUERY, question)
    assert not packets.answers(packets.with_id(answer, 1), QUERY, question)
    assert not packets.answers(QUERY, QUERY, question)


def test_reversed_addresses() -> None:
    assert packets.reversed_address("2.0.30.172.in-addr.arpa") == "172.30.0.2"
    assert packets.reversed_address("30.172.in-addr.arpa") is None
    assert packets.reversed_address("a.0.30.172.in-addr.arpa") is None
    assert packets.reversed_address("web") is None


def test_nameservers_of_a_resolv_conf() -> None:
    text = "# nameserver 1.1.1.1\nnameserver 9.9.9.9\nsearch lan\nnameserver\n nameserver fe80::1%eth0 # x\n"
    assert nameservers(text) == ("9.9.9.9", "fe80::1%eth0")
    assert len(nameservers("nameserver 1.1.1.1\n" * 9)) == 3


def member(container: str, *places: tuple[str, str, tuple[str, ...]]) -> Member:
    return Member(
        container=container,
        places=tuple(
            Place(network=network, network_name=f"{network}-net", ipv4=ipv4, names=names)
            for network, ipv4, names in places
        ),
    )


WEB = member("w", ("shop", "172.30.0.2", ("web", "www")))
TWIN = member("t", ("shop", "172.30.0.3", ("Twin", "www")), ("back", "172.30.4.3", ("Twin",)))
DB = member("d", ("back", "172.30.4.2", ("db", "web")))


@pytest.fixture
def registry() -> Registry:
    found = Registry()
    for each in (WEB, TWIN, DB):
        found.update(each)
    return found


@pytest.mark.parametrize(
    ("asker", "name", "found"),
    [
        (WEB, "www", ["172.30.0.2", "172.30.0.3"]),
        (WEB, "twin", ["172.30.0.3"]),
        (WEB, "twin.shop-net", ["172.30.0.3"]),
        (WEB, "db", []),
        (TWIN, "web", ["172.30.0.2"]),  # of its first network
        (TWIN, "web.back-net", ["172.30.4.2"]),
        (DB, "web", ["172.30.4.2"]),
        (DB, "twin", ["172.30.4.3"]),
        (DB, "www", []),
    ],
)
def test_names_are_sought_on_the_askers_networks(
    registry: Registry, asker: Member, name: str, found: list[str]
) -> None:
    assert registry.addresses(asker, name) == found


def test_addresses_have_the_name_of_the_container(registry: Registry) -> None:
    assert registry.name_of(WEB, "172.30.0.3") == "Twin.shop-net"
    assert registry.name_of(WEB, "172.30.4.2") is None


def test_a_container_is_renamed_and_forgotten(registry: Registry) -> None:
    registry.update(member("w", ("shop", "172.30.0.2", ("site",))))
    assert registry.addresses(TWIN, "web") == ["172.30.4.2"]
    assert registry.addresses(TWIN, "site") == ["172.30.0.2"]
    assert registry.addresses(TWIN, "www") == ["172.30.0.3"]
    for container in ("w", "t", "d", "d"):
        registry.forget(container)
    assert registry.member("w") is None
    assert registry.addresses(TWIN, "www") == []


def test_a_query_of_ours_is_readable() -> None:
    question = packets.parse(packets.query("web.shop", packets.TYPE_PTR, ident=7))
    assert question is not None
    assert (question.name, question.type, question.header[0]) == ("web.shop", 12, 7)
    assert socket.inet_aton("172.30.0.2") == bytes.fromhex("ac1e0002")
