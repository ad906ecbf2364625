"""Backups that lie here: tarball and manifest belong together, whatever interrupts an exchange of both."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hawse.fleet import volumes
from hawse.fleet.client import AgentClient


class Agent:
    """As much of a client as a backup needs."""

    name = "web1"

    def __init__(self, data: bytes) -> None:
        self._data = data

    @contextlib.contextmanager
    def backup_volume(self, volume: str, *, compression: str) -> Iterator[tuple[str, Iterator[bytes]]]:
        yield "id", iter([self._data])

    def backup_manifest(self, volume: str, identity: str) -> dict[str, Any]:
        return {"tar_sha256": hashlib.sha256(self._data).hexdigest(), "said": self._data.decode()}


class PowerCut(BaseException):
    pass


def backup(path: Path, data: bytes) -> None:
    volumes.backup(cast(AgentClient, Agent(data)), "data", path)


def test_a_backup_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "data.tar"
    for data in (b"old", b"new"):
        backup(path, data)
        assert (path.read_bytes(), volumes.read_manifest(path)["said"]) == (data, data.decode())
    assert sorted(os.listdir(tmp_path)) == ["data.tar", "data.tar.manifest.json"]


@pytest.mark.parametrize("replaced", [0, 1, 2])
def test_interrupted_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: int) -> None:
    """After so many renames of three."""
    path = tmp_path / "data.tar"
    backup(path, b"old")
    original, done = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal done
        if done == replaced:
            raise PowerCut
        done += 1
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(PowerCut):
            backup(path, b"new")
    assert volumes.read_manifest(path)["said"] == path.read_bytes().decode()
    backup(path, b"newer")
    assert volumes.read_manifest(path)["said"] == "newer" == path.read_bytes().decode()
    assert sorted(os.listdir(tmp_path)) == ["data.tar", "data.tar.manifest.json"]
