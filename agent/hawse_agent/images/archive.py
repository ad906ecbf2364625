"""Images as tar streams: `docker save` and `docker import`. `loading` is the other way of `save`.

`save` writes one tar that is a docker archive and an OCI layout in one, its layers uncompressed, as Docker
does. Streams are read and written once, front to back; nothing is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.errors import HostRefused, InputError, ProtocolError
from hawse_agent.images.changes import apply_changes
from hawse_agent.images.compression import Readable, plain
from hawse_agent.images.loading import described
from hawse_agent.images.store import Image, ImageStore

_PIECE = 1 << 20
_BLOBS = "blobs/sha256/"


# -- import --------------------------------------------------------------------------------------


def import_tarball(
    stream: Readable, store: ImageStore, ref: str, changes: Sequence[str] = (), message: str = ""
) -> Image:
    """An image of one layer from the tar of a root directory: plain, gzip, zstd, bzip2 or xz."""
    names = [reference.canonical(ref)] if ref else []
    if ref and reference.parse(ref).digest:
        raise InputError(f"{ref}: refusing to import an image with a digest reference")
    config = apply_changes({}, changes)
    with store.hold() as hold:
        with store.blob_writer() as writer:
            while piece := stream.read(_PIECE):
                writer.write(piece)
            store.hold_blob(writer.digest, hold)
        blob = described(store, hold, writer.digest)
        try:
            with store.blobs.open(blob.digest) as file:
                layer = store.unpack_unnamed(file, blob.size, blob.media_type, lambda: blob.digest, hold)
        except ProtocolError as error:
            raise InputError(f"this is no tar of a root directory: {error.message}") from error
        document = _imported(config, layer.diff_id, message or "Imported from -")
        return store.create(document, [blob], names)


def _imported(config: Mapping[str, Any], diff_id: str, comment: str) -> bytes:
    now = time.time()
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"
    here = manifest.host_platform()
    document = {
        "architecture": here.architecture,
        **({"variant": here.variant} if here.variant else {}),
        "os": here.os,
        "created": created,
        "comment": comment,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": comment}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


# -- save ----------------------------------------------------------------------------------------


def save(store: ImageStore, names: Iterable[str]) -> Iterator[bytes]:
    """One tar of these images, docker archive and OCI layout in one. A name without a tag is all its tags.

    They stay until the last byte, or until what is returned is closed. Raises NotFound before the first byte.
    """
    pieces = _saved(store, list(names))
    next(pieces)
    return pieces


def _saved(store: ImageStore, names: Sequence[str]) -> Iterator[bytes]:
    """First an empty piece: from then on the images are held."""
    with ExitStack() as held:
        saved = [
            replace(entry, image=held.enter_context(store.using(entry.image.id)))
            for entry in _selected(store, names)
        ]
        if not saved:
            raise InputError("no image to save is named")
        yield b""
        yield from _write(store, saved)


@dataclass(frozen=True, kw_only=True)
class _Saved:
    image: Image
    tags: list[str]
    """In familiar form."""


def _selected(store: ImageStore, names: Iterable[str]) -> list[_Saved]:
    chosen: dict[str, _Saved] = {}

    def choose(image: Image, tag: str = "") -> None:
        saved = chosen.setdefault(image.id, _Saved(image=image, tags=[]))
        if tag and tag not in saved.tags:
            saved.tags.append(tag)

    images = store.list()
    for name in names:
        found = False
        if reference.is_name_only(name) and len(name) < 64:
            repository = reference.parse(name).name
            for image in images:
                for tag in image.repo_tags:
                    if reference.parse(tag).name == repository:
                        choose(image, tag)
                        found = True
        if not found:
            image = store.get(name)
            choose(image, next((tag for tag in image.repo_tags if _same(tag, name)), ""))
    return list(chosen.values())


def _same(tag: str, name: str) -> bool:
    return (
        not name.startswith("sha256:")
        and len(name) < 64
        and reference.canonical(name) == reference.canonical(tag)
    )


def _write(store: ImageStore, saved: list[_Saved]) -> Iterator[bytes]:
    written: set[str] = set()
    docker: list[dict[str, Any]] = []
    oci: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for entry in saved:
        image = entry.image
        for layer in image.layers:
            if layer.diff_id not in written:
                written.add(layer.diff_id)
                yield from _plain_layer(store, layer.digest, layer.diff_id, layer.tar_size)
        plain_layers = [
            Descriptor(digest=layer.diff_id, size=layer.tar_size, media_type=manifest.OCI_LAYER)
            for layer in image.layers
        ]
        config = Descriptor(digest=image.id, size=len(image.raw), media_type=manifest.OCI_CONFIG)
        data = _json(
            {
                "schemaVersion": 2,
                "mediaType": manifest.OCI_MANIFEST,
                "config": config.to_json(),
                "layers": [layer.to_json() for layer in plain_layers],
            }
        )
        described = Descriptor(
            digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
            size=len(data),
            media_type=manifest.OCI_MANIFEST,
        )
        yield from _file(_blob(image.id), image.raw)
        yield from _file(_blob(described.digest), data)
        docker.append(
            {
                "Config": _blob(image.id),
                "RepoTags": entry.tags or None,
                "Layers": [_blob(layer.digest) for layer in plain_layers],
                "LayerSources": {layer.digest: layer.to_json() for layer in plain_layers},
            }
        )
        oci += _index_entries(described, entry.tags)
        for tag in entry.tags:
            parsed = reference.parse(tag)
            repositories.setdefault(parsed.familiar_name, {})[parsed.tag] = image.id.removeprefix("sha256:")
    yield from _file(
        "index.json", _json({"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": oci})
    )
    yield from _file("manifest.json", _json(docker))
    yield from _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if repositories:
        yield from _file("repositories", _json(repositories))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _index_entries(described: Descriptor, tags: list[str]) -> list[dict[str, Any]]:
    if not tags:
        return [described.to_json()]
    return [
        {
            **described.to_json(),
            "annotations": {
                "io.containerd.image.name": reference.canonical(tag),
                "org.opencontainers.image.ref.name": reference.parse(tag).tag,
            },
        }
        for tag in tags
    ]


def _plain_layer(store: ImageStore, digest: str, diff_id: str, size: int) -> Iterator[bytes]:
    yield _header(_blob(diff_id), size)
    sent = 0
    with store.blobs.open(digest) as blob:
        source = plain(blob)
        while piece := source.read(_PIECE):
            sent += len(piece)
            yield piece
    if sent != size:
        raise HostRefused(f"layer {digest} has {sent} bytes, not {size}: its blob was changed on this host")
    yield bytes(-size % tarfile.BLOCKSIZE)


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _blob(digest: str) -> str:
    return _BLOBS + digest.removeprefix("sha256:")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
