"""Pulls images from registries.

    manifest, or index → manifest of the platform      each verified by its digest
    configuration                                       tells the layers' diff_ids
    layers, some at a time                              unpacked while they arrive, resumed where they were
    cut commit_manifest                                     the record and the name

A blob comes once, however many pulls want it; a layer is unpacked once. Neither is used before every byte of
it is verified.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

from hawse_agent.distribution import manifest
from hawse_agent.distribution.cancel import Cancel, Stopped
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.manifest import Descriptor, Platform
from hawse_agent.distribution.reference import Reference
from hawse_agent.distribution.registry import Client, Found, Repository
from hawse_agent.errors import (
    Conflict,
    HawseError,
    HostRefused,
    InputError,
    NotFound,
    NotSupported,
    OutOfSpace,
    ProtocolError,
)
from hawse_agent.images.arriving import Abandoned, Arrivals, Arriving, Heard
from hawse_agent.images.hold import Hold
from hawse_agent.images.image import Layer, diff_ids
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.linux import zstd

Progress = Callable[[dict[str, Any]], None]
"""Hears what Docker's clients expect. What it raises ends the pull."""

_PROGRESS_SECONDS = 0.1
_UNPACKING = 2
"""Layers that are unpacked at a time, of all pulls."""


class Pulls:
    """Of one store, from all registries."""

    def __init__(self, client: Client, store: ImageStore) -> None:
        self._client = client
        self._store = store
        self._arrivals = Arrivals()
        self._turn = threading.Semaphore(_UNPACKING)

    def pull(
        self,
        name: Reference,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        platform: str = "",
        cancel: Cancel | None = None,
    ) -> Image:
        """Make the image present under its name.

        Raises NotFound for what the registry does not have or does not show, HostRefused when it cannot be
        reached, NotSupported and InputError for what is no image for us, ProtocolError for damaged data,
        OutOfSpace, Stopped.
        """
        wanted = manifest.parse_platform(platform) if platform else None
        with (
            self._client.repository(name, credentials) as repository,
            (cancel or Cancel()).calling(repository.stop),
        ):
            return self._pulled(repository, name.digest or name.tag, wanted, progress)

    def pull_all(
        self,
        name: Reference,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        platform: str = "",
        cancel: Cancel | None = None,
    ) -> list[Image]:
        """Every tag of a repository. Raises as `pull`."""
        wanted = manifest.parse_platform(platform) if platform else None
        images = []
        with (
            self._client.repository(name, credentials) as repository,
            (cancel or Cancel()).calling(repository.stop),
        ):
            for tag in repository.tags():
                images.append(self._pulled(repository, tag, wanted, progress))
        if not images:
            raise NotFound(f"{name.familiar_name} has no tags")
        return images

    def _pulled(
        self, repository: Repository, tag_or_digest: str, wanted: Platform | None, progress: Progress
    ) -> Image:
        name = repository.name
        tagged = "" if ":" in tag_or_digest else f"{name.name}:{tag_or_digest}"
        full = tagged or f"{name.name}@{tag_or_digest}"
        found = repository.find(tag_or_digest, wanted or manifest.host_platform())
        progress({"status": f"Pulling from {name.path}", "id": tag_or_digest})
        before = self._present(full)
        blobs = [found.document.digest, found.manifest.config.digest]
        blobs += [layer.digest for layer in found.manifest.layers]
        try:
            with self._store.hold() as hold:
                hold.add_blobs(blobs)
                _Pull(
                    parallel=self._client.settings.parallel,
                    store=self._store,
                    arrivals=self._arrivals,
                    turn=self._turn,
                    repository=repository,
                    found=found,
                    wanted=wanted,
                    hold=hold,
                    progress=progress,
                ).run()
                image = self._store.commit_manifest(found.document.digest, [tagged] if tagged else [])
        except HawseError as error:
            if isinstance(error, OutOfSpace) or not isinstance(error, HostRefused):
                self._store.forget_blobs(blobs)  # a cut connection leaves the whole blobs for the next try
            raise
        self._store.note_digest(image.id, f"{name.name}@{found.top.digest}")
        progress({"status": f"Digest: {found.top.digest}"})
        changed = "Image is up to date" if before == image.id else "Downloaded newer image"
        shown = f"{name.familiar_name}{'@' if ':' in tag_or_digest else ':'}{tag_or_digest}"
        progress({"status": f"Status: {changed} for {shown}"})
        return self._store.get(image.id)

    def _present(self, full: str) -> str:
        try:
            return self._store.get(full).id
        except NotFound:
            return ""


