"""Writes kept images as one tar, an archive of docker and an OCI layout in one, its layers uncompressed."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import zstandard

from hawse.images.store import CONFIG, INDEX, MANIFEST, ImageStore, Variant
from hawse_agent.distribution import reference
from hawse_agent.errors import HostRefused

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_PIECE = 1 << 20


def save(store: ImageStore, images: Sequence[tuple[str, Variant]]) -> Iterator[bytes]:
    """`images` are names, each with what is kept under it."""
    written: set[str] = set()
    docker: dict[str, dict[str, Any]] = {}
    oci: list[dict[str, Any]] = []
    for name, variant in images:
        config = store.read_json(variant.id)
        manifest = store.read_json(variant.manifest)
        layers = []
        for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
            size = sum(len(piece) for piece in _plain(store, layer["digest"]))
            layers.append({"mediaType": _LAYER, "digest": diff_id, "size": size})
            if diff_id not in written:
                written.add(diff_id)
                yield _header(_blob(diff_id), size)
                yield from _checked(store, layer["digest"], diff_id)
                yield bytes(-size % tarfile.BLOCKSIZE)
        described = {"mediaType": CONFIG, "digest": variant.id, "size": store.size(variant.id)}
        data = _json({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers})
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for member, content in ((variant.id, b"".join(store.chunks(variant.id))), (digest, data)):
            if member not in written:
                written.add(member)
                yield from _file(_blob(member), content)
        entry = docker.setdefault(
            variant.id,
            {
                "Config": _blob(variant.id),
                "RepoTags": [],
                "Layers": [_blob(layer["digest"]) for layer in layers],
            },
        )
        short = reference.parse(name)
        entry["RepoTags"].append(short.familiar)
        notes = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": short.tag}
        oci.append({"mediaType": MANIFEST, "digest": digest, "size": len(data), "annotations": notes})
    yield from _file("index.json", _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": oci}))
    yield from _file("manifest.json", _json(list(docker.values())))
    yield from _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield bytes(2 * tarfile.BLOCKSIZE)


def _checked(store: ImageStore, digest: str, diff_id: str) -> Iterator[bytes]:
    seen = hashlib.sha256()
    for piece in _plain(store, digest):
        seen.update(piece)
        yield piece
    if f"sha256:{seen.hexdigest()}" != diff_id:
        raise HostRefused(f"the kept layer {digest[:19]} is not what its image says")


def _plain(store: ImageStore, digest: str) -> Iterator[bytes]:
    """A layer's tar, whatever it is packed with."""
    with store.open_blob(digest) as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(_ZSTD):
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
                while piece := reader.read(_PIECE):
                    yield piece
        elif start.startswith(_GZIP):
            yield from _inflated(file)
        else:
            while piece := file.read(_PIECE):
                yield piece


def _inflated(file: Any) -> Iterator[bytes]:
    """Members one after another."""
    inflater = zlib.decompressobj(wbits=31)
    while piece := file.read(_PIECE):
        while piece:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)
            if plain := inflater.decompress(piece):
                yield plain
            piece = inflater.unused_data


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
