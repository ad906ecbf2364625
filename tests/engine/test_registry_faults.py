"""A real registry behind a proxy that cuts, refuses and alters: pushes and pulls come to an end all the same,
or say why."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import registries
from tests.support.imagefiles import config, files, manifest, put, sha256
from tests.support.registries import DebianRegistry

from hawse_agent.distribution import endpoint, reference
from hawse_agent.distribution.cancel import Cancel, Stopped
from hawse_agent.distribution.registry import Client
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.engine.state import State
from hawse_agent.errors import HostRefused, ProtocolError
from hawse_agent.images.pull import Pulls
from hawse_agent.images.push import Pushes
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.paths import paths_for

pytestmark = pytest.mark.skipif(not registries.available(), reason="needs docker-registry and skopeo")

CLIENT = Client(RegistrySettings(certificates="/nowhere"), {})
LAYER = files({"noise": os.urandom(2_000_000).hex()})
BLOB = gzip.compress(LAYER, 1, mtime=0)
CONFIG = config([sha256(LAYER)])
MANIFEST = manifest(CONFIG, [BLOB]).replace(b'v1.tar"', b'v1.tar+gzip"')


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_pause", lambda failures: 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    paths = paths_for(tmp_path)
    state = State(paths)
    yield ImageStore(paths, state)
    state.close()


def image(store: ImageStore, name: str) -> Image:
    put(store, BLOB, CONFIG, MANIFEST)
    return store.commit_manifest(sha256(MANIFEST), [name])


def push(store: ImageStore, name: str, **more: Any) -> list[str]:
    heard: list[str] = []
    Pushes(CLIENT, store).push(
        reference.parse(name), lambda event: heard.append(str(event.get("status"))), **more
    )
    return heard


def digest_of(name: str) -> str:
    command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]
    return str(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["Digest"])


def test_a_push_that_is_cut_is_made_again(store: ImageStore, registry: DebianRegistry) -> None:
    """docker-registry forgets an upload that was cut."""
    cut = {"only": "/blobs/uploads/", "cut_after": 700_000, "cuts": 2}
    with registries.faults_before(registry.address, **cut) as proxy:
        name = f"{proxy.serving.address}/cut/app:1"
        image(store, name)
        assert "Pushed" in push(store, name)
        assert sum(method == "PATCH" for method, _, _ in proxy.serving.requests) == 4  # the configuration too
    assert digest_of(f"{registry.address}/cut/app:1") == sha256(MANIFEST)


def test_a_push_that_is_always_cut_is_given_up(store: ImageStore, registry: DebianRegistry) -> None:
    cut = {"only": "/blobs/uploads/", "cut_after": 700_000, "cuts": 99}
    with registries.faults_before(registry.address, **cut) as proxy:
        name = f"{proxy.serving.address}/always/app:1"
        image(store, name)
        with pytest.raises(HostRefused, match="cannot reach the registry"):
            push(store, name)


@pytest.mark.parametrize("status", [503, 429])
def test_a_registry_that_is_busy_is_tried_again(
    store: ImageStore, registry: DebianRegistry, status: int
) -> None:
    busy = {"only": "/v2/", "statuses": [(status, {"Retry-After": "0"})] * 3}
    with registries.faults_before(registry.address, **busy) as proxy:
        name = f"{proxy.serving.address}/busy/app:{status}"
        image(store, name)
        push(store, name)
    assert digest_of(f"{registry.address}/busy/app:{status}") == sha256(MANIFEST)


def test_a_push_that_cannot_be_says_why(store: ImageStore, registry: DebianRegistry) -> None:
    with registries.faults_before(registry.address, only="/manifests/", statuses=[(400, {})]) as proxy:
        name = f"{proxy.serving.address}/refused/app:1"
        image(store, name)
        with pytest.raises(HostRefused, match=rf"push {name}: {proxy.serving.address} answers 400"):
            push(store, name)
    with pytest.raises(HostRefused, match="cannot reach the registry"):
        push(store, name)


def test_a_blob_that_went_bad_here_is_not_taken(store: ImageStore, registry: DebianRegistry) -> None:
    name = f"{registry.address}/bad/app:1"
    image(store, name)
    data = bytearray(BLOB)
    data[1000] ^= 1
    store.blobs.path(sha256(BLOB)).write_bytes(data)
    with pytest.raises(HostRefused, match="digest invalid"):
        push(store, name)


def test_a_cancelled_push_ends_at_once(store: ImageStore, registry: DebianRegistry) -> None:
    cancel = Cancel()
    with registries.faults_before(registry.address, gate=threading.Event(), only="/uploads/") as proxy:
        name = f"{proxy.serving.address}/cancelled/app:1"
        image(store, name)
        threading.Thread(target=lambda: (proxy.serving.reached.wait(10), cancel())).start()
        begin = time.monotonic()
        with pytest.raises(Stopped):
            push(store, name, cancel=cancel)
        assert time.monotonic() - begin < 10
        proxy.serving.gate.set()


def test_wrong_bytes_are_told_and_nothing_of_them_stays(
    store: ImageStore, registry: DebianRegistry, tmp_path: Path
) -> None:
    name = f"{registry.address}/wrong/app:1"
    image(store, name)
    push(store, name)
    state = State(paths_for(tmp_path / "other"))
    other = ImageStore(paths_for(tmp_path / "other"), state)
    with registries.faults_before(registry.address, wrong=1, only=sha256(BLOB)) as proxy:
        pulled = reference.parse(f"{proxy.serving.address}/wrong/app:1")
        with pytest.raises(ProtocolError, match="damaged"):
            Pulls(CLIENT, other).pull(pulled, lambda event: None)
        assert other.list() == [] and list(other.blobs.digests()) == []
        assert Pulls(CLIENT, other).pull(pulled, lambda event: None).id == sha256(CONFIG)
    state.close()


def test_a_slow_and_cut_pull(store: ImageStore, registry: DebianRegistry, tmp_path: Path) -> None:
    name = f"{registry.address}/slow/app:1"
    image(store, name)
    push(store, name)
    state = State(paths_for(tmp_path / "other"))
    other = ImageStore(paths_for(tmp_path / "other"), state)
    cut = {"only": sha256(BLOB), "cut_after": 300_000, "cuts": 3}
    with registries.faults_before(registry.address, **cut) as proxy:
        pulled = Pulls(CLIENT, other).pull(
            reference.parse(f"{proxy.serving.address}/slow/app:1"), lambda event: None
        )
        begun = [headers["range"] for _, path, headers in proxy.serving.requests if "range" in headers]
    assert pulled.id == sha256(CONFIG) and len(begun) == 3
    state.close()
