"""Images out of tar streams: `docker load`.

    docker archive   manifest.json [{Config, RepoTags, Layers}], a file for each
    OCI layout       oci-layout, index.json, blobs/sha256/<hex>

Both are taken, compressed or not, with layers compressed or not, entries in any order. The stream is read
once, front to back. Which of its files are layers is known at its end only, so whatever looks like one is
unpacked while it arrives, and is there by its diff_id when an image asks for it. What none asks for goes.
"""

from __future__ import annotations

import functools
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.cancel import Cancel
from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.errors import HawseError, InputError, NotFound, OutOfSpace
from hawse_agent.images.arriving import Arriving
from hawse_agent.images.blobs import BlobWriter
from hawse_agent.images.compression import Readable, kind, plain
from hawse_agent.images.hold import Hold
from hawse_agent.images.image import diff_ids
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.images.tar import TarError, TarReader, is_tar

_BLOBS = "blobs/sha256/"
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAX_FILES = 1 << 16
_MAX_NAME = 1 << 10
_MAX_NAMES = 8 << 20
"""Bytes of all names of files, which are kept until the end."""
_PIECE = 1 << 20
_START = 512
_WORKERS = 2


def load(stream: Readable, store: ImageStore) -> list[Image]:
    """Make the images of an archive; each comes with the names alone that it has there. What fails leaves no
    blob behind.

    Raises InputError for what is no archive of images, ProtocolError for damaged data, OutOfSpace.
    """
    with store.hold() as hold, _Archive(store, hold) as archive:
        archive.receive(stream)
        if "manifest.json" in archive.files:
            return list(_docker_images(archive, store, hold))
        if "index.json" in archive.files:
            return list(_oci_images(archive, store))
        raise InputError(
            "this is no archive of images: it has neither manifest.json nor index.json",
            hint="a root directory becomes an image by import",
        )


def told(image: Image) -> str:
    """What `docker load` shows of it."""
    if not image.repo_tags:
        return f"Loaded image ID: {image.id}"
    return "\n".join(f"Loaded image: {tag}" for tag in image.repo_tags)


class _Archive:
    """The files of an archive, each kept as a blob in the hold."""

    def __init__(self, store: ImageStore, hold: Hold) -> None:
        self._store = store
        self._hold = hold
        self._links: dict[str, str] = {}
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="load")
        self._ahead: list[Future[object]] = []
        self._cancel = Cancel()
        self.files: dict[str, str] = {}

    def __enter__(self) -> _Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._cancel()
        self._workers.shutdown(cancel_futures=error is not None)

    def receive(self, stream: Readable) -> None:
        reader = TarReader(plain(stream))
        names = 0
        try:
            for entry in reader:
                name = _bounded(entry.name)
                if entry.kind == "symlink":
                    self._links[name] = _bounded(posixpath.join("/", posixpath.dirname(name), entry.link))
                elif entry.kind == "hardlink":
                    self._links[name] = _bounded(entry.link)
                elif entry.kind == "file":
                    if entry.segments is not None:
                        raise InputError(f"{name} in the archive is a sparse file")
                    self._receive_file(name, entry.size, reader)
                names += len(name) + len(self._links.get(name, ""))
                if len(self.files) + len(self._links) > _MAX_FILES or names > _MAX_NAMES:
                    raise InputError(
                        f"the archive has more than {_MAX_FILES} files, or {_MAX_NAMES >> 20} MB of names: "
                        "no archive of images"
                    )
            reader.drain()
        except (TarError, EOFError) as error:
            raise InputError(f"this is no whole archive of images: {error}") from error
        for future in self._ahead:
            future.result()

    def digest(self, name: str) -> str:
        name = posixpath.normpath(name)
        name = self._links.get(name, name)  # an older docker save links layers that repeat
        try:
            return self.files[name]
        except KeyError:
            raise InputError(f"{name} is missing in the archive") from None

    def read(self, name: str) -> bytes:
        return self._store.blobs.read(self.digest(name))

    def _receive_file(self, name: str, size: int, reader: TarReader) -> None:
        digits = name.removeprefix(_BLOBS)
        announced = f"sha256:{digits}" if digits != name else None
        if announced is not None and self._store.hold_present(announced, self._hold):
            self.files[name] = announced  # of what is here already nothing is read
            return
        pieces = reader.data()
        start = _first(pieces, _START)
        with ExitStack() as receiving:
            writer = receiving.enter_context(self._store.blob_writer(announced, size))
            arriving = self._unpack_ahead(start, size, writer)
            if arriving is not None:
                receiving.push(_failing(arriving))
            writer.write(start)
            for piece in pieces:
                writer.write(piece)
                if arriving is not None:
                    arriving.advance(writer.size)
            self._store.hold_blob(writer.digest, self._hold)
        if arriving is not None:
            arriving.finish(functools.partial(self._store.blobs.open, writer.digest))
        self.files[name] = writer.digest

    def _unpack_ahead(self, start: bytes, size: int, writer: BlobWriter) -> Arriving | None:
        """Begins with what may be a layer, unless it is likely to be one that is here."""
        if not (kind(start) or is_tar(start)) or self._store.may_have(size):
            return None
        media_type = _media_type(kind(start))
        arriving = Arriving(size)
        arriving.begun(writer.reopen(), 0)

        def unpack() -> None:
            def digest() -> str:
                arriving.wait(self._cancel)
                return writer.digest

            try:
                with arriving.reader(self._cancel) as reader:
                    self._store.unpack_unnamed(reader, size, media_type, digest, self._hold)
            except OutOfSpace:
                raise
            except HawseError:
                # No layer then; if an image says that it is one, it is unpacked again, and that says why.
                return

        self._ahead.append(self._workers.submit(unpack))
        return arriving


