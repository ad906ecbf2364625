"""What earlier builds have come to: a step that is the same gives the layer that it gave then.

An entry's key says what went into the step, never when: the layers below, and of RUN its words, shell, user,
environment and mounts; of COPY and ADD what is in the files, and where and whose they become. So neither a
fresh clone nor a changed label makes anything run again.

Entries survive restarts, with their layers, which the store keeps for the cache. Directories of
`RUN --mount=type=cache` are listed and pruned beside them, see `mountcache`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hawse_agent.failpoints import reach
from hawse_agent.images.hold import Hold
from hawse_agent.images.image import Layer
from hawse_agent.images.store import ImageStore
from hawse_agent.spec import codec

_HOLDER = "build cache"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step came to."""

    created: str
    """RFC 3339; the history's, so that the same steps give the same image."""
    layer: Layer | None = None
    """None: it changed no file."""
    created_by: str = ""
    """The history's, which is not always told by the instruction alone."""


@dataclass(frozen=True, kw_only=True)
class CacheRecord:
    """A row of the state's table."""

    key: str
    description: str
    created: str
    made: float
    used: float
    uses: int = 0
    diff_id: str = ""
    created_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """An entry, measured."""

    id: str
    kind: str
    """`regular`, or `exec.cachemount`: a directory of RUN --mount=type=cache."""
    description: str
    size: int
    made: float
    used: float
    uses: int
    shared: bool = False
    """An image has the layer as well: it takes no space of the cache's."""
    in_use: bool = False


class Table(Protocol):
    """Where records are kept: `engine.state`."""

    def put_build_steps(self, rows: Sequence[tuple[str, str]]) -> None: ...
    def delete_build_steps(self, keys: Sequence[str]) -> None: ...
    def build_steps(self) -> list[tuple[str, str]]: ...


def key(kind: str, *parts: Any) -> str:
    """Hex of a SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps([kind, *parts], sort_keys=True).encode()).hexdigest()


class BuildCache:
    """One per daemon. What a build puts is written down once, by `save`, before its hold ends."""

    def __init__(self, table: Table, store: ImageStore) -> None:
        self._table, self._store = table, store
        self._lock = threading.RLock()
        self._layers = {layer.diff_id: layer for layer in store.kept_layers().get(_HOLDER, ())}
        self._kept = frozenset(self._layers)
        """What the store keeps for it."""
        self._records: dict[str, CacheRecord] = {}
        self._unsaved: set[str] = set()
        self.changes = 0
        """How many steps were put."""
        self._fresh = False
        """Whether there is more to write down than when something was used."""
        for found, document in table.build_steps():
            record = codec.loads(CacheRecord, document)
            if not record.diff_id or record.diff_id in self._layers:
                self._records[found] = record
        with self._lock:
            self._keep_layers()  # a daemon may have been killed between layers and records

    def find(self, wanted: str, hold: Hold) -> Step | None:
        """The layer is held then: a prune meanwhile does no harm."""
        with self._lock:
            record = self._records.get(wanted)
            if record is None:
                return None
            layer = self._layers[record.diff_id] if record.diff_id else None
            if layer is not None:
                hold.add_layer(layer)
            self._records[wanted] = replace(record, used=time.time(), uses=record.uses + 1)
            self._unsaved.add(wanted)
        return Step(created=record.created, layer=layer, created_by=record.created_by)

    def put(self, wanted: str, step: Step, description: str) -> None:
        """The layer must be held until the next `save`. What another build has put there gives way."""
        now = time.time()
        record = CacheRecord(
            key=wanted,
            description=description,
            created=step.created,
            made=now,
            used=now,
            diff_id=step.layer.diff_id if step.layer is not None else "",
            created_by=step.created_by,
        )
        with self._lock:
            if step.layer is not None:
                self._layers[step.layer.diff_id] = step.layer
            self._records[wanted] = record
            self._unsaved.add(wanted)
            self._fresh = True
            self.changes += 1

    def save(self, *, every: bool = False) -> None:
        """Layers first: a record whose layer nobody keeps would be none. `every`: that something was used is
        written down, too, though nothing is new; a build does not wait for the disk to say so."""
        with self._lock:
            if not self._fresh and not (every and self._unsaved):
                return
            unsaved = [(one, codec.dumps(self._records[one])) for one in self._unsaved]
            self._keep_layers()
            reach("build: keep steps")
            self._table.put_build_steps(unsaved)
            self._unsaved.clear()
            self._fresh = False

    def remove(self, keys: Iterable[str]) -> None:
        """Records first, then the layers that nobody else names."""
        with self._lock:
            gone = [one for one in keys if self._records.pop(one, None) is not None]
            self._unsaved -= set(gone)
            self._table.delete_build_steps(gone)
            self._keep_layers()

    def usage(self, of_images: Iterable[str], *, exact: bool = True) -> Sequence[Usage]:
        """`of_images`: diff_ids that images have. A layer of several entries counts with the first of
        them."""
        counted = set(of_images)
        found = []
        with self._lock:
            records, layers = list(self._records.values()), dict(self._layers)
        for record in sorted(records, key=lambda record: record.made):
            layer = layers.get(record.diff_id)
            shared = layer is not None and layer.diff_id in counted
            counted.add(record.diff_id)
            found.append(
                Usage(
                    id=record.key,
                    kind="regular",
                    description=record.description,
                    size=self._size(layer, exact=exact) if layer is not None else 0,
                    made=record.made,
                    used=record.used,
                    uses=record.uses,
                    shared=shared,
                )
            )
        return found

    def _size(self, layer: Layer, *, exact: bool) -> int:
        """Of its directory and its tar. `exact` reads the directory, which is nothing to do after each
        build."""
        return self._store.disk_usage([layer]) if exact else layer.size + layer.content_size

    def _keep_layers(self) -> None:
        wanted = {record.diff_id for record in self._records.values()}
        kept = {diff_id: layer for diff_id, layer in self._layers.items() if diff_id in wanted}
        if self._kept != kept.keys():
            reach("build: keep layers")
            self._store.keep_layers(_HOLDER, kept.values())
            self._kept = frozenset(kept)
        self._layers = kept


def to_remove(
    usages: Iterable[Usage], wanted: Callable[[Usage], bool], *, keep_bytes: int = 0
) -> Sequence[Usage]:
    """Those that go: the longest unused first, until what stays takes no more than `keep_bytes`; then those
    that images share stay, since they take nothing. Pure."""
    known = list(usages)
    taken = sum(usage.size for usage in known if not usage.shared)
    going = []
    for usage in sorted(known, key=lambda usage: usage.used):
        if usage.in_use or not wanted(usage):
            continue
        if keep_bytes and taken <= keep_bytes:
            break
        if keep_bytes and usage.shared:
            continue
        going.append(usage)
        taken -= 0 if usage.shared else usage.size
    return going
