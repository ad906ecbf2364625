"""Pushes images to registries.

    layers     those that the repository lacks: taken over from another one there, or sent, some at a time
    config
    manifest   as it was pulled where that is possible, so that its digest stays

A layer that was made here is kept as a plain tar. It is compressed when it is first pushed, and from then on
kept so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.cancel import Cancel, Stopped
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.distribution.reference import Reference
from hawse_agent.distribution.registry import Client, Document, Repository, Upload
from hawse_agent.errors import InputError, NotFound
from hawse_agent.images import gzip
from hawse_agent.images.hold import Hold
from hawse_agent.images.image import Layer
from hawse_agent.images.store import Image, ImageStore

Progress = Callable[[dict[str, Any]], None]

_PIECE = 1 << 20
_PROGRESS_SECONDS = 0.1
_MOST_MOUNTS = 4
"""Repositories that are asked for a layer before it is sent."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    image: Image
    digest: str


class Pushes:
    """From one store, to all registries."""

    def __init__(self, client: Client, store: ImageStore) -> None:
        self._client = client
        self._store = store

    def push(
        self,
        name: Reference,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        cancel: Cancel | None = None,
    ) -> Pushed:
        """Raises NotFound for an image that is not here, Unauthorized, HostRefused for what the registry
        refuses or when it is out of reach, Stopped."""
        if name.digest:
            raise InputError("cannot push a digest reference")
        _begun(name, progress)
        return self._pushed(name, [name.tag], progress, credentials, cancel)[0]

    def push_all(
        self,
        name: Reference,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        cancel: Cancel | None = None,
    ) -> list[Pushed]:
        """Every tag of a repository that is here. Raises as `push`."""
        _begun(name, progress)
        here = [reference.parse(tag) for image in self._store.list() for tag in image.repo_tags]
        tags = sorted(tag.tag for tag in here if tag.name == name.name)
        if not tags:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        return self._pushed(name, tags, progress, credentials, cancel)

    def _pushed(
        self,
        name: Reference,
        tags: Sequence[str],
        progress: Progress,
        credentials: Credentials,
        cancel: Cancel | None,
    ) -> list[Pushed]:
        sources = self._sources(name)
        mounts = sorted({path for paths in sources.values() for path in paths})[:_MOST_MOUNTS]
        with (
            ExitStack() as held,
            self._client.repository(name, credentials, push=True, mounts_from=mounts) as repository,
            (cancel or Cancel()).calling(repository.stop),
        ):
            images = [held.enter_context(self._image(name, tag)) for tag in tags]
            return [
                _Push(
                    parallel=self._client.settings.parallel,
                    store=self._store,
                    repository=repository,
                    sources=sources,
                    progress=progress,
                ).run(image, tag)
                for image, tag in zip(images, tags, strict=True)
            ]

    @contextmanager
    def _image(self, name: Reference, tag: str) -> Iterator[Image]:
        """Nobody removes it meanwhile."""
        with ExitStack() as held:
            try:
                image = held.enter_context(self._store.using(f"{name.name}:{tag}"))
            except NotFound:
                shown = name.familiar_name
                raise NotFound(f"An image does not exist locally with the tag: {shown}") from None
            yield image

    def _sources(self, name: Reference) -> dict[str, list[str]]:
        """Repositories of the same registry that have a blob, by its digest: pulled from there, or pushed
        there."""
        found: dict[str, dict[str, None]] = {}
        for image in self._store.list():
            for noted in map(reference.parse, image.repo_digests):
                if noted.registry == name.registry and noted.path != name.path:
                    for layer in image.layers:
                        found.setdefault(layer.digest, {})[noted.path] = None
        return {digest: list(paths) for digest, paths in found.items()}


