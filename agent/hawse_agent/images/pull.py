"""Pulls images from registries.

manifest, or index → manifest of the platform      each verified by its digest
configuration and layers that are not here yet     some at a time, resumed where they were cut
commit_manifest                                     unpack and name
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from hawse_agent.distribution import manifest
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.distribution.reference import Reference
from hawse_agent.distribution.registry import Client, Repository
from hawse_agent.errors import HawseError, HostRefused, NotFound, OutOfSpace
from hawse_agent.images.store import Image, ImageStore

Progress = Callable[[dict[str, Any]], None]

_PROGRESS_SECONDS = 0.2


def pull(
    client: Client,
    name: Reference,
    store: ImageStore,
    progress: Progress,
    credentials: Credentials = NOBODY,
    *,
    platform: str = "",
) -> Image:
    """Make the image present under its name; `progress` hears what Docker's clients expect.

    Raises NotFound for what the registry does not have or does not show, HostRefused when it cannot be
    reached, ProtocolError for damaged data, OutOfSpace.
    """
    wanted = manifest.parse_platform(platform) if platform else manifest.host_platform()
    with client.repository(name, credentials) as repository:
        found = repository.find(name.digest or name.tag, wanted)
        progress({"status": f"Pulling from {name.path}", "id": name.tag or name.digest})
        parsed = found.manifest
        before = _present(store, name)
        blobs = {blob.digest: blob for blob in (parsed.config, *parsed.layers)}
        fetched: list[str] = []
        try:
            fetched.append(store.blobs.put(found.document.data))
            _download(
                repository,
                store,
                list(blobs.values()),
                parsed.config.digest,
                fetched,
                progress,
                client.settings.parallel,
            )
            image = store.commit_manifest(found.document.digest, [] if name.digest else [name.canonical])
        except HawseError as error:
            if isinstance(error, OutOfSpace) or not isinstance(error, HostRefused):
                store.forget_blobs(fetched)  # a cut connection leaves the whole blobs for the next try
            raise
    for layer in parsed.layers:
        progress({"status": "Pull complete", "progressDetail": {}, "id": _short(layer.digest)})
    store.note_digest(image.id, f"{name.name}@{found.top.digest}")
    progress({"status": f"Digest: {found.top.digest}"})
    changed = "Image is up to date" if before == image.id else "Downloaded newer image"
    progress({"status": f"Status: {changed} for {name.familiar}"})
    return store.get(image.id)


def _present(store: ImageStore, name: Reference) -> str:
    try:
        return store.get(name.canonical).id
    except NotFound:
        return ""


# -- blobs ---------------------------------------------------------------------------------------


def _download(
    repository: Repository,
    store: ImageStore,
    blobs: Sequence[Descriptor],
    config: str,
    fetched: list[str],
    progress: Progress,
    parallel: int,
) -> None:
    """Those that are not here, a few at a time. The first failure stops all."""
    lock, stop = threading.Lock(), threading.Event()

    def tell(blob: Descriptor, status: str, **detail: int) -> None:
        if blob.digest != config:
            with lock:
                progress({"status": status, "progressDetail": detail, "id": _short(blob.digest)})

    def fetch(blob: Descriptor) -> None:
        shown = 0.0
        with store.blob_writer(blob.digest, blob.size) as writer:
            for piece in repository.blob(blob):
                writer.write(piece)
                if stop.is_set():
                    raise HostRefused("the pull was stopped")
                if time.monotonic() - shown > _PROGRESS_SECONDS:
                    shown = time.monotonic()
                    tell(blob, "Downloading", current=writer.size, total=blob.size)
        fetched.append(blob.digest)
        tell(blob, "Download complete")

    absent = set(store.missing_blobs([blob.digest for blob in blobs]))
    for blob in blobs:
        tell(blob, "Pulling fs layer" if blob.digest in absent else "Already exists")
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="pull") as pool:
        futures = [pool.submit(fetch, blob) for blob in blobs if blob.digest in absent]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for future in done if (error := future.exception()) is not None]
            if failed:
                raise failed[0]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _short(digest: str) -> str:
    return digest[7:19]
