"""The images of a host: blobs as they came, one unpacked directory per diff_id, and names.

    blobs/sha256/<hex>    manifests, configurations, compressed layers
    layers/<hex>/         an unpacked layer, shared by every image that has it
    table                 id → record, name → id: what counts; files that it does not name are litter

An image is added in this order: unpack into incoming/, sync, rename, record. So a record never names half a
layer, and what a crash leaves is litter, swept at the next start. Removal goes the other way round.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from hawse_agent.errors import Conflict, HawseError, InputError, NotFound, ProtocolError
from hawse_agent.images import layers, manifest, reference
from hawse_agent.images.blobs import Blobs, BlobWriter, disk, parse_json
from hawse_agent.images.image import Image, ImageConfig, ImageRecord, Layer, diff_ids, image_of
from hawse_agent.images.manifest import Descriptor, Manifest
from hawse_agent.linux import libc, tree
from hawse_agent.paths import Paths
from hawse_agent.spec import codec

__all__ = ["Image", "ImageConfig", "ImageStore", "Table"]

_ID_PREFIX = re.compile(r"[0-9a-f]{1,64}")
_EMPTY_LAYER = "empty"
_UNCLAIMED_BLOB_SECONDS = 24 * 3600.0
"""A blob that no image names may belong to an upload that goes on after a restart."""


class Table(Protocol):
    """Where records and names are kept: `engine.state`."""

    def put_image(self, image_id: str, document: str) -> None: ...
    def get_image(self, image_id: str) -> str | None: ...
    def list_images(self) -> list[tuple[str, str]]: ...
    def delete_image(self, image_id: str) -> None: ...
    def put_tag(self, reference: str, image_id: str) -> None: ...
    def get_tag(self, reference: str) -> str | None: ...
    def delete_tag(self, reference: str) -> None: ...
    def list_tags(self) -> list[tuple[str, str]]: ...


InUse = Callable[[str], list[str]]
"""Ids of the containers that use an image."""

Digests = list[str]
Removed = list[dict[str, str]]
"""`[{"Untagged": "nginx:latest"}, {"Deleted": "sha256:…"}]`, as Docker answers."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    removed: Removed
    reclaimed: int
    """Bytes of the layers that went."""