def _bounded(name: str) -> str:
    """Of a file in the archive, from its top."""
    if len(name) > _MAX_NAME:
        raise InputError(f"{name[:60]}…: no archive of images has names of more than {_MAX_NAME} characters")
    return posixpath.normpath(name.lstrip("/"))


def _first(pieces: Iterator[bytes], size: int) -> bytes:
    start = b""
    while len(start) < size and (piece := next(pieces, b"")):
        start += piece
    return start


def _failing(arriving: Arriving) -> Any:
    """For an ExitStack: who reads it is told when it does not come."""

    def left(kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            arriving.fail(InputError("the archive ends too early"))

    return left


# -- what is in it -------------------------------------------------------------------------------


def _docker_images(archive: _Archive, store: ImageStore, hold: Hold) -> Iterator[Image]:
    try:
        entries = json.loads(archive.read("manifest.json"))
    except ValueError as error:
        raise InputError(f"manifest.json is not JSON: {error}") from error
    except RecursionError as error:
        raise InputError("manifest.json is nested too deeply") from error
    if not isinstance(entries, list) or not entries:
        raise InputError("manifest.json names no image")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise InputError("manifest.json is damaged")
        names, tags = entry.get("Layers") or [], entry.get("RepoTags") or []
        if not _are_texts(names) or not _are_texts(tags):
            raise InputError("manifest.json is damaged: Layers and RepoTags are lists of texts")
        _check_names(tags)
        config = archive.read(entry["Config"])
        wanted = diff_ids(parse_json(config, entry["Config"]), entry["Config"])
        if len(names) != len(wanted):
            raise InputError(f"{entry['Config']} has {len(wanted)} layers, manifest.json {len(names)}")
        blobs = [
            _layer(archive, store, hold, name, diff_id) for name, diff_id in zip(names, wanted, strict=True)
        ]
        yield _named(store.create(config, blobs, tags), tags)


def _check_names(names: Iterable[str]) -> None:
    """Whoever made the archive may say what its images are called here, but not what a registry has under a
    digest: that is only noted when it was seen there."""
    for name in names:
        if reference.parse(name).digest:
            raise InputError(f"invalid tag {name!r}: an archive names images NAME:TAG, never by a digest")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _layer(archive: _Archive, store: ImageStore, hold: Hold, name: str, diff_id: str) -> Descriptor:
    """The blob that the host already has of this layer, else the archive's."""
    known = store.known_layer(diff_id, hold)
    if known is not None:
        return known.blob
    return described(store, hold, archive.digest(name))


def described(store: ImageStore, hold: Hold, digest: str) -> Descriptor:
    """A layer's blob, its media type by what is in it. Of what is compressed in a way that has none an
    uncompressed blob is made."""
    with store.blobs.open(digest) as blob:
        media_type = _media_type(kind(blob.read(6)))
        if not media_type:
            blob.seek(0)
            inside = plain(blob)
            with store.blob_writer() as writer:
                while piece := inside.read(_PIECE):
                    writer.write(piece)
                store.hold_blob(writer.digest, hold)
            digest, media_type = writer.digest, manifest.OCI_LAYER
    return Descriptor(digest=digest, size=store.blobs.size(digest), media_type=media_type)


def _media_type(compression: str) -> str:
    """Of bzip2 and xz: ""."""
    if compression in ("bzip2", "xz"):
        return ""
    return f"{manifest.OCI_LAYER}+{compression}" if compression else manifest.OCI_LAYER


def _oci_images(archive: _Archive, store: ImageStore) -> Iterator[Image]:
    index = parse_json(archive.read("index.json"), "index.json")
    entries = index.get("manifests") or []
    if not isinstance(entries, list):
        raise InputError("index.json is damaged: manifests is no list")
    entries = [entry for entry in entries if isinstance(entry, dict)]
    fitting = [entry for entry in entries if manifest.fits(entry, manifest.host_platform())]
    if not fitting:
        raise NotFound(f"the archive has no image for {manifest.host_platform()}")
    names: dict[str, list[str]] = {}
    for entry in fitting:
        digest = manifest.descriptor(entry, "index.json").digest
        names.setdefault(digest, []).extend(found := _names(entry))
        _check_names(found)
    for digest, references in names.items():
        yield _named(store.commit_manifest(digest, references), references)


def _named(image: Image, names: Iterable[str]) -> Image:
    return replace(image, repo_tags=tuple(dict.fromkeys(map(reference.familiar, names))))


def _names(entry: Mapping[str, Any]) -> Sequence[str]:
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return []
    found = [annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)]
    return [str(name) for name in found[:1]]
