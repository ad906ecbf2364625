"""Small images made by hand: layers as tar bytes, configurations, manifests, archives. No root needed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hawse_agent.images.store import ImageStore

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def entry(name: str, data: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A file with `data`, else what `type` says; owned by whoever runs the test."""
    info = tarfile.TarInfo(name)
    info.uid, info.gid, info.mode, info.mtime = os.getuid(), os.getgid(), 0o644, 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    info.size = len(data or b"")
    return info, data or b""


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, None, **{"type": tarfile.DIRTYPE, "mode": 0o755, **fields})


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, None, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, None, type=tarfile.LNKTYPE, linkname=target)


def tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def files(contents: Mapping[str, str]) -> bytes:
    """A layer of plain files."""
    return tar(*(entry(name, text.encode()) for name, text in contents.items()))


def config(diff_ids: Sequence[str], **settings: Any) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [{"created_by": "test"}],
        }
    ).encode()


def manifest(config_data: bytes, layers: Sequence[bytes]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config_data, CONFIG),
            "layers": [descriptor(layer, LAYER) for layer in layers],
        }
    ).encode()


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def put(store: ImageStore, *blobs: bytes) -> None:
    for data in blobs:
        with store.blob_writer(sha256(data), len(data)) as writer:
            writer.write(data)


def docker_archive(images: Iterable[tuple[bytes, Sequence[bytes], Sequence[str]]]) -> bytes:
    """`docker save` of old: configuration, layers and names of each image."""
    members, described = [], []
    written: set[str] = set()
    for config_data, layers, names in images:
        name = f"{sha256(config_data)[7:]}.json"
        members.append(entry(name, config_data))
        paths = []
        for layer in layers:
            paths.append(f"{sha256(layer)[7:19]}/layer.tar")
            if paths[-1] not in written:
                members.append(entry(paths[-1], layer))
                written.add(paths[-1])
        described.append({"Config": name, "RepoTags": list(names), "Layers": paths})
    return tar(*members, entry("manifest.json", json.dumps(described).encode()))


def oci_archive(entries: Sequence[Mapping[str, Any]], blobs: Sequence[bytes]) -> bytes:
    index = {"schemaVersion": 2, "manifests": list(entries)}
    return tar(
        entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        *(entry(f"blobs/sha256/{sha256(data)[7:]}", data) for data in dict.fromkeys(blobs)),
        entry("index.json", json.dumps(index).encode()),
    )
