"""config.json and credential helpers: what Docker's clients have written is read, and the other way round."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from hawse.docker.credentials import (
    HUB_KEY,
    DockerConfig,
    registry_auth,
    registry_config,
    server_key,
)
from hawse_agent.distribution.credentials import Credentials
from hawse_agent.errors import HostRefused, InputError

HELPER = """\
#!/bin/sh
# Keeps one credential a file; says what it was asked, but not the secret.
cd "$HELPER_STATE" || exit 1
read -r line
case $1 in
    get) file=$(printf %s "$line" | tr / _)
         [ -e "$file" ] || { echo "credentials not found in native keychain"; exit 1; }
         cat "$file" ;;
    store) server=$(printf %s "$line" | sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/' | tr / _)
           printf %s "$line" > "$server" ;;
    erase) rm "$(printf %s "$line" | tr / _)" ;;
    list) echo '{"https://listed.example": "ann"}' ;;
    *) echo "no such verb"; exit 1 ;;
esac
"""


def pair(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "kept").mkdir()
    helper = tmp_path / "bin/docker-credential-box"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    return tmp_path


def config(directory: Path, document: Any = None) -> DockerConfig:
    (directory / "docker").mkdir(exist_ok=True)
    path = directory / "docker/config.json"
    if document is not None:
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    environment = {
        "DOCKER_CONFIG": str(path.parent),
        "PATH": f"{directory / 'bin'}:/usr/bin:/bin",
        "HELPER_STATE": str(directory / "kept"),
    }
    return DockerConfig.of(environment)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("localhost:5000", "localhost:5000"),
        ("https://reg.example/v1/", "reg.example"),
        ("http://reg.example:80", "reg.example:80"),
        (HUB_KEY, "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_what_docker_wrote_is_found(directory: Path, name: str, asked: str) -> None:
    known = config(
        directory, {"auths": {"other": {"auth": pair("x", "y")}, name: {"auth": pair("ann", "a:b")}}}
    )
    found = known.get(asked)
    assert found is not None and (found.username, found.password) == ("ann", "a:b")
    assert found.address == server_key(asked) and known.get("elsewhere.example") is None


def test_tokens_and_plain_fields(directory: Path) -> None:
    known = config(
        directory,
        {
            "auths": {
                "a": {"auth": pair("ann", ""), "identitytoken": "t"},
                "b": {"username": "bob", "password": "p"},
            }
        },
    )
    assert known.get("a") == Credentials(address="a", username="ann", identity_token="t")
    assert known.get("b") == Credentials(address="b", username="bob", password="p")


def test_no_file_knows_nobody(directory: Path) -> None:
    assert config(directory).get("a") is None and config(directory).all() == []
    assert not config(directory).erase("a") and not config(directory).path.exists()


def test_what_is_stored_keeps_the_rest_and_is_the_owners_alone(directory: Path) -> None:
    known = config(
        directory, {"HttpHeaders": {"x": "y"}, "auths": {"a": {"auth": pair("old", "old")}}, "z": [1]}
    )
    known.path.chmod(0o644)
    for server in ("a", HUB_KEY):
        assert known.store(Credentials(address=server, username="ann", password="s3")) == ""
    document = json.loads(known.path.read_text())
    assert document == {
        "HttpHeaders": {"x": "y"},
        "auths": {"a": {"auth": pair("ann", "s3")}, HUB_KEY: {"auth": pair("ann", "s3")}},
        "z": [1],
    }
    assert stat.S_IMODE(known.path.stat().st_mode) == 0o600
    assert [path.name for path in known.path.parent.iterdir()] == ["config.json"]
    assert known.erase("docker.io") and not known.erase("docker.io")
    assert list(json.loads(known.path.read_text())["auths"]) == ["a"]


def test_the_first_login_makes_the_file(directory: Path) -> None:
    known = DockerConfig.of({"HOME": str(directory / "home")})
    known.store(Credentials(address="a", identity_token="t"))
    assert known.path == directory / "home/.docker/config.json"
    assert stat.S_IMODE(known.path.parent.stat().st_mode) == 0o700
    assert known.get("a") == Credentials(address="a", identity_token="t")


def test_a_link_stays_one(directory: Path) -> None:
    known = config(directory)
    (directory / "real.json").write_text("{}")
    known.path.symlink_to(directory / "real.json")
    known.store(Credentials(address="a", username="u", password="p"))
    assert known.path.is_symlink() and "auths" in (directory / "real.json").read_text()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "config.json is not JSON"),
        ("[]", "not a JSON object"),
        ({"auths": []}, "config.json: auths: expected an object"),
        ({"auths": {"a": {"auth": "%"}}}, "auths: a: auth is not base64"),
        ({"auths": {"a": {"auth": base64.b64encode(b"nocolon").decode()}}}, "auths: a: auth is not base64"),
        ({"credsStore": "../evil"}, "credsStore: not the name of a helper"),
    ],
)
def test_a_damaged_file_is_named(directory: Path, document: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        config(directory, document).get("a")
    assert str(directory) in caught.value.message


def test_a_helper_keeps_what_the_file_does_not(directory: Path) -> None:
    known = config(directory, {"credsStore": "box"})
    assert known.get("reg.example") is None
    assert known.store(Credentials(address="reg.example", username="ann", password="s3cret")) == "box"
    assert "s3cret" not in known.path.read_text()
    assert known.get("reg.example") == Credentials(address="reg.example", username="ann", password="s3cret")
    known.store(Credentials(address=HUB_KEY, identity_token="tok"))
    assert known.get("docker.io") == Credentials(address=HUB_KEY, identity_token="tok")
    assert known.erase("reg.example") and known.get("reg.example") is None
    assert json.loads(known.path.read_text()) == {"credsStore": "box", "auths": {HUB_KEY: {}}}


def test_a_registrys_own_helper_comes_first(directory: Path) -> None:
    known = config(
        directory,
        {"credHelpers": {"reg.example": "box"}, "auths": {"reg.example": {"auth": pair("file", "x")}}},
    )
    assert known.get("reg.example") is None
    known.store(Credentials(address="reg.example", username="helper", password="x"))
    found = known.get("reg.example")
    assert found is not None and found.username == "helper"


def test_all_that_are_known_go_to_a_build(directory: Path) -> None:
    known = config(
        directory, {"credHelpers": {"own": "box"}, "auths": {HUB_KEY: {"auth": pair("h", "x")}, "plain": {}}}
    )
    known.store(Credentials(address="own", username="ann", password="y"))
    assert {entry.address: entry.username for entry in known.all()} == {HUB_KEY: "h", "own": "ann"}
    [text] = registry_config(known.all()).values()
    assert json.loads(base64.urlsafe_b64decode(text))["own"]["password"] == "y"


def test_a_helper_that_fails_is_named(directory: Path) -> None:
    known = config(directory, {"credsStore": "nowhere"})
    with pytest.raises(
        HostRefused, match=r"docker-credential-nowhere, which .*config.json names, is not installed"
    ):
        known.get("a")
    (directory / "bin/docker-credential-sad").write_text("#!/bin/sh\necho no keyring here; exit 1\n")
    (directory / "bin/docker-credential-sad").chmod(0o755)
    with pytest.raises(HostRefused, match="docker-credential-sad get: no keyring here"):
        config(directory, {"credsStore": "sad"}).get("a")


def test_secrets_are_not_shown() -> None:
    known = Credentials(address="a", username="ann", password="s3cret", identity_token="t0ken")
    assert "s3cret" not in repr(known) and "t0ken" not in repr(known)
    [header] = registry_auth(known).values()
    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "username": "ann",
        "password": "s3cret",
        "identitytoken": "t0ken",
        "serveraddress": "a",
    }
    assert server_key("https://a:1/v2/x") == "a:1" and server_key("") == HUB_KEY