class _Pull:
    """The blobs of one image."""

    def __init__(
        self,
        *,
        parallel: int,
        store: ImageStore,
        arrivals: Arrivals,
        turn: threading.Semaphore,
        repository: Repository,
        found: Found,
        wanted: Platform | None,
        hold: Hold,
        progress: Progress,
    ) -> None:
        self._parallel = parallel
        self._store = store
        self._arrivals = arrivals
        self._turn = turn
        self._repository = repository
        self._found = found
        self._wanted = wanted
        self._hold = hold
        self._progress = progress
        self._telling = threading.Lock()
        self._failed: dict[str, Exception] = {}
        self._resumed: dict[str, bool] = {}
        """Blobs of which a part was here before."""
        self._unheard: Exception | None = None

    def run(self) -> None:
        """The first failure stops all."""
        self._store.blobs.put(self._found.document.data)
        absent = []
        for layer in self._layers():
            if self._store.known_layer(layer.diff_id, self._hold, partial(_is_of_blob, layer.digest)):
                self._tell(layer, "Already exists")
            else:
                self._tell(layer, "Pulling fs layer")
                absent.append(layer)
        for layer in absent[self._parallel :]:
            self._tell(layer, "Waiting")
        with ThreadPoolExecutor(max_workers=self._parallel, thread_name_prefix="pull") as pool:
            futures = [pool.submit(self._obtain, layer) for layer in absent]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for future in done if (error := future.exception()) is not None]
            if failed:
                self._repository.stop()
                pool.shutdown(cancel_futures=True)
                told = next((error for error in failed if not isinstance(error, Stopped)), failed[0])
                raise self._unheard or told

    def _layers(self) -> list[Layer]:
        """Each once, as the manifest and the configuration say."""
        shown = self._repository.name.familiar
        parsed = self._found.manifest
        configuration = parse_json(self._configuration(parsed.config), f"the configuration of {shown}")
        self._check_platform(configuration, shown)
        wanted = diff_ids(configuration, shown)
        if len(wanted) != len(parsed.layers):
            raise InputError(
                f"{shown} is no container image: "
                f"its configuration has {len(wanted)} layers, its manifest {len(parsed.layers)}"
            )
        for blob in parsed.layers:
            if "zstd" in blob.media_type and not zstd.available():
                raise NotSupported(
                    f"{shown}: layer {blob.digest} is compressed with zstd, and this host has no libzstd",
                    hint="install libzstd, or push the image with gzip layers",
                )
        layers = {
            (blob.digest, diff_id): Layer(
                digest=blob.digest, media_type=blob.media_type, size=blob.size, diff_id=diff_id
            )
            for blob, diff_id in zip(parsed.layers, wanted, strict=True)
        }
        return list(layers.values())

    def _check_platform(self, configuration: Mapping[str, Any], shown: str) -> None:
        """A name without an index has one platform, which must be the one that was asked for, if any was."""
        offered, wanted = manifest.platform_of({"platform": configuration}), self._wanted
        if wanted is None or (offered and manifest.runs(offered, wanted)):
            return
        same = offered and (offered.os, offered.architecture) == (wanted.os, wanted.architecture)
        if wanted.variant or not same:
            raise NotFound(
                f"image with reference {shown} was found but does not match the specified platform: "
                f"wanted {wanted}, actual: {offered or 'unknown'}"
            )

    def _configuration(self, config: Descriptor) -> bytes:
        if self._store.blobs.has(config.digest):
            return self._store.blobs.read(config.digest)
        data = self._repository.configuration(config)
        self._store.blobs.put(data)
        return data

    # -- one layer -------------------------------------------------------------------------------

    def _obtain(self, layer: Layer) -> None:
        """Its blob in the store, and it unpacked in the hold."""
        while True:
            self._arrived(layer)
            try:
                self._store.unpack(layer, self._hold)
                break
            except HawseError:  # one that was here, and went bad when the power was cut, is away now
                if self._store.blobs.has(layer.digest):
                    raise
        self._tell(layer, "Pull complete")

    def _arrived(self, layer: Layer) -> None:
        """Its blob in the store, and it unpacked if it had to come first."""
        cancel = self._repository.cancel
        while not self._store.blobs.has(layer.digest):
            arriving, leads = self._arrivals.join(layer.digest, layer.size)
            if leads:
                # A thread of its own, so that unpacking does not hold up what arrives.
                download = threading.Thread(
                    target=self._download, args=(layer, arriving), name="download", daemon=True
                )
                download.start()
            try:
                with arriving.listening(self._watch(layer, "Downloading")):
                    heard = self._watch(layer, "Extracting")
                    incoming = _Incoming(arriving, cancel, heard, self._turn)
                    self._store.unpack(layer, self._hold, incoming)
                    arriving.wait(cancel)
                if not leads:
                    self._tell(layer, "Download complete")
            except Abandoned:
                cancel.check()
                if leads and layer.digest in self._failed:
                    raise self._failed[layer.digest] from None

    def _download(self, layer: Layer, arriving: Arriving) -> None:
        """Never raises: who reads is told, and the one who leads finds the reason in `_failed`."""
        try:
            self._fetch(layer, arriving)
        except Exception as error:
            wrong = isinstance(error, ProtocolError) and self._again(layer)
            if not wrong:
                self._failed[layer.digest] = error
            self._arrivals.leave(layer.digest)
            arriving.fail(Abandoned(f"the download of {layer.digest} was given up"))
        else:
            self._tell_all(layer, "Download complete")
            self._arrivals.leave(layer.digest)
            arriving.finish(lambda: self._store.blobs.open(layer.digest))

    def _fetch(self, layer: Layer, arriving: Arriving) -> None:
        """What of the blob is not here yet; its bytes are verified when this returns."""
        partials, blob = self._store.partials, layer.blob
        while (offset := partials.offset(layer.digest)) is not None:
            self._repository.cancel.check()
            self._resumed[layer.digest] = offset > 0
            try:
                with partials.writer(layer.digest, offset, layer.size) as writer:
                    arriving.begun(partials.open(layer.digest), offset)
                    for piece in self._repository.blob(blob, offset):
                        writer.write(piece)
                        arriving.advance(writer.size)
                    self._tell_all(layer, "Verifying Checksum")
                return
            except Conflict:  # the controller has begun to send the same blob
                continue

    def _again(self, layer: Layer) -> bool:
        """Whether wrong bytes may come right: those that were here may have been wrong, or a mirror's."""
        return self._resumed.pop(layer.digest, False) or self._repository.leave()

    # -- what is told ----------------------------------------------------------------------------

    def _watch(self, layer: Layer, status: str) -> Heard:
        """Tells how far it is, now and then. Called by whoever downloads, perhaps for somebody else."""
        shown = 0.0

        def heard(here: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                self._tell_all(layer, status, current=here, total=layer.size)

        return heard

    def _tell_all(self, layer: Layer, status: str, **detail: int) -> None:
        """As `_tell`, from a thread that cannot raise what it meets: the pull ends by it."""
        try:
            self._tell(layer, status, **detail)
        except Exception as error:
            self._unheard = self._unheard or error
            self._repository.stop()

    def _tell(self, layer: Layer, status: str, **detail: int) -> None:
        with self._telling:
            self._progress({"status": status, "progressDetail": detail, "id": layer.digest[7:19]})


def _is_of_blob(digest: str, layer: Layer) -> bool:
    return layer.digest == digest


class _Incoming:
    """A layer's blob as the store reads it; what is read after all has come is told as unpacking.

    Layers are unpacked in `turn`, a few at a time: one thread inflates while another makes files, but more of
    them only hold each other up. Who waits for bytes has no turn.
    """

    def __init__(self, arriving: Arriving, cancel: Cancel, heard: Heard, turn: threading.Semaphore) -> None:
        self._arriving = arriving
        self._cancel = cancel
        self._heard = heard
        self._turn = turn

    @contextmanager
    def reader(self) -> Iterator[_Incoming]:
        with self._arriving.reader(self._cancel) as self._reader, self._turn:
            yield self

    def read(self, size: int, /) -> bytes:
        if not self._reader.ready:
            self._turn.release()
            try:
                self._reader.wait()
            finally:
                self._turn.acquire()
        data = self._reader.read(size)
        if self._arriving.whole:
            self._heard(self._reader.position)
        return data

    def wait(self) -> None:
        self._arriving.wait(self._cancel)
