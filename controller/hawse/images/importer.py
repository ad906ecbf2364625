"""Makes images out of files: a root directory as a tar, or an archive of `docker save` or of OCI tools.

Layers that come uncompressed leave as zstd; compressed ones are kept byte for byte. Nothing is unpacked and
no file is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from hawse.images.config import apply_changes, this_architecture
from hawse.images.store import BlobWriter, ImageStore, StoredImage
from hawse_agent.errors import InputError

_PIECE = 1 << 20
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LEVEL = 3
_END = bytes(1024)


def import_file(
    store: ImageStore,
    path: Path,
    *,
    reference: str = "",
    changes: Iterable[str] = (),
    architecture: str = "",
) -> list[StoredImage]:
    """Imports an archive of images, or a tar of a root directory, which needs a `reference`."""
    try:
        if _is_archive(path):
            if tuple(changes):
                raise InputError(f"{path} is an archive of images: nothing can be changed on import")
            with tarfile.open(path) as tar:
                return _Archive(store, tar, path, reference).images(architecture or this_architecture())
        return [import_root(store, path, reference=reference, changes=changes, architecture=architecture)]
    except (tarfile.TarError, EOFError, zstandard.ZstdError, zlib.error) as error:
        raise InputError(f"{path} is not a whole tar archive: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error


def import_archive(store: ImageStore, path: Path) -> list[StoredImage]:
    """Imports an archive of images. Raises InputError for anything else."""
    try:
        is_archive = _is_archive(path)
    except (tarfile.TarError, EOFError, FileNotFoundError):
        is_archive = False
    if path.exists() and not is_archive:
        raise InputError(
            f"{path} is no archive of images: it has neither manifest.json nor index.json",
            hint="hawse image import FILE NAME makes one of a root directory",
        )
    return import_file(store, path)


def import_root(
    store: ImageStore,
    path: Path,
    *,
    reference: str,
    changes: Iterable[str] = (),
    architecture: str = "",
) -> StoredImage:
    """An image of one layer; the same file gives the same image again."""
    if not reference:
        raise InputError(f"{path}: the image needs a name", hint="hawse image import FILE NAME[:TAG]")
    config = apply_changes(changes)
    with path.open("rb") as file:
        layer = _store_layer(store, file)
        if layer.plain:
            _require_end(file)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(path.stat().st_mtime)))
    document = {
        "architecture": architecture or this_architecture(),
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": created, "created_by": f"hawse image import {path.name}"}],
    }
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    return store.add((reference,), data, [layer.descriptor()])


@dataclass(frozen=True, kw_only=True)
class _Layer:
    digest: str
    size: int
    diff_id: str
    media_type: str
    plain: bool
    """It came uncompressed: nothing in it tells whether it is whole."""

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class _Archive:
    """`docker save` (manifest.json) or an OCI layout (index.json) in a tar; new Dockers write both."""

    def __init__(self, store: ImageStore, tar: tarfile.TarFile, path: Path, reference: str) -> None:
        self._store = store
        self._tar = tar
        self._path = path
        self._reference = reference
        self._members = {member.name.removeprefix("./"): member for member in tar}

    def images(self, architecture: str) -> list[StoredImage]:
        if "manifest.json" in self._members:
            return [self._docker(entry) for entry in json.loads(self._read("manifest.json"))]
        entries = json.loads(self._read("index.json"))["manifests"]
        return [self._oci(entry, architecture) for entry in entries]

    def _docker(self, entry: dict[str, Any]) -> StoredImage:
        config = self._read(entry["Config"])
        layers = [self._layer(name) for name in entry["Layers"]]
        names = (self._reference,) if self._reference else tuple(entry.get("RepoTags") or ())
        return self._add(names, config, layers)

    def _oci(self, entry: dict[str, Any], architecture: str) -> StoredImage:
        notes = entry.get("annotations", {})
        name = self._reference or notes.get("io.containerd.image.name", "")
        name = name or notes.get("org.opencontainers.image.ref.name", "")
        manifest = json.loads(self._blob(entry["digest"]))
        if "manifests" in manifest:
            fitting = [
                choice
                for choice in manifest["manifests"]
                if choice.get("platform", {}).get("architecture") == architecture
            ]
            if not fitting:
                raise InputError(f"{self._path}: no image for {architecture} in it")
            manifest = json.loads(self._blob(fitting[0]["digest"]))
        layers = [self._layer(_blob_name(layer["digest"])) for layer in manifest["layers"]]
        return self._add((name,) if name else (), self._blob(manifest["config"]["digest"]), layers)

    def _add(self, names: tuple[str, ...], config: bytes, layers: list[_Layer]) -> StoredImage:
        if not names:
            raise InputError(
                f"{self._path}: the image in it has no name", hint="hawse image import FILE NAME[:TAG]"
            )
        wanted = json.loads(config)["rootfs"]["diff_ids"]
        if wanted != [layer.diff_id for layer in layers]:
            raise InputError(f"{self._path}: a layer in it is damaged: its digest is not the configuration's")
        return self._store.add(names, config, [layer.descriptor() for layer in layers])

    def _layer(self, name: str) -> _Layer:
        with self._open(name) as file:
            return _store_layer(self._store, file)

    def _blob(self, digest: str) -> bytes:
        data = self._read(_blob_name(digest))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise InputError(f"{self._path}: {digest[:19]} in it is damaged")
        return data

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read()

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        if member is not None and member.issym():  # an older docker save links layers that repeat
            directory = Path(name).parent
            parts: list[str] = []
            for part in (directory / member.linkname).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            member = self._members.get("/".join(parts))
        file = self._tar.extractfile(member) if member is not None else None
        if file is None:
            raise InputError(f"{self._path}: {name} is missing in it")
        return file


class ZstdLayer:
    """A plain layer that is packed into a blob while it comes."""

    def __init__(self, writer: BlobWriter, plain: hashlib._Hash | None = None) -> None:
        self._writer = writer
        self._plain = plain or hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()

    def write(self, piece: bytes) -> None:
        self._plain.update(piece)
        self._writer.write(self._compressor.compress(piece))

    def finish(self) -> None:
        self._writer.write(self._compressor.flush())

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._plain.hexdigest()}"

    def descriptor(self) -> dict[str, Any]:
        return {
            "mediaType": f"{_LAYER}+zstd",
            "digest": self._writer.digest,
            "size": self._writer.size,
        }


def _store_layer(store: ImageStore, file: IO[bytes]) -> _Layer:
    """Stores a layer's blob; the diff_id is the digest of the tar inside."""
    plain = hashlib.sha256()
    start = file.read(4)
    file.seek(0)
    with store.writer() as writer:
        if start.startswith(_ZSTD):
            kind = f"{_LAYER}+zstd"
            _unpack(file, writer, plain, lambda: zstandard.ZstdDecompressor().decompressobj())
        elif start.startswith(_GZIP):
            kind = f"{_LAYER}+gzip"
            _unpack(file, writer, plain, lambda: zlib.decompressobj(wbits=31))
        else:
            kind = f"{_LAYER}+zstd"
            packing = ZstdLayer(writer, plain)
            while piece := file.read(_PIECE):
                packing.write(piece)
            packing.finish()
    return _Layer(
        digest=writer.digest,
        size=writer.size,
        diff_id=f"sha256:{plain.hexdigest()}",
        media_type=kind,
        plain=not start.startswith((_ZSTD, _GZIP)),
    )


def _require_end(file: IO[bytes]) -> None:
    """POSIX ends an archive with two blocks of zeros."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(_END)))
    if size % 512 or file.read() != _END:
        raise EOFError("it ends too early")


def _unpack(file: IO[bytes], writer: BlobWriter, plain: Any, new: Callable[[], Any]) -> None:
    """Copies a compressed file and hashes what is inside: frames one after another, all of them whole."""
    frame = new()
    while piece := file.read(_PIECE):
        writer.write(piece)
        while piece:
            if frame.eof:
                frame = new()
            plain.update(frame.decompress(piece))
            piece = frame.unused_data
    if not frame.eof:
        raise EOFError("it ends too early")


def _is_archive(path: Path) -> bool:
    return bool(_top_names(path) & {"manifest.json", "index.json"})


def _top_names(path: Path) -> set[str]:
    """Names of the first entries at the top of a tar; enough to tell an archive of images from a root."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_ZSTD):  # image archives do not come as zstd
        return set()
    names: set[str] = set()
    with tarfile.open(path) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            top = name.split("/")[0]
            names.add(name)
            if top in ("bin", "usr", "etc", "lib"):
                break
    return names


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"
