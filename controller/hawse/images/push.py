"""Pushes images from the controller's store to registries, as they are held: digests stay.

blobs       those that the repository lacks, some at a time
manifests   of each platform, by its digest
the name    the index, or the only manifest
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hawse.images.sidebyside import Progress, Transfer
from hawse.images.store import ImageStore
from hawse_agent.distribution import manifest
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import parse_json
from hawse_agent.distribution.manifest import Descriptor
from hawse_agent.distribution.reference import Reference
from hawse_agent.distribution.registry import Client, Document, Repository, Upload
from hawse_agent.errors import InputError


def push(
    client: Client,
    store: ImageStore,
    name: Reference,
    credentials: Credentials = NOBODY,
    *,
    progress: Progress = lambda message: None,
) -> str:
    """Sends the image of this name, with all platforms that are held; gives its digest there.

    Raises NotFound for what is not held here, Unauthorized, HostRefused for what the registry refuses or when
    it is out of reach.
    """
    if name.digest:
        raise InputError("cannot push a digest reference", hint="push NAME:TAG")
    *parts, top = _documents(store, store.top(name.canonical))
    layers: dict[str, Descriptor] = {}
    configs: dict[str, Descriptor] = {}
    for document in (*parts, top):
        parsed = parse_json(document.data, document.digest)
        if not manifest.is_index(parsed):
            image = manifest.parse(parsed, name.familiar)
            layers |= {layer.digest: layer for layer in image.layers}
            configs[image.config.digest] = image.config
    progress({"status": f"The push refers to repository [{name.name}]"})
    with client.repository(name, credentials, push=True) as repository:
        _send(repository, store, list(layers.values()), client.settings.parallel, progress)
        _send(repository, store, list(configs.values()), client.settings.parallel)
        for part in parts:
            repository.put_manifest(part.digest, part)
        repository.put_manifest(name.tag, top)
    progress({"status": f"{name.tag}: digest: {top.digest} size: {len(top.data)}"})
    return top.digest


def _documents(store: ImageStore, digest: str) -> Iterator[Document]:
    """A manifest; or an index, after all that it names."""
    data = b"".join(store.chunks(digest))
    parsed = parse_json(data, digest)
    kind = manifest.media_type(parsed)
    if manifest.is_index(parsed):
        for entry in parsed["manifests"]:
            yield from _documents(store, manifest.descriptor(entry, digest).digest)
        kind = str(parsed.get("mediaType") or manifest.OCI_INDEX)
    yield Document(digest=digest, media_type=kind, data=data)


def _send(
    repository: Repository,
    store: ImageStore,
    blobs: Sequence[Descriptor],
    parallel: int,
    progress: Progress = lambda message: None,
) -> None:
    """Those that are not there, so many at a time. The first failure stops all."""
    transfer = Transfer(repository, progress)

    def send(blob: Descriptor) -> None:
        if repository.blob_size(blob.digest) is not None:
            transfer.tell(blob, "Layer already exists")
            return

        def pieces(offset: int) -> Iterator[bytes]:
            for piece in store.chunks(blob.digest, offset):
                yield piece
                offset += len(piece)
                transfer.moved(blob, "Pushing", offset)

        size = store.size(blob.digest)
        repository.upload(Upload(open=pieces, size=size, digest=lambda: blob.digest))
        transfer.tell(blob, "Pushed")

    for blob in blobs:
        transfer.tell(blob, "Preparing")
    transfer.run(send, blobs, parallel)
