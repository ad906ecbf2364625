"""Images that the controller keeps to send: an OCI image layout in its data directory.

    oci-layout  index.json  blobs/sha256/<hex>  partial/<hex>

A name in index.json stands for an image, or for an index of the same image for several platforms. Blobs are
content-addressed and appear by rename, so that several processes may import at once; only index.json is
changed under a lock. What has come of a blob that is being fetched waits in partial/ for the rest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hawse_agent.distribution.manifest import Platform
from hawse_agent.distribution.reference import canonical, familiar, is_digest
from hawse_agent.errors import HostRefused, NotFound, OutOfSpace, ProtocolError
from hawse_agent.spec.host import ImageSource, ImageVariant

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
_NAME = "org.opencontainers.image.ref.name"
_PIECE = 1 << 20
_LITTER_SECONDS = 24 * 3600.0
"""A blob that no name needs may belong to an import that goes on; after a day it does not."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An image for one platform."""

    id: str
    manifest: str
    blobs: tuple[str, ...]
    size: int
    """Bytes of all its blobs, as they are sent."""
    platform: str
    """`linux/amd64`; "" where its configuration does not say."""
    created: str


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One name of an image, with what it is for each of its platforms."""

    reference: str
    variants: tuple[Variant, ...]

    def source(self) -> ImageSource:
        """What a stack says about it."""
        first, *others = self.variants
        return ImageSource(
            reference=self.reference,
            id=first.id,
            manifest=first.manifest,
            blobs=first.blobs,
            size=first.size,
            platform=first.platform,
            others=tuple(
                ImageVariant(
                    platform=other.platform,
                    id=other.id,
                    manifest=other.manifest,
                    blobs=other.blobs,
                    size=other.size,
                )
                for other in others
            ),
        )


class ImageStore:
    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_directory()
        self._lock = threading.Lock()
        self._verifying: set[str] = set()
        """What somebody in this process has begun to send."""

    # -- reading ---------------------------------------------------------------------------------

    def images(self) -> list[StoredImage]:
        return sorted((self._image(entry) for entry in self._index()), key=lambda image: image.reference)

    def find(self, reference: str) -> StoredImage | None:
        """An image by its name, short or full, or by its id."""
        if reference.startswith("sha256:"):
            ids = ((image, variant.id) for image in self.images() for variant in image.variants)
            return next((image for image, identity in ids if identity == reference), None)
        wanted = canonical(reference)
        entry = next((entry for entry in self._index() if entry["annotations"][_NAME] == wanted), None)
        return self._image(entry) if entry else None

    def named(self, reference: str) -> StoredImage:
        """The same; `NotFound` when it is not kept here."""
        image = self.find(reference)
        if image is None:
            raise NotFound(
                f"no such image here: {reference}",
                hint="hawse image pull, hawse image import, or hawse build --send",
            )
        return image

    def get(self, reference: str) -> ImageSource:
        """What a stack says about its image; `NotFound` when it is not kept here."""
        return self.named(reference).source()

    def top(self, reference: str) -> str:
        """Digest of the manifest or index that has this name; `NotFound` when it is not kept here."""
        name = self.named(reference).reference
        return next(str(entry["digest"]) for entry in self._index() if entry["annotations"][_NAME] == name)

    def layers(self) -> dict[str, dict[str, Any]]:
        """The layers of all images by what is in them: diff_id → descriptor of the blob."""
        found: dict[str, dict[str, Any]] = {}
        for image in self.images():
            for variant in image.variants:
                diff_ids = self.read_json(variant.id)["rootfs"]["diff_ids"]
                layers = self.read_json(variant.manifest)["layers"]
                known = zip(diff_ids, layers, strict=True)
                found |= {diff_id: layer for diff_id, layer in known if self.has(layer["digest"])}
        return found

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def size(self, digest: str) -> int:
        with self.open_blob(digest) as file:
            return os.fstat(file.fileno()).st_size

    def open_blob(self, digest: str) -> IO[bytes]:
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"no such blob here: {digest}", hint="import the image again") from error

    def chunks(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """What follows after `offset` bytes of a blob, in pieces. All of it is verified: a damaged one raises
        before the last piece is given."""
        seen = hashlib.sha256()
        with self.open_blob(digest) as file:
            while offset and (piece := file.read(min(_PIECE, offset))):
                seen.update(piece)
                offset -= len(piece)
            ahead = b""
            while piece := file.read(_PIECE):
                seen.update(piece)
                if ahead:
                    yield ahead
                ahead = piece
        if f"sha256:{seen.hexdigest()}" != digest:
            raise ProtocolError(f"the stored blob {digest[:19]} is damaged", hint="import the image again")
        if ahead:
            yield ahead

    def outgoing(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """The same for those who send it, verified for the first of them: each receiver verifies it, too."""
        with self._lock:
            first = digest not in self._verifying
            self._verifying.add(digest)
        if first:
            yield from self.chunks(digest, offset)
            return
        with self.open_blob(digest) as file:
            file.seek(offset)
            while piece := file.read(_PIECE):
                yield piece

    def read_json(self, digest: str) -> dict[str, Any]:
        """A manifest, an index, a configuration."""
        value: dict[str, Any] = json.loads(b"".join(self.chunks(digest)))
        return value

    # -- writing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A blob to be written; it is kept when the block ends well."""
        self._prepare()
        with self._disk():
            fd, name = tempfile.mkstemp(dir=self._partial, prefix="incoming-")
            writer = BlobWriter(os.fdopen(fd, "wb"))
            try:
                with writer.file:
                    yield writer
                    writer.file.flush()
                    os.fsync(writer.file.fileno())
                os.chmod(name, 0o644)
                os.replace(name, self._path(writer.digest))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    @contextlib.contextmanager
    def receiving(self, digest: str, size: int) -> Iterator[BlobWriter | None]:
        """The rest of a blob to be written, after what has come before (the writer's size); None when all of
        it is here.

        Waits while another process fetches the same. What has come is kept when the block fails. Raises
        ProtocolError when the whole has another digest.
        """
        self._prepare()
        path = self._partial / _file_name(digest)
        with self._disk(), self._locked(path) as file:
            if self.has(digest):
                path.unlink(missing_ok=True)
                yield None
                return
            if os.fstat(file.fileno()).st_size > size:
                file.truncate(0)  # whoever began it had something else
            writer = BlobWriter(file)
            while piece := file.read(_PIECE):
                writer.seen(piece)
            yield writer
            file.flush()
            os.fsync(file.fileno())
            if writer.size < size:
                raise ProtocolError(f"{digest} came with {writer.size} bytes, not {size}")
            if writer.digest != digest:
                path.unlink()
                raise ProtocolError(f"{digest} came damaged: its digest is {writer.digest}")
            path.chmod(0o644)
            path.replace(self._path(digest))

    def put(self, data: bytes) -> str:
        with self.writer() as writer:
            writer.write(data)
        return writer.digest

    def add(self, references: Sequence[str], config: bytes, layers: list[dict[str, Any]]) -> StoredImage:
        """Names an image of these layers, whose blobs are there; an older bearer of a name loses it."""
        return self.tag(references, self.put(self.make_manifest(config, layers)))

    def make_manifest(self, config: bytes, layers: list[dict[str, Any]]) -> bytes:
        """The manifest of an image; keeps its configuration."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": self.put(config), "size": len(config)},
            "layers": layers,
        }
        return _canonical_json(manifest)

    def add_index(self, references: Sequence[str], manifests: Mapping[str, Platform]) -> StoredImage:
        """Names an image that there is for several platforms, whose manifests and other blobs are there."""
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                {
                    "mediaType": self.read_json(digest).get("mediaType") or MANIFEST,
                    "digest": digest,
                    "size": self.size(digest),
                    "platform": _platform_json(platform),
                }
                for digest, platform in manifests.items()
            ],
        }
        return self.tag(references, self.put(_canonical_json(index)))

    def tag(self, references: Sequence[str], digest: str) -> StoredImage:
        """Gives names to a manifest or an index that is here."""
        names = [canonical(reference) for reference in references]
        document = self.read_json(digest)
        kind = str(document.get("mediaType") or (INDEX if "manifests" in document else MANIFEST))
        size = self.size(digest)
        entries = [
            {"mediaType": kind, "digest": digest, "size": size, "annotations": {_NAME: name}}
            for name in names
        ]
        image = self._image(entries[0])
        with self._changing() as index:
            index[:] = [entry for entry in index if entry["annotations"][_NAME] not in names] + entries
        return image

    def remove(self, reference: str) -> None:
        """Forgets a name, and deletes those of its blobs that no name needs any more."""
        name = canonical(reference)
        with self._changing() as index:
            entry = next((entry for entry in index if entry["annotations"][_NAME] == name), None)
            if entry is None:
                raise NotFound(f"no such image here: {familiar(name)}")
            index[:] = [other for other in index if other is not entry]
            for digest in self._blobs_of([entry]) - self._blobs_of(index):
                self._path(digest).unlink(missing_ok=True)

    def prune(self) -> int:
        """Deletes what no name needs: blobs of names that moved on, and parts that nobody came back for.
        Gives the bytes."""
        limit, freed = time.time() - _LITTER_SECONDS, 0
        with self._changing() as index:
            needed = {self._path(digest) for digest in self._blobs_of(index)}
            for path in (*self._blobs.glob("*"), *self._partial.glob("*")):
                stat = path.stat()
                if path not in needed and stat.st_mtime < limit:
                    freed += stat.st_size
                    path.unlink()
        return freed

    # -- internals -------------------------------------------------------------------------------

    @property
    def _blobs(self) -> Path:
        return self.directory / "blobs/sha256"

    @property
    def _partial(self) -> Path:
        return self.directory / "partial"

    def _path(self, digest: str) -> Path:
        return self._blobs / _file_name(digest)

    def _prepare(self) -> None:
        for directory in (self._blobs, self._partial):
            directory.mkdir(parents=True, exist_ok=True)
        layout = self.directory / "oci-layout"
        if not layout.exists():
            layout.write_text('{"imageLayoutVersion":"1.0.0"}')

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OutOfSpace(f"no space left for images in {self.directory}") from error
            raise

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[IO[bytes]]:
        """The file, ours alone; a new one where another process has taken the old one away meanwhile."""
        while True:
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    continue
                yield file
                return

    def _index(self) -> list[dict[str, Any]]:
        try:
            index = json.loads((self.directory / "index.json").read_bytes())
            entries: list[dict[str, Any]] = index["manifests"]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise HostRefused(
                f"{self.directory / 'index.json'} is damaged", hint="remove it, and import the images again"
            ) from error
        return entries

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[dict[str, Any]]]:
        """The entries of index.json, written back when the block ends well."""
        self._prepare()
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self._index()
            yield entries
            fresh = self.directory / "index.json.new"
            fresh.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}, indent=1))
            fresh.replace(self.directory / "index.json")

    def _image(self, entry: Mapping[str, Any]) -> StoredImage:
        document = self.read_json(entry["digest"])
        entries = document.get("manifests", [entry])
        return StoredImage(
            reference=entry["annotations"][_NAME], variants=tuple(self._variant(one) for one in entries)
        )

    def _variant(self, entry: Mapping[str, Any]) -> Variant:
        manifest = self.read_json(entry["digest"])
        config = self.read_json(manifest["config"]["digest"])
        parts = [entry, manifest["config"], *manifest["layers"]]
        sizes = {part["digest"]: int(part["size"]) for part in parts}
        return Variant(
            id=manifest["config"]["digest"],
            manifest=entry["digest"],
            blobs=tuple(sizes),
            size=sum(sizes.values()),
            platform=str(platform_of(config)) if config.get("architecture") else "",
            created=str(config.get("created", "")),
        )

    def _blobs_of(self, entries: Iterable[Mapping[str, Any]]) -> set[str]:
        needed: set[str] = set()
        for entry in entries:
            needed.add(entry["digest"])
            for variant in self._image(entry).variants:
                needed |= set(variant.blobs)
        return needed


def platform_of(config: Mapping[str, Any]) -> Platform:
    """What an image is for, as its configuration says it."""
    return Platform(
        os=str(config.get("os") or "linux"),
        architecture=str(config.get("architecture") or ""),
        variant=str(config.get("variant") or ""),
    )


def _platform_json(platform: Platform) -> dict[str, str]:
    named = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {key: value for key, value in named.items() if value}


def _canonical_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


class BlobWriter:
    """Hashes what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> int:
        self.seen(data)
        return self.file.write(data)

    def seen(self, data: bytes) -> None:
        """What stands in the file already."""
        self._hash.update(data)
        self.size += len(data)


def default_directory() -> Path:
    """`$HAWSE_HOME/images`, else `$XDG_DATA_HOME/hawse/images`."""
    home = os.environ.get("HAWSE_HOME")
    if home:
        return Path(home) / "images"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "hawse/images"


def _file_name(digest: str) -> str:
    """Raises ProtocolError for what would be a path."""
    if not is_digest(digest):
        raise ProtocolError(f"{digest[:80]!r} is no digest: expected sha256: and 64 digits")
    return digest.removeprefix("sha256:")
