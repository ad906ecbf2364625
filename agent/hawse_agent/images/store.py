"""The images of a host: blobs as they came, one unpacked directory per diff_id, and names.

    blobs/sha256/<hex>    manifests, configurations, compressed layers
    layers/<hex>/         an unpacked layer, shared by every image that has it
    table                 id → record, name → id: what counts; files that it does not name are litter

An image is added in this order: unpack into incoming/, rename, sync, record. So a record never names half a
layer, and what a crash leaves is litter, swept at the next start. Removal goes the other way round. Many may
add at a time: each holds what it needs (`hold`), and a layer is unpacked by one of them.

A layer that was made here, by commit or a build, is kept as an uncompressed tar beside its directory. Making
the tar anew from the directory whenever it is wanted would save that space; but then the identity of an image
would rest on every later agent writing the same bytes, and push, save and transfer would each walk the tree.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.documents import parse_json, sha256
from hawse_agent.distribution.manifest import Descriptor, Manifest
from hawse_agent.errors import Conflict, HawseError, InputError, NotFound, ProtocolError
from hawse_agent.failpoints import reach
from hawse_agent.images import layers
from hawse_agent.images.blobs import Blobs, BlobWriter, disk
from hawse_agent.images.compression import Readable
from hawse_agent.images.directories import LayerDirectories
from hawse_agent.images.hold import Hold
from hawse_agent.images.image import Image, ImageConfig, ImageRecord, Layer, diff_ids, image_of
from hawse_agent.images.pack import Packed
from hawse_agent.images.partial import Partials
from hawse_agent.images.turns import Turns
from hawse_agent.linux import tree
from hawse_agent.paths import Paths
from hawse_agent.spec import codec

__all__ = ["Image", "ImageConfig", "ImageStore", "Table"]

_ID_PREFIX = re.compile(r"[0-9a-f]{1,64}")
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
    def keep_layers(self, holder: str, layers: Sequence[tuple[str, str]]) -> None: ...
    def drop_layers(self, holder: str) -> None: ...
    def kept_layers(self) -> list[tuple[str, str]]: ...


class Incoming(Protocol):
    """A blob that is read while it comes."""

    def reader(self) -> AbstractContextManager[Readable]: ...
    def wait(self) -> None:
        """Until it is whole and verified."""


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
        self.partials = Partials(paths, self.blobs)
        self._directories = LayerDirectories(paths)
        self._holds: list[Hold] = []
        self._in_hand: Counter[str] = Counter()
        """Images that something is being made of, by id."""
        self._unpacking = Turns()
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
            return (self._directories.empty(),)
        return tuple(self._directories.path(diff_id) for diff_id in dict.fromkeys(reversed(image.diff_ids)))

    def missing_blobs(self, digests: Iterable[str]) -> Digests:
        return self.blobs.missing(digests)

    # -- adding ----------------------------------------------------------------------------------

    def blob_writer(
        self, digest: str | None = None, size: int | None = None
    ) -> AbstractContextManager[BlobWriter]:
        """A blob to be written; it is kept when the block ends well and the digest is right."""
        return self.blobs.writer(digest, size)

    @contextmanager
    def held_blob_writer(self, hold: Hold) -> Iterator[BlobWriter]:
        """A blob that stays as long as the hold, or an image that is made of it meanwhile."""
        with self.blobs.writer() as writer:
            yield writer
            self.hold_blob(writer.digest, hold)

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """While the block runs nothing of what is in the hold is collected."""
        hold = Hold(self._lock)
        with self._lock:
            self._holds.append(hold)
        try:
            yield hold
        finally:
            self._end(hold)

    def hold_blob(self, digest: str, hold: Hold) -> None:
        """It is about to appear, and goes with the hold unless somebody names it by then."""
        with self._lock:
            hold.add_blobs([digest], fresh=not self.blobs.has(digest))

    def hold_present(self, digest: str, hold: Hold) -> bool:
        """Whether the blob is here, held then."""
        with self._lock:
            if not self.blobs.has(digest):
                return False
            hold.add_blobs([digest])
            return True

    @contextmanager
    def using(self, name: str) -> Iterator[Image]:
        """The image of that name: while the block runs nobody removes it, nor a blob of it, even if another
        takes the blob's place. Raises NotFound."""
        with self.hold() as hold:
            with self._lock:
                image = self.get(name)
                self._in_hand[image.id] += 1
                hold.add_blobs([image.id, image.manifest, *(layer.digest for layer in image.layers)])
                self.touch(image.id)
            try:
                yield image
            finally:
                with self._lock:
                    self._in_hand[image.id] -= 1

    def touch(self, image_id: str) -> None:
        """It is used now. The time is kept at its configuration, where no record has to be written for it."""
        with suppress(FileNotFoundError):  # it has gone
            os.utime(self.blobs.path(image_id))

    def last_used(self, image_id: str) -> float:
        """0 when it is not here."""
        try:
            return self.blobs.path(image_id).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def commit_manifest(self, digest: str, references: Iterable[str] = (), *, parent: str = "") -> Image:
        """Make an image of blobs that are here: unpack what is new and name it.

        An index stands for its image of this host's platform. `parent`: the image that it was made from on
        this host. Raises NotFound for a blob that is missing.
        """
        names = [reference.canonical(name) for name in references]
        with self.hold() as hold:
            digest, parsed = self._resolve(digest, hold)
            wanted = dict.fromkeys([parsed.config.digest, *(layer.digest for layer in parsed.layers)])
            hold.add_blobs(wanted)
            missing = self.blobs.missing(wanted)
            if missing:
                raise NotFound(f"image {digest} cannot be made: blob {missing[0]} is not on this host")
            image_id = parsed.config.digest
            record = self._record(digest, image_id, self.blobs.read(image_id), parsed)
            unpacked = tuple(self._unpacked(layer, hold) for layer in record.layers)
            reach("image: sync")
            self._settle()
            with self._lock:
                reach("image: record")
                self._put(image_id, replace(record, layers=unpacked, parent=parent))
                reach("image: names")
                for name in names:
                    self._table.put_tag(name, image_id)
                self.touch(image_id)
                return self.get(image_id)

    def unpack(self, layer: Layer, hold: Hold, incoming: Incoming | None = None) -> Layer:
        """The layer with its sizes, unpacked and held: of its blob, or while that comes.

        Raises InputError for what is no layer, what `incoming` raises, OutOfSpace.
        """
        return self._unpacked(layer, hold, incoming)

    def unpack_unnamed(
        self, blob: Readable, size: int, media_type: str, digest: Callable[[], str], hold: Hold
    ) -> Layer:
        """A layer of whatever diff_id it turns out to have, unpacked and held. `size`, `media_type` and
        `digest` are the blob's; the last is asked for once it was read. A blob without a media type is none
        that an image may have. Raises as `unpack`."""
        with self._to_fill() as directory:
            with disk("unpack a layer"):
                unpacked = layers.unpack(blob, directory, digest=digest)
            layer = Layer(
                digest=digest(),
                media_type=media_type,
                size=size,
                diff_id=unpacked.diff_id,
                tar_size=unpacked.tar_size,
                content_size=unpacked.content_size,
            )
            with self._unpacking.turn(layer.diff_id):
                if self._known(layer, hold) is None:
                    self._publish(directory, layer, hold)
                else:
                    hold.add_layer(layer)
        return layer

    def may_have(self, size: int) -> bool:
        """Whether there is a layer whose blob, or whose tar, has that size."""
        with self._lock:
            return any(size in (layer.size, layer.tar_size) for layer in self._named_layers())

    def create(
        self,
        config: bytes,
        layer_blobs: Sequence[Descriptor],
        references: Iterable[str] = (),
        *,
        parent: str = "",
    ) -> Image:
        """An image of a configuration and layers whose blobs are here (`Layer.blob`)."""
        config_digest = sha256(config)
        document = {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "config": {
                "mediaType": manifest.OCI_CONFIG,
                "digest": config_digest,
                "size": len(config),
            },
            "layers": [manifest.as_oci(layer).to_json() for layer in layer_blobs],
        }
        data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        with self.hold() as hold:
            for blob in (config, data):
                self._put_blob(blob, hold)
            return self.commit_manifest(sha256(data), references, parent=parent)

    def add_layer(self, upper: Path, hold: Hold, *, take: bool = False) -> Layer:
        """A layer of what an overlay's upper directory has. It stays as long as the hold, an image that is
        made of it meanwhile, or `keep_layers` needs it.

        `take`: the directory itself becomes the layer's. It must lie on the store's file system, nobody may
        use it any more, and it is gone afterwards. Otherwise it is only read, and copied. Raises HostRefused
        for a file that no layer can hold, OutOfSpace.
        """
        packed = Packed(upper)
        with disk(f"read {upper}"), self.blob_writer() as writer:
            for piece in packed:
                writer.write(piece)
            diff_id = writer.digest
            reach("layer: blob")
            self.hold_blob(diff_id, hold)
        layer = Layer(
            digest=diff_id,
            media_type=manifest.OCI_LAYER,
            size=writer.size,
            diff_id=diff_id,
            tar_size=writer.size,
            content_size=packed.content_size,
        )
        if not take:
            return self._unpacked(layer, hold)
        with self._unpacking.turn(diff_id):
            if (known := self._known(layer, hold)) is None:
                with self._lock:
                    reach("layer: rename")
                    self._directories.publish(upper, diff_id)
                    hold.add_layer(layer)
                return layer
        with disk(f"remove {upper}"):
            tree.remove(upper)
        return known

    def disk_usage(self, layers: Sequence[Layer]) -> int:
        """Bytes that they take on the disk, as du counts: blobs and directories, each once."""
        directories = {layer.diff_id for layer in layers}
        blobs = {layer.digest for layer in layers}
        return sum(map(self._directories.disk_usage, directories)) + sum(map(self.blobs.disk_usage, blobs))

    def documents_usage(self) -> int:
        """Likewise, of all manifests and configurations."""
        records = self._records().items()
        documents = {digest for image_id, record in records for digest in (image_id, record.manifest)}
        return sum(map(self.blobs.disk_usage, documents))

    def known_layer(
        self, diff_id: str, hold: Hold, wanted: Callable[[Layer], bool] = lambda layer: True
    ) -> Layer | None:
        """A layer that somebody has already, whatever blob it came as; held then."""
        with self._lock:
            known = next(
                (
                    layer
                    for layer in self._named_layers()
                    if layer.diff_id == diff_id and layer.media_type and wanted(layer)
                    if self.blobs.has(layer.digest)
                ),
                None,
            )
            if known is not None:
                hold.add_layer(known)
            return known

    # -- layers that are kept without an image -------------------------------------------------------

    def keep_layers(self, holder: str, layers: Iterable[Layer]) -> None:
        """They are not collected until `drop_layers` of the same holder, over restarts too: the cache of
        builds. Replaces what the holder had."""
        self._settle()
        with self._lock:
            before = [layer for name, layer in self._kept_layers() if name == holder]
            self._table.keep_layers(holder, [(layer.diff_id, codec.dumps(layer)) for layer in layers])
            graves = self._collect({layer.digest for layer in before}, {layer.diff_id for layer in before})
        self._bury(graves)

    def drop_layers(self, holder: str) -> None:
        """What nobody else names goes."""
        with self._lock:
            dropped = [layer for name, layer in self._kept_layers() if name == holder]
            self._table.drop_layers(holder)
            graves = self._collect({layer.digest for layer in dropped}, {layer.diff_id for layer in dropped})
        self._bury(graves)

    def kept_layers(self) -> dict[str, Sequence[Layer]]:
        """By holder."""
        found: dict[str, list[Layer]] = {}
        for holder, layer in self._kept_layers():
            found.setdefault(holder, []).append(layer)
        return dict(found)

    # -- blobs ------------------------------------------------------------------------------------

    def forget_blobs(self, digests: Iterable[str]) -> None:
        """Delete those that no image names."""
        with self._lock:
            self._drop_blobs(set(digests))

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

    def remove(
        self,
        name: str,
        *,
        force: bool = False,
        parents: bool = True,
        in_use: InUse,
        running: Callable[[str], bool] = lambda container: False,
    ) -> Removed:
        """What Docker's `rmi` does: `[{"Untagged": …}, {"Deleted": …}]`.

        A name is taken away; the image goes with its last one, and so do `parents` that nothing else needs.
        An image that containers use, or that others were made from, is never deleted, only untagged; one that
        `running` ones use not even by its id.
        """
        with self._lock:
            image = self.get(name)
            users, in_hand = in_use(image.id), bool(self._in_hand[image.id])
            tagged = _is_name_of(image, name)
            others = [tag for tag in image.repo_tags if tag != tagged]
            if in_hand and (tagged is None or not (others or force)):
                raise Conflict(
                    f"conflict: unable to delete {_short(image.id)} (cannot be forced) - "
                    "something is being made of the image, or it is being read"
                )
            if tagged is not None:
                if users and not force and not others:
                    raise Conflict(
                        f'conflict: unable to remove repository reference "{tagged}" (must force) - '
                        f"container {users[0][:12]} is using its referenced image {_short(image.id)}"
                    )
                removed = self._untag_all([tagged])
                repository = reference.parse(tagged).name
                left = (*others, *(digest for digest in image.repo_digests if digest != tagged))
                if not any(reference.parse(tag).name == repository for tag in others):
                    of_it = [name for name in left if reference.parse(name).name == repository]
                    removed += self._untag_all(of_it)
                    left = tuple(name for name in left if name not in of_it)
                if left or users or in_hand or self._children(image.id):
                    return removed
            else:
                self._check_removable(image, users, force=force, running=running)
                removed = self._untag_all((*image.repo_tags, *image.repo_digests))
                if users:
                    return removed
            removed += self._delete(image)
            return removed + (self._delete_parents(image.parent, in_use) if parents else [])

    def _check_removable(
        self, image: Image, users: Sequence[str], *, force: bool, running: Callable[[str], bool]
    ) -> None:
        """By its id. Raises Conflict in Docker's words."""

        def conflict(how: str, why: str) -> Conflict:
            return Conflict(f"conflict: unable to delete {_short(image.id)} ({how}) - {why}")

        if self._children(image.id):
            raise conflict("cannot be forced", "image has dependent child images")
        for user in users:
            if running(user):
                raise conflict("cannot be forced", f"image is being used by running container {user[:12]}")
        if len({reference.parse(tag).name for tag in image.repo_tags}) > 1 and not force:
            raise conflict("must be forced", "image is referenced in multiple repositories")
        if users and not force:
            raise conflict("must be forced", f"image is being used by stopped container {users[0][:12]}")
        if users and not image.repo_tags:
            raise conflict("cannot be forced", f"image is being used by stopped container {users[0][:12]}")

    def prune(
        self, *, in_use: InUse, every: bool = False, wanted: Callable[[Image], bool] = lambda image: True
    ) -> Pruned:
        """Remove unused images without a name, or `every` unused one; none that others were made from."""
        removed: Removed = []
        with self._lock:
            before = self._layer_sizes()
            for image in filter(wanted, self.list()):
                if (image.repo_tags and not every) or self._children(image.id):
                    continue
                if in_use(image.id) or self._in_hand[image.id]:
                    continue
                removed += self._untag_all((*image.repo_tags, *image.repo_digests))
                removed += self._delete(image)
            after = self._layer_sizes()
        gone = before.keys() - after.keys()
        return Pruned(removed=removed, reclaimed=sum(before[diff_id] for diff_id in gone))

    def parents(self) -> set[str]:
        """Ids of images that others were made from."""
        return {record.parent for record in self._records().values() if record.parent}

    def _children(self, image_id: str) -> bool:
        return image_id in self.parents()

    def _delete_parents(self, image_id: str, in_use: InUse) -> Removed:
        """As far as they have no name, no child and no container."""
        document = self._table.get_image(image_id) if image_id else None
        if document is None:
            return []
        image = self._image(image_id, document, self._table.list_tags())
        if image.repo_tags or image.repo_digests or self._children(image_id):
            return []
        if in_use(image_id) or self._in_hand[image_id]:
            return []
        return self._delete(image) + self._delete_parents(image.parent, in_use)

    def _untag_all(self, names: Iterable[str]) -> Removed:
        removed: Removed = []
        reach("rmi: names")
        for name in names:
            self._table.delete_tag(reference.canonical(name))
            removed.append({"Untagged": name})
        return removed

    def _delete(self, image: Image) -> Removed:
        reach("rmi: record")
        self._table.delete_image(image.id)
        with disk(f"remove image {_short(image.id)}"):
            own = {image.id, image.manifest, *(layer.digest for layer in image.layers)}
            self._bury(self._collect(own, set(image.diff_ids)))
        return [{"Deleted": image.id}]

    def _collect(self, blobs: set[str], diff_ids: set[str]) -> Sequence[Path]:
        """Those that nobody names; returns what remains to be buried. Under the lock."""
        reach("rmi: blobs")
        self._drop_blobs(blobs)
        reach("rmi: layers")
        gone = diff_ids - {layer.diff_id for layer in self._named_layers()}
        return [self._directories.take_away(diff_id) for diff_id in sorted(gone)]

    def _drop_blobs(self, digests: set[str]) -> None:
        """Those that are held alone go with the last hold."""
        for digest in digests - self._named_blobs():
            holders = [hold for hold in self._holds if digest in hold.blobs]
            for hold in holders:
                hold.fresh.add(digest)
            if not holders:
                self.blobs.delete(digest)

    def _bury(self, graves: Sequence[Path]) -> None:
        reach("rmi: files")
        with disk("remove layers"):
            self._directories.bury(graves)

    # -- making an image -------------------------------------------------------------------------

    def _resolve(self, digest: str, hold: Hold) -> tuple[str, Manifest]:
        """The manifest of this host's platform, and its digest."""
        hold.add_blobs([digest])
        document = self.blobs.read_json(digest)
        for _ in range(3):  # an index may hold an index
            if not manifest.is_index(document):
                return digest, manifest.parse(document, digest)
            digest = manifest.choose(document, manifest.host_platform(), digest).digest
            hold.add_blobs([digest])
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
        for blob in (parsed.config, *parsed.layers):
            if blob.size != (size := self.blobs.size(blob.digest)):
                raise InputError(
                    f"image {image_id}: {blob.digest} has {size} bytes, its manifest says {blob.size}"
                )
        for layer in record.layers:
            self.blobs.path(layer.diff_id)  # a digest, so that it can be a name in layers/
        image_of(image_id, record, (), ())
        return record

    def _unpacked(self, layer: Layer, hold: Hold, incoming: Incoming | None = None) -> Layer:
        """The layer with its sizes, unpacked and held. Of one that is here already the new blob is only seen
        to hold the same: whoever gets that layer from us may get it of this blob."""
        with self._unpacking.turn(layer.diff_id):
            known = self._known(layer, hold)
            if known is None:
                with self._to_fill() as directory:
                    known = self._read(layer, incoming, partial(layers.unpack, directory=directory))
                    self._publish(directory, known, hold)
            elif known.digest != layer.digest:
                if layer.digest != layer.diff_id:
                    self._read(layer, incoming, partial(layers.inflate, known=known))
                elif incoming:
                    incoming.wait()
                known = replace(layer, tar_size=known.tar_size, content_size=known.content_size)
                hold.add_layer(known)
        return replace(layer, tar_size=known.tar_size, content_size=known.content_size)

    def _to_fill(self) -> AbstractContextManager[Path]:
        reach("image: unpack")
        return self._directories.fresh()

    def _publish(self, directory: Path, layer: Layer, hold: Hold) -> None:
        with self._lock:
            reach("image: rename")
            self._directories.publish(directory, layer.diff_id)
            hold.add_layer(layer)

    def _known(self, layer: Layer, hold: Hold) -> Layer | None:
        """The layer that somebody has, if possible of the same blob; the hold has it as well then."""
        with self._lock:
            same = [known for known in self._named_layers() if known.diff_id == layer.diff_id]
            if not same:
                return None
            known = next((known for known in same if known.digest == layer.digest), same[0])
            hold.add_layer(known)
            return known

    def _read(
        self, layer: Layer, incoming: Incoming | None, read: Callable[[Readable], layers.Unpacked]
    ) -> Layer:
        source = incoming.reader() if incoming else self.blobs.open(layer.digest)
        try:
            with disk(f"unpack layer {layer.digest}"), source as blob:
                unpacked = read(blob)
            if incoming:
                incoming.wait()
            if unpacked.diff_id != layer.diff_id:
                raise ProtocolError(f"it holds {unpacked.diff_id}, not {layer.diff_id}")
        except ProtocolError as error:
            if incoming:
                incoming.wait()  # says so when wrong bytes came
            else:
                self.blobs.verify(layer.digest)  # says so when our own copy went bad
            raise InputError(f"layer {layer.digest} is damaged: {error.message}") from error
        except InputError as error:
            raise InputError(f"layer {layer.digest}: {error.message}") from error
        return replace(layer, tar_size=unpacked.tar_size, content_size=unpacked.content_size)

    def _put(self, image_id: str, record: ImageRecord) -> None:
        """A newer record of the same image may name other blobs; the older ones then are nobody's."""
        old = self._records().get(image_id)
        if old is not None and not record.parent:
            record = replace(record, parent=old.parent)
        self._table.put_image(image_id, codec.dumps(record))
        if old is not None:
            self.forget_blobs([old.manifest, *(layer.digest for layer in old.layers)])

    def _settle(self) -> None:
        """What was added survives a power cut: a record may name it now."""
        self.blobs.sync(by=self._directories.sync)

    def _put_blob(self, data: bytes, hold: Hold) -> None:
        with self.blob_writer(sha256(data)) as writer:
            writer.write(data)
            self.hold_blob(writer.digest, hold)

    def _end(self, hold: Hold) -> None:
        with self._lock:
            self._holds.remove(hold)
            if not hold.fresh and not hold.layers:
                return
            graves = self._collect(hold.fresh, {diff_id for diff_id, _ in hold.layers})
        self._bury(graves)

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

    def _kept_layers(self) -> Sequence[tuple[str, Layer]]:
        return [(holder, codec.loads(Layer, text)) for holder, text in self._table.kept_layers()]

    def _named_layers(self) -> Iterator[Layer]:
        """All that is not to be collected."""
        for record in self._records().values():
            yield from record.layers
        for hold in self._holds:
            yield from hold.layers.values()
        for _, layer in self._kept_layers():
            yield layer

    def _named_blobs(self) -> set[str]:
        """Of images and of layers that are kept."""
        named = {layer.digest for _, layer in self._kept_layers()}
        for image_id, record in self._records().items():
            named |= {image_id, record.manifest, *(layer.digest for layer in record.layers)}
        return named

    def _layer_sizes(self) -> dict[str, int]:
        return {layer.diff_id: layer.content_size for layer in self._named_layers()}

    def _sweep(self) -> None:
        """Litter of a crash: partial files, layers that no record names, blobs that nobody came back for."""
        self._directories.sweep(self._layer_sizes().keys())
        with disk("clear the blobs"):
            self.blobs.sweep(self._named_blobs(), time.time() - _UNCLAIMED_BLOB_SECONDS)


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
