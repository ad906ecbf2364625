"""The controller's push: what is sent, in which order, and what stops it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support import imagefiles

from hawse.images.push import push
from hawse.images.store import ImageStore
from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.manifest import Platform
from hawse_agent.distribution.registry import Client, Document, Upload
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.errors import HostRefused, InputError, NotFound, ProtocolError

NAME = reference.parse("reg.example/app:1")
LAYER, OTHER = imagefiles.files({"a": "1"}), imagefiles.files({"b": "2"})


class FakeRegistry:
    """One repository in memory."""

    settings = RegistrySettings()

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.documents: list[tuple[str, Document]] = []
        self.refuses = self.stopped = False

    def repository(self, name: Any, credentials: Any, *, push: bool) -> FakeRegistry:
        assert push
        return self

    def __enter__(self) -> FakeRegistry:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def blob_size(self, digest: str) -> int | None:
        return len(self.blobs[digest]) if digest in self.blobs else None

    def upload(self, blob: Upload) -> None:
        if self.refuses:
            raise HostRefused("the registry is full")
        data = b"".join(blob.open(0))
        assert data == b"".join([b"".join(blob.open(0))[:1], *blob.open(1)]) and len(data) == blob.size
        self.blobs[blob.digest()] = data

    def put_manifest(self, name: str, document: Document) -> None:
        self.documents.append((name, document))

    def push(self, store: ImageStore, name: reference.Reference = NAME) -> tuple[str, list[str]]:
        said: list[str] = []
        digest = push(
            cast(Client, self), store, name, progress=lambda message: said.append(str(message["status"]))
        )
        return digest, said


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path)


def held(store: ImageStore, name: str, layers: Sequence[bytes]) -> str:
    """Digest of its manifest."""
    described = [
        {"mediaType": manifest.OCI_LAYER, "digest": store.put(layer), "size": len(layer)} for layer in layers
    ]
    config = imagefiles.config([imagefiles.sha256(layer) for layer in layers])
    return store.add([name], config, described).variants[0].manifest


def test_what_is_there_is_not_sent(store: ImageStore) -> None:
    digest, registry = held(store, NAME.canonical, [LAYER, OTHER]), FakeRegistry()
    registry.blobs[imagefiles.sha256(LAYER)] = LAYER
    sent, said = registry.push(store)
    assert sent == digest and imagefiles.sha256(OTHER) in registry.blobs and len(registry.blobs) == 3
    assert (said.count("Layer already exists"), said.count("Pushed")) == (1, 1)
    assert said[-1].startswith(f"1: digest: {digest} size: ")
    [(name, document)] = registry.documents
    assert (name, imagefiles.sha256(document.data)) == ("1", digest)
    assert document.media_type == manifest.OCI_MANIFEST


def test_an_index_comes_after_its_manifests(store: ImageStore) -> None:
    both = {
        held(store, "one:1", [LAYER]): Platform(architecture="amd64"),
        held(store, "two:1", [LAYER, OTHER]): Platform(architecture="arm64"),
    }
    store.add_index([NAME.canonical], both)
    registry = FakeRegistry()
    digest, _ = registry.push(store)
    assert [name for name, _ in registry.documents] == [*both, "1"]
    index = registry.documents[-1][1]
    assert index.digest == digest == store.top(NAME.canonical) and index.media_type == manifest.OCI_INDEX
    assert len(registry.blobs) == 4  # two layers, two configurations


def test_what_fails_leaves_no_name_there(store: ImageStore) -> None:
    held(store, NAME.canonical, [LAYER, OTHER])
    registry = FakeRegistry()
    registry.refuses = True
    with pytest.raises(HostRefused, match="the registry is full"):
        registry.push(store)
    assert registry.stopped and registry.documents == []
    registry.refuses = False
    (store.directory / "blobs/sha256" / imagefiles.sha256(OTHER)[7:]).write_bytes(OTHER[:-1] + b"!")
    with pytest.raises(ProtocolError, match="damaged"):
        registry.push(store)
    assert registry.documents == []


def test_what_cannot_be_pushed(store: ImageStore) -> None:
    digest = held(store, NAME.canonical, [LAYER])
    with pytest.raises(InputError, match="cannot push a digest reference"):
        FakeRegistry().push(store, reference.parse(f"reg.example/app@{digest}"))
    with pytest.raises(NotFound, match="no such image here"):
        FakeRegistry().push(store, reference.parse("reg.example/app:2"))
