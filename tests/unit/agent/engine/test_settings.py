"""agent.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from hawse_agent.engine import settings
from hawse_agent.engine.settings import Settings, UsernsSettings
from hawse_agent.errors import InputError


def test_without_a_file(tmp_path: Path) -> None:
    assert settings.read(tmp_path / "agent.toml") == Settings()


def test_registries(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        """
        [registries]
        insecure = ["10.0.0.0/8", "old.lan:5000"]
        parallel = 5
        https_proxy = "http://proxy.lan:3128"
        [registries.ca]
        "own.lan" = "/etc/ssl/own.crt"
        [registries.mirrors]
        "docker.io" = ["https://mirror.lan/hub", "second.lan"]
        """
    )
    found = settings.read(path).registries
    assert found.insecure == ("10.0.0.0/8", "old.lan:5000") and found.parallel == 5
    assert found.mirrors == {"docker.io": ("https://mirror.lan/hub", "second.lan")}
    assert found.ca == {"own.lan": "/etc/ssl/own.crt"} and found.https_proxy == "http://proxy.lan:3128"
    assert "proxy.lan" not in repr(found), "it may hold a password"


def test_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('init = true\n[userns]\ndefault = "auto"\nfirst = 200000\nsize = 131072\n')
    ids = UsernsSettings(default="auto", first=200000, size=131072)
    assert settings.read(path) == Settings(init=True, userns=ids)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("init = maybe", "Invalid value"),
        ("init = 1", ":1: init: expected bool, not a number"),
        ("ports = 1", ":1: ports: unknown key"),
        ("init = true\n[registries]\ninsecure = []\nmirror = 1", ":4: registries.mirror: unknown key"),
        (
            '[registries]\ninsecure = ["a/b"]',
            ":2: registries.insecure: expected HOST, HOST:PORT",
        ),
        ("[registries]\nparallel = 0", ":2: registries.parallel: expected 1 to 32"),
        ('[registries]\nhttp_proxy = "socks5://x:1"', ":2: registries.http_proxy: expected http://"),
        ('[registries.mirrors]\n"a b" = ["x"]', ':2: registries."a b": expected HOST or HOST:PORT'),
        (
            '[registries.mirrors]\n"x.lan" = ["ftp://x"]',
            ':2: registries.mirrors."x.lan": expected http(s)://',
        ),
        ('[userns]\ndefault = "private"', ":2: userns.default: expected one of host, auto, not 'private'"),
        ("[images]\nunused_hours = -1", ":2: images.unused_hours: -1 is no number of hours"),
        ("[images]\n\nmin_free_percent = 100", ":3: images.min_free_percent: 100 is no part of the disk"),
        ("[images]\nunused_days = 1", ":2: images.unused_days: unknown key"),
        ("[userns]\nfirst = 0", "are not ids of users"),
        ("[userns]\nfirst = 4294967000\nsize = 65536", "are not ids of users"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        settings.read(path)
    assert error.value.message.startswith(f"{path}:")
    assert message in error.value.message
