"""Sends an image to an agent: only the blobs that the host lacks, each from where an earlier try stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from hawse.fleet.client import AgentClient
from hawse.images.store import ImageStore
from hawse_agent.distribution.manifest import platform_of_machine
from hawse_agent.distribution.platforms import choose
from hawse_agent.errors import Conflict, NotFound, ProtocolError, Unreachable
from hawse_agent.spec.host import ImageSource

Progress = Callable[[int, int], None]
"""Hears of (bytes that the host has, bytes that it needs)."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    id: str
    """The image's, there."""
    bytes: int
    """How many went over, this time."""


_TRIES = 4
"""How often a host is tried again without a byte more having come there."""
_ROUNDS = 3
"""How often blobs may vanish there, by a prune of others, between being sent and being named."""


def send(
    connect: Callable[[], AgentClient],
    store: ImageStore,
    source: ImageSource,
    *,
    progress: Progress = lambda sent, total: None,
    lost: Callable[[Unreachable], None] = lambda error: None,
    pause: Callable[[float], None] = time.sleep,
) -> Sent:
    """Makes the image present under its name on the host.

    Of several platforms the host gets its own. `connect` is called again when the connection is lost (then
    `lost` hears why) or the daemon replaced; the transfer goes on from there. Raises Unreachable when that
    does not help, InputError when the image is for other platforms.
    """
    reached, failures = -1, 0

    def noted(sent: int, total: int) -> None:
        nonlocal reached, failures
        if sent > reached:
            reached, failures = sent, 0
        progress(sent, total)

    transfer = _Transfer(store, source, noted)
    while True:
        try:
            with connect().second() as bulk:
                return transfer.run(bulk)
        except Unreachable as error:
            failures += 1
            if failures >= _TRIES:
                raise
            lost(error)
            pause(2.0 ** (failures - 1))


class _Transfer:
    """One image to one host; `run` again after a cut goes on."""

    def __init__(self, store: ImageStore, source: ImageSource, progress: Progress) -> None:
        self._store, self._source, self._progress = store, source, progress
        self._needed = self._moved = 0

    def run(self, client: AgentClient) -> Sent:
        if self._source.platform:
            self._source = choose(self._source, platform_of_machine(client.machine()))
        if client.image_id(self._source.reference) == self._source.id:
            return Sent(id=self._source.id, bytes=self._moved)
        for left in reversed(range(_ROUNDS)):
            missing = client.missing_blobs(self._source.blobs)
            upload(client, self._store, missing, progress=self._of_all_that_is_needed, moved=self._count)
            try:
                identity = client.commit_image(self._source.manifest, (self._source.reference,))
                return Sent(id=identity, bytes=self._moved)
            except NotFound:
                if not left:
                    raise
        raise AssertionError

    def _count(self, size: int) -> None:
        self._moved += size

    def _of_all_that_is_needed(self, sent: int, total: int) -> None:
        """`total` is what was missing at the last look; what came before that counts, too."""
        self._needed = max(self._needed, total)
        self._progress(self._needed - total + sent, self._needed)


def upload(
    client: AgentClient,
    store: ImageStore,
    digests: Iterable[str],
    *,
    progress: Progress = lambda sent, total: None,
    moved: Callable[[int], None] = lambda size: None,
) -> None:
    """Uploads blobs one after another; `moved` hears of what really goes over."""
    sizes = {digest: store.size(digest) for digest in digests}
    total, before = sum(sizes.values()), 0
    for digest, size in sizes.items():
        deliver(
            client,
            digest,
            size,
            partial(store.outgoing, digest),
            progress=partial(_further, progress, before, total),
            moved=moved,
        )
        before += size


def deliver(
    client: AgentClient,
    digest: str,
    size: int,
    pieces: Callable[[int], Iterator[bytes]],
    *,
    progress: Callable[[int], None] = lambda sent: None,
    moved: Callable[[int], None] = lambda size: None,
) -> None:
    """Until the host has the blob whole, whoever has sent it. `pieces` gives what follows after an offset."""
    while (offset := client.blob_offset(digest)) is not None:
        if offset > size:
            offset = 0  # whoever began it had something else
        progress(offset)
        try:
            client.upload_blob(digest, _counted(pieces(offset), offset, progress, moved), size, offset=offset)
            break
        except Conflict:  # another sender was faster: how far is it by now?
            continue
        except ProtocolError:  # damaged: by what was there before, when the host has thrown that away
            if offset == 0 or client.blob_offset(digest) != 0:
                raise
    progress(size)


def _further(progress: Progress, before: int, total: int, sent: int) -> None:
    progress(before + sent, total)


def _counted(
    pieces: Iterator[bytes], sent: int, progress: Callable[[int], None], moved: Callable[[int], None]
) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        sent += len(piece)
        moved(len(piece))
        progress(sent)