class ImageStore:
    """One per daemon. Raises NotFound, Conflict, InputError for what is no image, ProtocolError for damaged
    data, OutOfSpace."""

    def __init__(self, paths: Paths, table: Table) -> None:
        self._paths = paths
        self._table = table
        self._lock = threading.RLock()
        for directory in (paths.blobs, paths.layers, paths.incoming):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.blobs = Blobs(paths)
        self._sweep()

    # -- reading ---------------------------------------------------------------------------------

    def get(self, name: str) -> Image:
        """By id, by name, or by the start of an id."""
        image_id = self._find(name)
        document = self._table.get_image(image_id) if image_id else None
        if image_id is None or document is None:
            raise NotFound(f"No such image: {_shown(name)}")
        return self._image(image_id, document, self._table.list_tags())

    def list(self) -> list[Image]:
        """The newest first."""
        tags = self._table.list_tags()
        images = [self._image(image_id, document, tags) for image_id, document in self._table.list_images()]
        return sorted(images, key=lambda image: (image.created, image.added), reverse=True)

    def layer_dirs(self, image: Image) -> tuple[Path, ...]:
        """Topmost first. A layer that occurs twice is mounted at its topmost place: overlayfs refuses two."""
        if not image.diff_ids:
            empty = self._paths.layers / _EMPTY_LAYER
            empty.mkdir(mode=0o755, exist_ok=True)
            return (empty,)
        return tuple(self._layer_path(diff_id) for diff_id in dict.fromkeys(reversed(image.diff_ids)))

    def missing_blobs(self, digests: Iterable[str]) -> Digests:
        return self.blobs.missing(digests)

    # -- adding ----------------------------------------------------------------------------------

    def blob_writer(
        self, digest: str | None = None, size: int | None = None
    ) -> AbstractContextManager[BlobWriter]:
        """A blob to be written; it is kept when the block ends well and the digest is right."""
        return self.blobs.writer(digest, size)

    def commit_manifest(self, digest: str, references: Iterable[str] = ()) -> Image:
        """Make an image of blobs that are here: unpack what is new and name it.

        An index stands for its image of this host's platform. Raises NotFound for a blob that is missing.
        """
        names = [reference.canonical(name) for name in references]
        with self._lock:
            digest, parsed = self._resolve(digest)
            missing = self.blobs.missing(
                dict.fromkeys([parsed.config.digest, *(layer.digest for layer in parsed.layers)])
            )
            if missing:
                raise NotFound(f"image {digest} cannot be made: blob {missing[0]} is not on this host")
            image_id = parsed.config.digest
            raw = self.blobs.read(image_id)
            record = self._record(digest, image_id, raw, parsed)
            with self._unpacked(record) as record:
                self._put(image_id, record)
            for name in names:
                self._table.put_tag(name, image_id)
            return self.get(image_id)

    def create(
        self, config: bytes, layer_blobs: Sequence[Descriptor], references: Iterable[str] = ()
    ) -> Image:
        """An image of a configuration and layers whose blobs are here."""
        config_digest = self.blobs.put(config)
        document = {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "config": {
                "mediaType": manifest.OCI_CONFIG,
                "digest": config_digest,
                "size": len(config),
            },
            "layers": [layer.to_json() for layer in layer_blobs],
        }
        data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        digest = self.blobs.put(data)
        try:
            return self.commit_manifest(digest, references)
        except HawseError:
            self.forget_blobs([digest, config_digest])
            raise

    def known_layer(self, diff_id: str) -> Layer | None:
        """A layer that an image already has, whatever blob it came as."""
        for record in self._records().values():
            for layer in record.layers:
                if layer.diff_id == diff_id and self.blobs.has(layer.digest):
                    return layer
        return None

    def forget_blobs(self, digests: Iterable[str]) -> None:
        """Delete those that no image names."""
        with self._lock:
            wanted = self._wanted_blobs()
            for digest in set(digests) - wanted:
                self.blobs.delete(digest)

    # -- names -----------------------------------------------------------------------------------

    def tag(self, name: str, new: str) -> None:
        parsed = reference.parse(new)
        if parsed.digest:
            raise InputError("refusing to create a tag with a digest reference")
        with self._lock:
            self._table.put_tag(parsed.canonical, self.get(name).id)

    def note_digest(self, image_id: str, name: str) -> None:
        """Remember under which digest a registry has the image: `docker.io/library/nginx@sha256:…`."""
        with self._lock:
            self._table.put_tag(reference.canonical(name), self.get(image_id).id)

    def untag(self, name: str) -> None:
        full = reference.canonical(name)
        with self._lock:
            if self._table.get_tag(full) is None:
                raise NotFound(f"No such image: {reference.familiar(name)}")
            self._table.delete_tag(full)

    # -- removing --------------------------------------------------------------------------------

    def remove(self, name: str, *, force: bool = False, in_use: InUse) -> Removed:
        """What Docker's `rmi` does: `[{"Untagged": …}, {"Deleted": …}]`.

        A name is taken away; the image goes with its last one. An image that containers use is never deleted,
        only untagged, and that only when forced.
        """
        with self._lock:
            image = self.get(name)
            users = in_use(image.id)
            tagged = _is_name_of(image, name)
            if tagged is not None:
                others = [tag for tag in image.repo_tags if tag != tagged]
                if users and not force and not others:
                    raise Conflict(
                        f"conflict: unable to remove repository reference {tagged!r} (must force) - "
                        f"container {users[0][:12]} is using its referenced image {_short(image.id)}"
                    )
                removed = self._untag_all([tagged])
                if others:
                    return removed
                removed += self._untag_all(image.repo_digests)
                return removed if users else removed + self._delete(image)
            if users and not force:
                raise Conflict(
                    f"conflict: unable to delete {_short(image.id)} (must be forced) - "
                    f"image is being used by container {users[0][:12]}"
                )
            if len({reference.parse(tag).name for tag in image.repo_tags}) > 1 and not force:
                raise Conflict(
                    f"conflict: unable to delete {_short(image.id)} (must be forced) - "
                    "image is referenced in multiple repositories"
                )
            if users and not image.repo_tags:
                raise Conflict(
                    f"conflict: unable to delete {_short(image.id)} (cannot be forced) - "
                    f"image is being used by container {users[0][:12]}"
                )
            removed = self._untag_all((*image.repo_tags, *image.repo_digests))
            return removed if users else removed + self._delete(image)

    def prune(
        self, *, in_use: InUse, every: bool = False, wanted: Callable[[Image], bool] = lambda image: True
    ) -> Pruned:
        """Remove unused images without a name, or `every` unused one."""
        removed: Removed = []
        with self._lock:
            before = self._layer_sizes()
            for image in filter(wanted, self.list()):
                if (image.repo_tags and not every) or in_use(image.id):
                    continue
                removed += self._untag_all((*image.repo_tags, *image.repo_digests))
                removed += self._delete(image)
            after = self._layer_sizes()
        gone = before.keys() - after.keys()
        return Pruned(removed=removed, reclaimed=sum(before[diff_id] for diff_id in gone))

    def _untag_all(self, names: Iterable[str]) -> Removed:
        removed: Removed = []
        for name in names:
            self._table.delete_tag(reference.canonical(name))
            removed.append({"Untagged": name})
        return removed

    def _delete(self, image: Image) -> Removed:
        self._table.delete_image(image.id)
        wanted = self._wanted_blobs()
        own = {image.id, image.manifest, *(layer.digest for layer in image.layers)}
        with disk(f"remove image {_short(image.id)}"):
            for digest in own - wanted:
                self.blobs.delete(digest)
            for diff_id in set(image.diff_ids) - self._layer_sizes().keys():
                self._discard(self._layer_path(diff_id))
        return [{"Deleted": image.id}]

    # -- making an image -------------------------------------------------------------------------

    def _resolve(self, digest: str) -> tuple[str, Manifest]:
        """The manifest of this host's platform, and its digest."""
        document = self.blobs.read_json(digest)
        for _ in range(3):  # an index may hold an index
            if not manifest.is_index(document):
                return digest, manifest.parse(document, digest)
            digest = manifest.choose(document, manifest.host_platform(), digest).digest
            document = self.blobs.read_json(digest)
        raise InputError(f"{digest} is an index in an index in an index")

    def _record(self, digest: str, image_id: str, raw: bytes, parsed: Manifest) -> ImageRecord:
        """Checked, with what other images know of the layers."""
        wanted = diff_ids(parse_json(raw, image_id), f"image {image_id}")
        if len(wanted) != len(parsed.layers):
            raise InputError(
                f"image {image_id} is no container image: "
                f"its configuration has {len(wanted)} layers, its manifest {len(parsed.layers)}"
            )
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"the configuration of {image_id} is not UTF-8") from error
        record = ImageRecord(
            manifest=digest,
            config=text,
            layers=tuple(
                Layer(digest=blob.digest, media_type=blob.media_type, size=blob.size, diff_id=diff_id)
                for blob, diff_id in zip(parsed.layers, wanted, strict=True)
            ),
            added=time.time(),
        )
        for layer in record.layers:
            self.blobs.path(layer.diff_id)  # a digest, so that it can be a name in layers/
        image_of(image_id, record, (), ())
        return record

    @contextmanager
    def _unpacked(self, record: ImageRecord) -> Iterator[ImageRecord]:
        """The record with the sizes of its layers, which are all unpacked while the block runs.

        When the block fails, those that were unpacked for it are removed again. A layer that is here already
        is taken by its diff_id; that its new blob holds the same is not looked at.
        """
        known = {layer.diff_id: layer for other in self._records().values() for layer in other.layers}
        fresh: dict[str, Path] = {}
        try:
            for layer in record.layers:
                if layer.diff_id not in known:
                    fresh[layer.diff_id] = directory = self._temporary()
                    known[layer.diff_id] = self._unpack(layer, directory)
            if fresh:
                with disk("keep layers"):
                    self._sync()
                    for diff_id, directory in fresh.items():
                        path = self._layer_path(diff_id)
                        if path.exists():
                            self._discard(path)  # litter: no record names it
                        os.rename(directory, path)
                        fresh[diff_id] = path
            yield replace(
                record,
                layers=tuple(
                    replace(
                        layer,
                        tar_size=known[layer.diff_id].tar_size,
                        content_size=known[layer.diff_id].content_size,
                    )
                    for layer in record.layers
                ),
            )
        except BaseException:
            for directory in fresh.values():
                tree.remove(directory)
            raise

    def _unpack(self, layer: Layer, directory: Path) -> Layer:
        try:
            with disk(f"unpack layer {layer.digest}"), self.blobs.open(layer.digest) as blob:
                unpacked = layers.unpack(blob, directory)
            if unpacked.diff_id != layer.diff_id:
                raise ProtocolError(f"it holds {unpacked.diff_id}, not {layer.diff_id}")
        except ProtocolError as error:
            self.blobs.verify(layer.digest)  # says so when our own copy went bad
            raise InputError(f"layer {layer.digest} is damaged: {error.message}") from error
        except InputError as error:
            raise InputError(f"layer {layer.digest}: {error.message}") from error
        return replace(layer, tar_size=unpacked.tar_size, content_size=unpacked.content_size)

    def _put(self, image_id: str, record: ImageRecord) -> None:
        """A newer record of the same image may name other blobs; the older ones then are nobody's."""
        old = self._records().get(image_id)
        self._table.put_image(image_id, codec.dumps(record))
        if old is not None:
            self.forget_blobs([old.manifest, *(layer.digest for layer in old.layers)])

    # -- internals -------------------------------------------------------------------------------

    def _find(self, name: str) -> str | None:
        digits = name.removeprefix("sha256:")
        if digits != name or re.fullmatch(r"[0-9a-f]{64}", name):
            return self._by_prefix(digits)
        return self._table.get_tag(reference.canonical(name)) or self._by_prefix(name)

    def _by_prefix(self, prefix: str) -> str | None:
        if not _ID_PREFIX.fullmatch(prefix):
            return None
        found = [image_id for image_id, _ in self._table.list_images() if image_id[7:].startswith(prefix)]
        if len(found) > 1:
            raise InputError(f"multiple IDs found with provided prefix: {prefix}")
        return found[0] if found else None

    def _image(self, image_id: str, document: str, tags: Sequence[tuple[str, str]]) -> Image:
        own = sorted(name for name, owner in tags if owner == image_id)
        return image_of(
            image_id,
            _parsed(document),
            tuple(reference.familiar(name) for name in own if "@" not in name),
            tuple(reference.familiar(name) for name in own if "@" in name),
        )

    def _records(self) -> dict[str, ImageRecord]:
        return {image_id: _parsed(document) for image_id, document in self._table.list_images()}

    def _wanted_blobs(self) -> set[str]:
        wanted: set[str] = set()
        for image_id, record in self._records().items():
            wanted |= {image_id, record.manifest, *(layer.digest for layer in record.layers)}
        return wanted

    def _layer_sizes(self) -> dict[str, int]:
        return {
            layer.diff_id: layer.content_size
            for record in self._records().values()
            for layer in record.layers
        }

    def _layer_path(self, diff_id: str) -> Path:
        return self._paths.layers / diff_id.removeprefix("sha256:")

    def _temporary(self) -> Path:
        with disk("unpack a layer"):
            directory = Path(tempfile.mkdtemp(dir=self._paths.incoming, prefix="layer-"))
            directory.chmod(0o755)  # the root of a tar that has no entry for it
        return directory

    def _discard(self, path: Path) -> None:
        """Out of its place at once, then away."""
        if path.exists():
            grave = Path(tempfile.mkdtemp(dir=self._paths.incoming, prefix="gone-"))
            path.rename(grave / path.name)
            tree.remove(grave)

    def _sync(self) -> None:
        """What was unpacked survives a power cut before a record names it."""
        fd = os.open(self._paths.layers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc.syscall("syncfs", fd, what=f"sync {self._paths.layers}")
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Litter of a crash: partial files, layers that no record names, blobs that nobody came back for."""
        with disk(f"clear {self._paths.incoming}"):
            for path in self._paths.incoming.iterdir():
                if path.is_dir() and not path.is_symlink():
                    tree.remove(path)
                else:
                    path.unlink()
            named = {self._layer_path(diff_id).name for diff_id in self._layer_sizes()}
            for path in self._paths.layers.iterdir():
                if path.name not in named and path.name != _EMPTY_LAYER:
                    self._discard(path)
            wanted, limit = self._wanted_blobs(), time.time() - _UNCLAIMED_BLOB_SECONDS
            for digest, arrived in list(self.blobs.digests()):
                if digest not in wanted and arrived < limit:
                    self.blobs.delete(digest)


@lru_cache(maxsize=512)
def _parsed(document: str) -> ImageRecord:
    return codec.loads(ImageRecord, document)


def _is_name_of(image: Image, name: str) -> str | None:
    """The tag or digest that `name` stands for; None when it is an id."""
    try:
        familiar = reference.familiar(name)
    except HawseError:
        return None
    return familiar if familiar in (*image.repo_tags, *image.repo_digests) else None


def _short(image_id: str) -> str:
    return image_id[7:19]


def _shown(name: str) -> str:
    """With the tag that was looked for."""
    try:
        return reference.familiar(name)
    except InputError:
        return name
