"""Whom to trust, and which way to go."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests.support import certificates

from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.distribution.trust import Trust
from hawse_agent.errors import InputError


def trust(environment: dict[str, str] | None = None, **settings: object) -> Trust:
    return Trust(RegistrySettings(certificates="/nowhere", **settings), environment or {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "schemes"),
    [
        ("registry.lan", ("https",)),
        ("old.lan:5000", ("https", "http")),
        ("old.lan", ("https",)),
        ("10.1.2.3:5000", ("https", "http")),
        ("10.2.0.1", ("https",)),
        ("[fd00::5]:5000", ("https", "http")),
        ("127.0.0.1:5000", ("https", "http")),
        ("127.9.9.9", ("https", "http")),
        ("localhost:5000", ("https", "http")),
        ("[::1]:5000", ("https", "http")),
    ],
)
def test_plain_http_is_for_loopback_and_for_what_is_named(address: str, schemes: tuple[str, ...]) -> None:
    assert trust(insecure=("old.lan:5000", "10.1.0.0/16", "fd00::/8")).schemes(address) == schemes


PROXIES = {"HTTP_PROXY": "http://plain.lan:1", "https_proxy": "http://me:pa%20ss@secure.lan:3128"}


@pytest.mark.parametrize(
    ("no_proxy", "address", "direct"),
    [
        ("", "registry.lan", False),
        ("", "localhost:5000", True),
        ("", "127.0.0.1:5000", True),
        ("", "[::1]:5000", True),
        ("registry.lan", "registry.lan:5000", True),
        ("registry.lan", "sub.registry.lan", True),
        ("registry.lan", "otherregistry.lan", False),
        (".lan", "registry.lan", True),
        (".registry.lan", "registry.lan", False),
        ("*.lan", "registry.lan", True),
        ("Registry.LAN", "registry.lan", True),
        ("registry.lan:443", "registry.lan", True),
        ("registry.lan:444", "registry.lan", False),
        ("10.0.0.0/8", "10.1.2.3:5000", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3:5000", True),
        ("10.1.2.3:5000", "10.1.2.3", False),
        ("fd00::/8", "[fd00::1]", True),
        ("other.lan, *", "registry.lan", True),
    ],
)
def test_what_is_reached_without_a_proxy(no_proxy: str, address: str, direct: bool) -> None:
    found = trust({**PROXIES, "NO_PROXY": no_proxy}).proxy("https", address)
    assert (found is None) == direct
    if found is not None:
        assert (found.host, found.port) == ("secure.lan", 3128)
        assert found.headers == {"Proxy-Authorization": "Basic bWU6cGEgc3M="}
        assert "pa ss" not in repr(found)


def test_settings_stand_before_the_environment() -> None:
    chosen = trust({**PROXIES, "NO_PROXY": "*"}, https_proxy="http://own.lan:8080", no_proxy="a.lan")
    found = chosen.proxy("https", "registry.lan")
    assert found is not None and found.host == "own.lan"
    assert trust({"HTTPS_PROXY": "socks5://x:1"}, no_proxy="x").proxy("http", "a.lan") is None
    with pytest.raises(InputError, match="HTTPS_PROXY: expected http://HOST:PORT"):
        trust({"HTTPS_PROXY": "socks5://x:1"}).proxy("https", "a.lan")


def test_certificates_as_docker_keeps_them(tmp_path: Path) -> None:
    """`HOST:PORT/*.crt` are authorities, `x.cert` and `x.key` ours; new files are taken up."""
    settings = RegistrySettings(certificates=str(tmp_path))
    chosen = Trust(settings, {})
    assert chosen.schemes("127.0.0.1:5000") == ("https", "http")
    assert chosen.context("127.0.0.1:5000").verify_mode is ssl.CERT_NONE
    place = tmp_path / "127.0.0.1:5000"
    place.mkdir()
    authority = certificates.authority()
    certificate, key = authority.write(place, "ca")
    key.unlink()
    assert chosen.schemes("127.0.0.1:5000") == ("https",), "who gives a CA wants it checked"
    context = chosen.context("127.0.0.1:5000")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context is chosen.context("127.0.0.1:5000")
    mine, key = certificates.of_server(authority, "me").write(place, "client")
    mine.rename(place / "client.cert")
    assert chosen.context("127.0.0.1:5000") is not context
    key.unlink()
    with pytest.raises(InputError, match=r"client\.cert: its key, client\.key, is missing"):
        chosen.context("127.0.0.1:5000")
    certificate.write_text("-----BEGIN CERTIFICATE-----\nnone\n")
    (place / "client.cert").unlink()
    with pytest.raises(InputError, match=r"ca\.crt: not a certificate that can be used"):
        chosen.context("127.0.0.1:5000")


def test_an_authority_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"registries\.ca\.a\.lan: /none\.crt: no such file"):
        trust(ca={"a.lan": "/none.crt"}).context("a.lan")
