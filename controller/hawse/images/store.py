"""Images that the controller keeps to send: an OCI image layout in its data directory.

    oci-layout  index.json  blobs/sha256/<hex>

Blobs are content-addressed and appear by rename, so that several processes may import at once; only
index.json is changed under a lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hawse_agent.distribution.reference import canonical, familiar
from hawse_agent.errors import HostRefused, NotFound, OutOfSpace, ProtocolError
from hawse_agent.spec.host import ImageSource

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
_NAME = "org.opencontainers.image.ref.name"
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One name of an image."""

    reference: str
    id: str
    manifest: str
    blobs: tuple[str, ...]
    size: int
    """Bytes of all its blobs, as they are sent."""
    architecture: str
    created: str


class ImageStore:
    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_directory()

    # -- reading ---------------------------------------------------------------------------------

    def images(self) -> list[StoredImage]:
        return sorted((self._image(entry) for entry in self._index()), key=lambda image: image.reference)

    def find(self, reference: str) -> StoredImage | None:
        """An image by its name, short or full, or by its id."""
        if reference.startswith("sha256:"):
            return next((image for image in self.images() if image.id == reference), None)
        wanted = canonical(reference)
        entry = next((entry for entry in self._index() if entry["annotations"][_NAME] == wanted), None)
        return self._image(entry) if entry else None

    def get(self, reference: str) -> ImageSource:
        """What a stack says about its image; `NotFound` when it is not kept here."""
        image = self.find(reference)
        if image is None:
            raise NotFound(f"no such image here: {reference}", hint="hawse image import")
        return ImageSource(
            reference=image.reference,
            id=image.id,
            manifest=image.manifest,
            blobs=image.blobs,
            size=image.size,
        )

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

    # -- writing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A blob to be written; it is kept when the block ends well."""
        self._prepare()
        blobs = self.directory / "blobs/sha256"
        fd, name = tempfile.mkstemp(dir=blobs, prefix=".incoming-")
        writer = BlobWriter(os.fdopen(fd, "wb"))
        try:
            with writer.file:
                yield writer
                writer.file.flush()
                os.fsync(writer.file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, self._path(writer.digest))
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                raise OutOfSpace(f"no space left for images in {self.directory}") from error
            raise
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def put(self, data: bytes) -> str:
        with self.writer() as writer:
            writer.write(data)
        return writer.digest

    def add(self, references: tuple[str, ...], config: bytes, layers: list[dict[str, Any]]) -> StoredImage:
        """Names an image of these layers, whose blobs are there; an older bearer of a name loses it."""
        config_digest = self.put(config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config_digest, "size": len(config)},
            "layers": layers,
        }
        data = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
        return self.tag(references, self.put(data), len(data))

    def tag(self, references: tuple[str, ...], manifest: str, size: int) -> StoredImage:
        names = [canonical(reference) for reference in references]
        entries = [
            {"mediaType": MANIFEST, "digest": manifest, "size": size, "annotations": {_NAME: name}}
            for name in names
        ]
        image = self._image(entries[0])
        with self._changing() as index:
            index[:] = [entry for entry in index if entry["annotations"][_NAME] not in names] + entries
        return image

    def remove(self, reference: str) -> None:
        """Forgets a name, and deletes the blobs that no name needs any more."""
        name = canonical(reference)
        with self._changing() as index:
            if all(entry["annotations"][_NAME] != name for entry in index):
                raise NotFound(f"no such image here: {familiar(name)}")
            index[:] = [entry for entry in index if entry["annotations"][_NAME] != name]
            needed = {digest for entry in index for digest in self._image(entry).blobs}
            for path in (self.directory / "blobs/sha256").glob("[0-9a-f]*"):
                if f"sha256:{path.name}" not in needed:
                    path.unlink()

    # -- internals -------------------------------------------------------------------------------

    def _path(self, digest: str) -> Path:
        return self.directory / "blobs/sha256" / digest.removeprefix("sha256:")

    def _prepare(self) -> None:
        (self.directory / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        layout = self.directory / "oci-layout"
        if not layout.exists():
            layout.write_text('{"imageLayoutVersion":"1.0.0"}')

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

    def _image(self, entry: dict[str, Any]) -> StoredImage:
        manifest = self._json(entry["digest"])
        config = self._json(manifest["config"]["digest"])
        parts = [entry, manifest["config"], *manifest["layers"]]
        sizes = {part["digest"]: int(part["size"]) for part in parts}
        return StoredImage(
            reference=entry["annotations"][_NAME],
            id=manifest["config"]["digest"],
            manifest=entry["digest"],
            blobs=tuple(sizes),
            size=sum(sizes.values()),
            architecture=str(config.get("architecture", "")),
            created=str(config.get("created", "")),
        )

    def _json(self, digest: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(b"".join(self.chunks(digest)))
        return value


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
        self._hash.update(data)
        self.size += len(data)
        return self.file.write(data)


def default_directory() -> Path:
    """`$HAWSE_HOME/images`, else `$XDG_DATA_HOME/hawse/images`."""
    home = os.environ.get("HAWSE_HOME")
    if home:
        return Path(home) / "images"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "hawse/images"
