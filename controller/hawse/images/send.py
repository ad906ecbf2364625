"""Sends an image to an agent: only the blobs that the host lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hawse.fleet.client import AgentClient
from hawse.images.store import ImageStore
from hawse_agent.spec.host import ImageSource

Progress = Callable[[int, int], None]
"""Hears of (bytes sent, bytes to send)."""


def send(
    client: AgentClient,
    store: ImageStore,
    source: ImageSource,
    *,
    progress: Progress = lambda sent, total: None,
) -> str:
    """Makes the image present under its name on the host; gives its id there."""
    with client.second() as bulk:
        upload(bulk, store, bulk.missing_blobs(source.blobs), progress=progress)
        return bulk.commit_image(source.manifest, (source.reference,))


def upload(
    client: AgentClient,
    store: ImageStore,
    digests: tuple[str, ...],
    *,
    progress: Progress = lambda sent, total: None,
) -> None:
    """Uploads blobs one after another."""
    total = sum(store.size(digest) for digest in digests)
    sent = 0

    def counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal sent
        for piece in pieces:
            yield piece
            sent += len(piece)
            progress(sent, total)

    for digest in digests:
        client.upload_blob(digest, counted(store.chunks(digest)), store.size(digest))
