"""Images as tar streams: `docker load`, `docker save` and `docker import`.

    docker archive   manifest.json [{Config, RepoTags, Layers}], a file for each
    OCI layout       oci-layout, index.json, blobs/sha256/<hex>

`load` takes both, compressed or not, layers compressed or not; `save` writes one tar that is both, its layers
uncompressed, as Docker does. Streams are read and written once, front to back; nothing is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.errors import HostRefused, InputError, NotFound
from hawse_agent.images import layers
from hawse_agent.images.changes import apply_changes
from hawse_agent.images.compression import Ahead, Readable, kind, plain
from hawse_agent.images.image import diff_ids
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.images.tar import TarError, TarReader

_PIECE = 1 << 20
_BLOBS = "blobs/sha256/"
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


# -- load ----------------------------------------------------------------------------------------


def load(stream: Readable, store: ImageStore) -> list[Image]:
    """Make the images of an archive. What fails leaves no blob behind.

    Raises InputError for what is no archive of images, ProtocolError for damaged data, OutOfSpace.
    """
    unpacked = _Unpacked(store)
    try:
        unpacked.receive(stream)
        if "manifest.json" in unpacked.files:
            return list(_docker_images(unpacked, store))
        if "index.json" in unpacked.files:
            return list(_oci_images(unpacked, store))
        raise InputError(
            "this is no archive of images: it has neither manifest.json nor index.json",
            hint="a root directory becomes an image by import",
        )
    finally:
        unpacked.forget()


class _Unpacked:
    """The files of an archive, each kept as a blob."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._new: list[str] = []
        self._links: dict[str, str] = {}
        self.files: dict[str, str] = {}

    def receive(self, stream: Readable) -> None:
        reader = TarReader(plain(stream))
        try:
            for entry in reader:
                name = posixpath.normpath(entry.name.lstrip("/"))
                if entry.kind == "symlink":
                    self._links[name] = posixpath.normpath(
                        posixpath.join(posixpath.dirname(name), entry.link)
                    )
                elif entry.kind == "hardlink":
                    self._links[name] = posixpath.normpath(entry.link.lstrip("/"))
                elif entry.kind == "file":
                    if entry.segments is not None:
                        raise InputError(f"{name} in the archive is a sparse file")
                    self._receive_file(name, reader)
            reader.drain()
        except (TarError, EOFError) as error:
            raise InputError(f"this is no whole archive of images: {error}") from error

    def digest(self, name: str) -> str:
        name = posixpath.normpath(name)
        name = self._links.get(name, name)  # an older docker save links layers that repeat
        try:
            return self.files[name]
        except KeyError:
            raise InputError(f"{name} is missing in the archive") from None

    def read(self, name: str) -> bytes:
        return self._store.blobs.read(self.digest(name))

    def forget(self) -> None:
        """Blobs that came with the archive and that no image names."""
        self._store.forget_blobs(self._new)

    def _receive_file(self, name: str, reader: TarReader) -> None:
        digits = name.removeprefix(_BLOBS)
        announced = f"sha256:{digits}" if digits != name else None
        with self._store.blob_writer(announced) as writer:
            for piece in reader.data():
                writer.write(piece)
            if not self._store.blobs.has(writer.digest):
                self._new.append(writer.digest)
        self.files[name] = writer.digest


def _docker_images(archive: _Unpacked, store: ImageStore) -> Iterator[Image]:
    try:
        entries = json.loads(archive.read("manifest.json"))
    except ValueError as error:
        raise InputError(f"manifest.json is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError("manifest.json names no image")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise InputError("manifest.json is damaged")
        config = archive.read(entry["Config"])
        wanted = diff_ids(parse_json(config, entry["Config"]), entry["Config"])
        names = entry.get("Layers") or []
        if len(names) != len(wanted):
            raise InputError(f"{entry['Config']} has {len(wanted)} layers, manifest.json {len(names)}")
        blobs = [_layer(archive, store, name, diff_id) for name, diff_id in zip(names, wanted, strict=True)]
        yield store.create(config, blobs, entry.get("RepoTags") or ())


def _layer(archive: _Unpacked, store: ImageStore, name: str, diff_id: str) -> Descriptor:
    """The blob that the host already has of this layer, else the archive's."""
    known = store.known_layer(diff_id)
    if known is not None:
        return Descriptor(digest=known.digest, size=known.size, media_type=known.media_type)
    return _described(store, archive.digest(name))


def _oci_images(archive: _Unpacked, store: ImageStore) -> Iterator[Image]:
    index = parse_json(archive.read("index.json"), "index.json")
    entries = [entry for entry in index.get("manifests") or [] if isinstance(entry, dict)]
    fitting = [entry for entry in entries if manifest.fits(entry, manifest.host_platform())]
    if not fitting:
        raise NotFound(f"the archive has no image for {manifest.host_platform()}")
    names: dict[str, list[str]] = {}
    for entry in fitting:
        digest = manifest.descriptor(entry, "index.json").digest
        names.setdefault(digest, []).extend(_names(entry))
    for digest, references in names.items():
        yield store.commit_manifest(digest, references)


def _names(entry: Mapping[str, Any]) -> list[str]:
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return []
    found = [annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)]
    return [str(name) for name in found[:1]]


def told(image: Image) -> str:
    """What `docker load` shows of it."""
    if not image.repo_tags:
        return f"Loaded image ID: {image.id}"
    return "\n".join(f"Loaded image: {tag}" for tag in image.repo_tags)


def _described(store: ImageStore, digest: str) -> Descriptor:
    """A layer's blob, its media type by what is in it."""
    with store.blobs.open(digest) as blob:
        compression = kind(blob.read(6))
    media_type = f"{manifest.OCI_LAYER}+{compression}" if compression else manifest.OCI_LAYER
    return Descriptor(digest=digest, size=store.blobs.size(digest), media_type=media_type)


# -- import --------------------------------------------------------------------------------------


def import_tarball(
    stream: Readable, store: ImageStore, ref: str, changes: Sequence[str] = (), message: str = ""
) -> Image:
    """An image of one layer from the tar of a root directory: plain, gzip, zstd, bzip2 or xz."""
    names = [reference.canonical(ref)] if ref else []
    config = apply_changes({}, changes)
    with store.blob_writer() as writer:
        ahead = Ahead(stream)
        # bzip2 and xz are no layers of the OCI's: those are kept unpacked
        source = plain(ahead) if kind(ahead.peek(6)) in ("bzip2", "xz") else ahead
        while piece := source.read(_PIECE):
            writer.write(piece)
        known = store.blobs.has(writer.digest)
    try:
        with store.blobs.open(writer.digest) as blob:
            diff_id, _ = layers.digest_plain(blob)
        layer = _described(store, writer.digest)
        return store.create(_imported(config, diff_id, message or "Imported from -"), [layer], names)
    finally:
        if not known:
            store.forget_blobs([writer.digest])


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

    Raises NotFound before the first byte.
    """
    saved = _selected(store, names)
    if not saved:
        raise InputError("no image to save is named")
    return _write(store, saved)


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
