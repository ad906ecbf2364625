"""Credentials as they come in headers; they never show."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hawse_agent.distribution import credentials
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.errors import InputError


def header(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"username": "me", "password": "pässwörd?>"}, Credentials(username="me", password="pässwörd?>")),
        ({"auth": base64.b64encode(b"me:a:b").decode()}, Credentials(username="me", password="a:b")),
        ({"IdentityToken": "it", "username": None}, Credentials(identity_token="it")),
        ({"registrytoken": "rt"}, Credentials(registry_token="rt")),
        ({"serveraddress": "a.lan", "email": "x"}, Credentials(address="a.lan")),
        ({}, NOBODY),
    ],
)
def test_x_registry_auth(given: dict[str, Any], expected: Credentials) -> None:
    for text in (header(given), header(given).rstrip("="), header(given).replace("-", "+").replace("_", "/")):
        assert credentials.of_header(text) == expected


@pytest.mark.parametrize(
    "text", ["%%%", header([1]), header("x"), header({"username": 1}), header({"auth": "%"})]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InputError, match="X-Registry-Auth") as caught:
        credentials.of_header(text)
    assert "%" not in caught.value.message


def test_they_never_show() -> None:
    one = Credentials(username="me", password="secret-word", identity_token="token-word")
    assert "word" not in f"{one} {one!r} {[one]}" and "me" not in repr(one)
    assert one.fingerprint != Credentials(username="me", password="other").fingerprint
    assert "secret" not in one.fingerprint


def test_x_registry_config() -> None:
    keys = credentials.keyring_of_header(
        header(
            {
                "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
                "localhost:5000": {"username": "local", "password": "x"},
                "https://own.lan/v2/": {"username": "own", "password": "x"},
            }
        )
    )
    found = {
        name: keys.get(name).username for name in ("docker.io", "localhost:5000", "own.lan", "other.lan")
    }
    assert found == {"docker.io": "hub", "localhost:5000": "local", "own.lan": "own", "other.lan": ""}
    assert "x" not in repr(keys).replace("docker", "")


@pytest.mark.parametrize(
    ("address", "registry"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("localhost:5000", "localhost:5000"),
        ("http://localhost:5000/v2/", "localhost:5000"),
    ],
)
def test_which_registry_an_address_means(address: str, registry: str) -> None:
    assert credentials.registry_of(address) == registry