class _Push:
    """One image under one tag."""

    def __init__(
        self,
        *,
        parallel: int,
        store: ImageStore,
        repository: Repository,
        sources: dict[str, list[str]],
        progress: Progress,
    ) -> None:
        self._parallel = parallel
        self._store = store
        self._repository = repository
        self._sources = sources
        self._progress = progress
        self._telling = threading.Lock()

    def run(self, image: Image, tag: str) -> Pushed:
        layers = list({layer.digest: layer for layer in image.layers}.values())
        for layer in layers:
            self._tell(layer, "Preparing")
        for layer in layers[self._parallel :]:
            self._tell(layer, "Waiting")
        with self._store.hold() as hold:
            hold.add_blobs([image.id, image.manifest, *(layer.digest for layer in layers)])
            if any(_is_plain(layer) for layer in layers) and not _came_so(image):
                image = self._compressed(image, hold)
                hold.add_blobs([image.manifest, *(layer.digest for layer in image.layers)])
                layers = list({layer.digest: layer for layer in image.layers}.values())
            self._in_parallel(self._send, layers)
            self._send_blob(Descriptor(digest=image.id, size=len(image.raw)), lambda sent: None)
            data = self._store.blobs.read(image.manifest)
            document = Document(
                digest=image.manifest,
                media_type=manifest.media_type(parse_json(data, image.manifest)),
                data=data,
            )
            self._repository.put_manifest(tag, document)
            self._store.note_digest(image.id, f"{self._repository.name.name}@{image.manifest}")
        self._progress({"status": f"{tag}: digest: {image.manifest} size: {len(data)}"})
        self._progress(
            {"progressDetail": {}, "aux": {"Tag": tag, "Digest": image.manifest, "Size": len(data)}}
        )
        return Pushed(image=image, digest=image.manifest)

    # -- layers ----------------------------------------------------------------------------------

    def _send(self, layer: Layer) -> None:
        if self._repository.blob_size(layer.digest) is not None:
            self._tell(layer, "Layer already exists")
            return
        location: str | None = None
        for source in self._sources.get(layer.digest, ())[:_MOST_MOUNTS]:
            if location is not None:
                self._repository.abandon_upload(location)
            location = self._repository.begin_upload(layer.digest, source)
            if location is None:
                self._tell(layer, f"Mounted from {source}")
                return
        shown = 0.0

        def sent(here: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                self._tell(layer, "Pushing", current=here, total=layer.size)

        self._upload(layer.blob, sent, location)
        self._tell(layer, "Pushed")

    def _send_blob(self, blob: Descriptor, sent: Callable[[int], None]) -> None:
        if self._repository.blob_size(blob.digest) is None:
            self._upload(blob, sent)

    def _upload(self, blob: Descriptor, sent: Callable[[int], None], location: str | None = None) -> None:
        def pieces(offset: int) -> Iterator[bytes]:
            with self._store.blobs.open(blob.digest) as file:
                file.seek(offset)
                while piece := file.read(_PIECE):
                    yield piece
                    sent(file.tell())

        self._repository.upload(Upload(open=pieces, size=blob.size, digest=lambda: blob.digest), location)

    def _compressed(self, image: Image, hold: Hold) -> Image:
        """The same image of layers as registries have them. From now on the store keeps it so."""
        found = {layer.diff_id: layer for layer in image.layers if not _is_plain(layer)}
        plain = {layer.diff_id: layer for layer in image.layers if layer.diff_id not in found}

        def compress(layer: Layer) -> None:
            known = self._store.known_layer(layer.diff_id, hold, lambda other: not _is_plain(other))
            if known is None:
                known = self._gzip(layer, hold)
            hold.add_blobs([known.digest])
            found[layer.diff_id] = known

        self._in_parallel(compress, list(plain.values()))
        blobs = [found[diff_id].blob for diff_id in image.diff_ids]
        return self._store.create(image.raw, blobs, parent=image.parent)

    def _gzip(self, layer: Layer, hold: Hold) -> Layer:
        self._tell(layer, "Compressing")
        with self._store.blobs.open(layer.digest) as plain, self._store.held_blob_writer(hold) as writer:
            for piece in gzip.compressed(plain):
                self._repository.cancel.check()
                writer.write(piece)
        return replace(layer, digest=writer.digest, size=writer.size, media_type=manifest.OCI_LAYER_GZIP)

    def _in_parallel(self, work: Callable[[Layer], None], layers: Sequence[Layer]) -> None:
        """The first failure stops all."""
        with ThreadPoolExecutor(max_workers=self._parallel, thread_name_prefix="push") as pool:
            futures = [pool.submit(work, layer) for layer in layers]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for future in done if (error := future.exception()) is not None]
            if failed:
                self._repository.stop()
                pool.shutdown(cancel_futures=True)
                raise next((error for error in failed if not isinstance(error, Stopped)), failed[0])

    def _tell(self, layer: Layer, status: str, **detail: int) -> None:
        with self._telling:
            self._progress({"status": status, "progressDetail": detail, "id": layer.diff_id[7:19]})


def _begun(name: Reference, progress: Progress) -> None:
    """What Docker's clients hear before anything is looked at."""
    progress({"status": f"The push refers to repository [{name.name}]"})


def _came_so(image: Image) -> bool:
    """A registry has this very manifest: whoever pushes it again wants the same digest."""
    return any(reference.parse(name).digest == image.manifest for name in image.repo_digests)


def _is_plain(layer: Layer) -> bool:
    return layer.media_type.endswith(".tar")
