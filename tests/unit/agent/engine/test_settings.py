"""agent.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from hawse_agent.engine import settings
from hawse_agent.engine.settings import Settings, UsernsSettings
from hawse_agent.errors import InputError


def test_without_a_file(tmp_path: Path) -> None:
    assert settings.read(tmp_path / "agent.toml") == Settings()


def test_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('init = true\n[userns]\ndefault = "auto"\nfirst = 200000\nsize = 131072\n')
    ids = UsernsSettings(default="auto", first=200000, size=131072)
    assert settings.read(path) == Settings(init=True, userns=ids)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("init = maybe", "Invalid value"),
        ("init = 1", "init: expected bool, not a number"),
        ("ports = 1", "unknown key 'ports'"),
        ('[userns]\ndefault = "private"', "userns.default: expected one of host, auto, not 'private'"),
        ("[userns]\nfirst = 0", "are not ids of users"),
        ("[userns]\nfirst = 4294967000\nsize = 65536", "are not ids of users"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        settings.read(path)
    assert error.value.message.startswith(f"{path}: ")
    assert message in error.value.message
