"""Images that the disk still tells of, when the table of images is lost.

A record that was kept is taken when all of its layers are here; any manifest among the blobs is, whose layers
are unpacked here. Names are not among the blobs: only a kept copy has them. Changes nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hawse_agent.distribution import manifest
from hawse_agent.distribution.documents import MAX_JSON, parse_json
from hawse_agent.errors import HawseError
from hawse_agent.images import layers
from hawse_agent.images.blobs import Blobs
from hawse_agent.images.image import ImageRecord, Layer, diff_ids
from hawse_agent.linux import files
from hawse_agent.paths import Paths
from hawse_agent.spec import codec


def images(
    paths: Paths, kept: Mapping[str, Any], lose: Callable[[str], None]
) -> Iterator[tuple[str, ImageRecord]]:
    """Id and record of each; `kept` are documents of the table by id, where there is a copy of it. `lose`
    hears of those that are here, but damaged."""
    seen = set()
    for image_id, document in kept.items():
        try:
            record = codec.loads(ImageRecord, document)
        except (HawseError, ValueError, TypeError):
            continue
        if _digest(record.config.encode()) == image_id and _unpacked(paths, record):
            seen.add(image_id)
            yield image_id, record
    blobs = Blobs(paths)
    for digest, _ in sorted(blobs.digests()):
        try:
            found = _of_manifest(paths, blobs, digest)
        except (HawseError, OSError, EOFError) as error:  # a blob that it names
            lose(f"image of manifest {digest[7:19]}: {error}")
            continue
        if found is not None and found[0] not in seen:
            seen.add(found[0])
            yield found


def _of_manifest(paths: Paths, blobs: Blobs, digest: str) -> tuple[str, ImageRecord] | None:
    """None when the blob is no manifest of an image that is here whole."""
    if blobs.size(digest) > MAX_JSON:
        return None
    try:
        data = blobs.path(digest).read_bytes()
        parsed = manifest.parse(parse_json(data, digest), digest)
        config = blobs.path(parsed.config.digest).read_bytes()
        wanted = diff_ids(parse_json(config, parsed.config.digest), digest)
        text = config.decode()
    except (HawseError, FileNotFoundError, UnicodeDecodeError):
        return None
    if _digest(data) != digest or _digest(config) != parsed.config.digest:
        return None
    if len(wanted) != len(parsed.layers) or blobs.missing(layer.digest for layer in parsed.layers):
        return None
    record = ImageRecord(
        manifest=digest,
        config=text,
        layers=tuple(
            Layer(digest=blob.digest, media_type=blob.media_type, size=blob.size, diff_id=diff_id)
            for blob, diff_id in zip(parsed.layers, wanted, strict=True)
        ),
        added=time.time(),
    )
    if not _unpacked(paths, record):
        return None
    return parsed.config.digest, _measured(paths, blobs, record)


def _measured(paths: Paths, blobs: Blobs, record: ImageRecord) -> ImageRecord:
    """With the sizes that unpacking would have told."""
    measured = []
    for layer in record.layers:
        with blobs.open(layer.digest) as blob:
            _, tar_size = layers.digest_plain(blob)
        content = files.disk_usage(_directory(paths, layer), directories=False)
        measured.append(
            Layer(
                digest=layer.digest,
                media_type=layer.media_type,
                size=layer.size,
                diff_id=layer.diff_id,
                tar_size=tar_size,
                content_size=content,
            )
        )
    return ImageRecord(
        manifest=record.manifest, config=record.config, layers=tuple(measured), added=record.added
    )


def _unpacked(paths: Paths, record: ImageRecord) -> bool:
    return all(_directory(paths, layer).is_dir() for layer in record.layers)


def _directory(paths: Paths, layer: Layer) -> Path:
    return paths.layers / layer.diff_id.removeprefix("sha256:")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
