"""Fetches images from registries into the controller's store, for hosts that cannot.

What has come of a blob is kept when the connection or this process ends; the next pull goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

from hawse.images.sidebyside import Progress, Transfer
from hawse.images.store import ImageStore, StoredImage, platform_of
from hawse_agent.distribution import manifest
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.manifest import Descriptor, Platform
from hawse_agent.distribution.reference import Reference
from hawse_agent.distribution.registry import Client, Found, Repository
from hawse_agent.errors import InputError, NotFound, NotSupported

_MOST_PLATFORMS = 64


def pull(
    client: Client,
    store: ImageStore,
    name: Reference,
    credentials: Credentials = NOBODY,
    *,
    platforms: Sequence[Platform] | None,
    progress: Progress = lambda message: None,
) -> StoredImage:
    """Keeps the image under its name, for these platforms, or for all that there are when None.

    Raises NotFound for what the registry does not have, HostRefused when it cannot be reached, ProtocolError
    for damaged data, OutOfSpace.
    """
    with client.repository(name, credentials) as repository:
        progress({"status": f"Pulling from {name.path}", "id": name.tag or name.digest})
        found = _found(repository, name, platforms)
        configs = {one.manifest.config.digest: one.manifest.config for one in found.values()}
        layers = {layer.digest: layer for one in found.values() for layer in one.manifest.layers}
        _fetch(repository, store, list(configs.values()), client.settings.parallel)
        for platform, one in found.items():
            _check(store, name, one, platform if platforms is not None else None)
        _fetch(repository, store, list(layers.values()), client.settings.parallel, progress)
    for one in found.values():
        store.put(one.document.data)
    manifests = {one.document.digest: platform for platform, one in found.items()}
    if len(manifests) == 1:
        image = store.tag([name.canonical], next(iter(manifests)))
    else:
        image = store.add_index([name.canonical], manifests)
    progress({"status": f"Digest: {next(iter(found.values())).top.digest}"})
    return image


def _found(
    repository: Repository, name: Reference, platforms: Sequence[Platform] | None
) -> dict[Platform, Found]:
    reference = name.digest or name.tag
    if platforms is not None:
        return {platform: repository.find(reference, platform) for platform in platforms}
    top = repository.manifest(reference)
    document = parse_json(top.data, f"the manifest of {name.familiar}")
    if not manifest.is_index(document):
        return {manifest.host_platform(): repository.find(reference, manifest.host_platform())}
    found: dict[Platform, Found] = {}
    for entry in document["manifests"]:
        platform = manifest.platform_of(entry)
        if platform is not None and platform not in found:
            digest = manifest.descriptor(entry, name.familiar).digest
            one = repository.find(digest, platform)
            found[platform] = Found(top=top, document=one.document, manifest=one.manifest)
        if len(found) > _MOST_PLATFORMS:
            raise InputError(f"{name.familiar} is for more than {_MOST_PLATFORMS} platforms")
    if not found:
        raise InputError(f"{name.familiar} is an index without an image")
    return found


def _check(store: ImageStore, name: Reference, found: Found, wanted: Platform | None) -> None:
    """That it is a container image, and for the platform that was asked for."""
    for layer in found.manifest.layers:
        if layer.media_type and "tar" not in layer.media_type:
            raise NotSupported(f"{name.familiar} is no container image: it holds {layer.media_type}")
    config = store.read_json(found.manifest.config.digest)
    if "rootfs" not in config:
        raise NotSupported(f"{name.familiar} is no container image: its configuration names no layers")
    is_for = platform_of(config)
    if wanted is not None and not manifest.runs(is_for, wanted):
        raise NotFound(f"{name.familiar} is for {is_for} only, not for {wanted}")


def _fetch(
    repository: Repository,
    store: ImageStore,
    blobs: Sequence[Descriptor],
    parallel: int,
    progress: Progress = lambda message: None,
) -> None:
    """Those that are not here, so many at a time. The first failure stops all; what has come stays."""
    transfer = Transfer(repository, progress)

    def fetch(blob: Descriptor) -> None:
        with store.receiving(blob.digest, blob.size) as writer:
            for piece in repository.blob(blob, writer.size) if writer is not None else ():
                assert writer is not None
                writer.write(piece)
                transfer.moved(blob, "Downloading", writer.size)
        transfer.tell(blob, "Pull complete")

    missing = [blob for blob in blobs if not store.has(blob.digest)]
    for blob in blobs:
        transfer.tell(blob, "Pulling fs layer" if blob in missing else "Already exists")
    transfer.run(fetch, missing, parallel)
