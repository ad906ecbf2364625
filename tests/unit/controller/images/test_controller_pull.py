"""The controller's pull: platforms, what is here already, what was cut, and what is no container image."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hawse.images.pull import pull
from hawse.images.store import ImageStore
from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.manifest import Descriptor, Platform
from hawse_agent.distribution.registry import Client, Document, Repository
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.errors import HostRefused, InputError, NotFound, NotSupported

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD64, ARM64 = Platform(architecture="amd64"), Platform(architecture="arm64", variant="v8")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class FakeRegistry:
    """One repository in memory; `find` is the real client's."""

    find = Repository.find
    name = reference.parse("reg.example/app:1")
    settings = RegistrySettings()

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.documents: dict[str, bytes] = {}
        self.given: list[int] = []
        self.cut = False

    def repository(self, name: Any, credentials: Any) -> FakeRegistry:
        return self

    def __enter__(self) -> FakeRegistry:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stop(self) -> None: ...

    def manifest(self, name: str) -> Document:
        if name not in self.documents:
            raise NotFound("manifest unknown")
        data = self.documents[name]
        return Document(digest=sha256(data), media_type="", data=data)

    def blob(self, blob: Descriptor, offset: int = 0) -> Iterator[bytes]:
        data = self.blobs[blob.digest][offset:]
        half = len(data) // 2
        self.given.append(half)
        yield data[:half]
        if self.cut:
            raise HostRefused("the connection was cut")
        self.given.append(len(data) - half)
        yield data[half:]

    def image(self, platform: Platform, *, layer: bytes = b"", kind: str = LAYER) -> dict[str, Any]:
        """An entry of an index; the image is there under its digest, and as `1`."""
        layer = layer or os.urandom(1000)
        about = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
        config = json.dumps(
            {**about, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]}}
        ).encode()
        for data in (layer, config):
            self.blobs[sha256(data)] = data
        document = {
            "schemaVersion": 2,
            "config": {"digest": sha256(config), "size": len(config)},
            "layers": [{"digest": sha256(layer), "size": len(layer), "mediaType": kind}],
        }
        data = json.dumps(document).encode()
        self.documents[sha256(data)] = self.documents["1"] = data
        return {"digest": sha256(data), "size": len(data), "platform": {k: v for k, v in about.items() if v}}

    def index(self, *entries: dict[str, Any]) -> None:
        self.documents["1"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()

    def pull(self, store: ImageStore, *platforms: Platform, every: bool = False, **options: Any) -> Any:
        asked = None if every else platforms or (manifest.host_platform(),)
        return pull(cast(Client, self), store, self.name, platforms=asked, **options)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


def platforms(store: ImageStore) -> list[str]:
    [image] = store.images()
    return [variant.platform for variant in image.variants]


def test_the_platforms_that_are_asked_for_come(store: ImageStore, registry: FakeRegistry) -> None:
    attestation = {**registry.image(Platform(architecture="unknown", os="unknown"))}
    registry.index(
        registry.image(AMD64),
        registry.image(ARM64),
        registry.image(Platform(architecture="s390x")),
        attestation,
    )
    registry.pull(store, AMD64, ARM64)
    assert platforms(store) == ["linux/amd64", "linux/arm64/v8"]
    source = store.get("reg.example/app:1")
    assert [other.platform for other in source.others] == ["linux/arm64/v8"]
    assert set(source.blobs) & set(source.others[0].blobs) == set()
    registry.given.clear()
    registry.pull(store, every=True)
    assert platforms(store) == ["linux/amd64", "linux/arm64/v8", "linux/s390x"]
    assert sum(registry.given) < 1500  # one layer and two configurations at most: the rest was here
    with pytest.raises(NotFound, match="no matching manifest for linux/riscv64"):
        registry.pull(store, Platform(architecture="riscv64"))


def test_an_image_for_one_platform(store: ImageStore, registry: FakeRegistry) -> None:
    entry = registry.image(ARM64)
    with pytest.raises(NotFound, match="is for linux/arm64/v8 only, not for linux/amd64"):
        registry.pull(store, AMD64)
    assert store.images() == []
    image = registry.pull(store, every=True)
    assert image.variants[0].manifest == entry["digest"] and platforms(store) == ["linux/arm64/v8"]


def test_what_was_cut_goes_on(store: ImageStore, registry: FakeRegistry) -> None:
    layer = os.urandom(100_000)
    registry.image(AMD64, layer=layer)
    registry.cut = True
    for _ in range(2):  # the configuration, then the layer
        with pytest.raises(HostRefused, match="cut"):
            registry.pull(store, AMD64)
        registry.cut = False
        store_config(store, registry)
        registry.cut = True
    registry.cut = False
    registry.given.clear()
    heard: list[str] = []
    registry.pull(store, AMD64, progress=lambda message: heard.append(str(message.get("status"))))
    assert sum(registry.given) == 50_000 and heard[-2:] == ["Pull complete", heard[-1]]
    assert b"".join(store.chunks(sha256(layer))) == layer


def store_config(store: ImageStore, registry: FakeRegistry) -> None:
    """As if the configuration had come whole."""
    for data in registry.blobs.values():
        if data.startswith(b"{"):
            store.put(data)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("application/vnd.cncf.helm.chart.content.v1", "is no container image"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign layer"),
    ],
)
def test_what_is_no_image_is_refused(store: ImageStore, registry: FakeRegistry, kind: str, said: str) -> None:
    registry.image(AMD64, kind=kind)
    with pytest.raises((NotSupported, InputError), match=said):
        registry.pull(store, AMD64)
    assert store.images() == []
