"""Which containers there are: what is written down of each, and what is known of it now."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from hawse_agent.engine import names, recordcopy
from hawse_agent.engine.live import Live
from hawse_agent.engine.views import ContainerState
from hawse_agent.errors import Conflict, NotFound
from hawse_agent.paths import Paths
from hawse_agent.spec.records import ContainerRecord


class Shelf(Protocol):
    """What the register needs of the state: where records outlast the daemon."""

    def put_container(self, record: ContainerRecord, *, releasing: bool = False) -> None: ...

    def delete_container(self, container_id: str) -> None: ...


class Register:
    """Readers wait for nobody who writes."""

    def __init__(self, *, paths: Paths, shelf: Shelf) -> None:
        self._paths, self._shelf = paths, shelf
        self._guard = threading.RLock()
        self._writing = threading.Lock()
        self._records: dict[str, ContainerRecord] = {}
        self._live: dict[str, Live] = {}
        self._coming: dict[str, str] = {}
        """Names of containers that are being made."""
        self._going: set[str] = set()
        """Those that somebody is removing."""

    def all(self) -> Sequence[tuple[ContainerRecord, Live]]:
        with self._guard:
            return [(record, self._live[record.id]) for record in self._records.values()]

    def record(self, reference: str) -> ContainerRecord:
        """By id, name or the beginning of an id. Raises NotFound."""
        with self._guard:
            return names.find(self._records.values(), reference)

    def live(self, container_id: str) -> Live:
        """Raises NotFound when it has been removed meanwhile."""
        with self._guard:
            live = self._live.get(container_id)
        if live is None:
            raise NotFound(f"No such container: {container_id}")
        return live

    def find(self, reference: str) -> tuple[ContainerRecord, Live]:
        """Both at once. Raises NotFound."""
        with self._guard:
            record = names.find(self._records.values(), reference)
            return record, self._live[record.id]

    def known(self, container_id: str) -> tuple[ContainerRecord, Live] | None:
        """By its whole id."""
        with self._guard:
            record = self._records.get(container_id)
            return None if record is None else (record, self._live[container_id])

    def add(self, record: ContainerRecord, state: ContainerState) -> Live:
        """One that is on the shelf already."""
        live = Live(state)
        with self._guard:
            self._records[record.id] = record
            self._live[record.id] = live
        return live

    def amend(self, container_id: str, *, releasing: bool = False, **fields: Any) -> ContainerRecord:
        """Change these fields of a record as it is now, and write it down; returns what it has become.
        Raises NotFound when it has been removed. `releasing`: see `State`."""
        return self.rewrite(container_id, lambda record: replace(record, **fields), releasing=releasing)

    def rewrite(
        self,
        container_id: str,
        change: Callable[[ContainerRecord], ContainerRecord],
        *,
        releasing: bool = False,
    ) -> ContainerRecord:
        """See `amend`. One at a time, whoever holds what, so that no change undoes another's."""
        with self._writing:
            with self._guard:
                before = self._records.get(container_id)
            if before is None:
                raise NotFound(f"No such container: {container_id}")
            record = change(before)
            self._shelf.put_container(record, releasing=releasing)
            with self._guard:
                self._records[container_id] = record
            with contextlib.suppress(OSError):  # a full disk: the older copy stays; the state is what counts
                recordcopy.keep(record, self._paths.record_copy(container_id))
        return record

    def forget(self, container_id: str) -> None:
        with self._writing:
            self._shelf.delete_container(container_id)
            with self._guard:
                self._records.pop(container_id, None)
                live = self._live.pop(container_id, None)
        if live is not None:
            live.removed()

    # names

    @contextlib.contextmanager
    def holding_name(self, wanted: str, container_id: str) -> Iterator[str]:
        """For a container that is being made; without a wish it is one that nobody has. Raises Conflict."""
        wanted = names.check_name(wanted) if wanted else ""
        with self._guard:
            if wanted:
                self.check_name_free(wanted)
            name = wanted or names.random_name(set(self._taken()))
            self._coming[name] = container_id
        try:
            yield name
        finally:
            with self._guard:
                del self._coming[name]

    def check_name_free(self, name: str) -> None:
        with self._guard:
            owner = self._taken().get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". You have '
                "to remove (or rename) that container to be able to reuse that name."
            )

    def _taken(self) -> Mapping[str, str]:
        """Name → container, those included that are being made at this moment."""
        return {record.spec.name: record.id for record in self._records.values()} | self._coming

    # removals

    @contextlib.contextmanager
    def removing(self, container_id: str, reference: str) -> Iterator[None]:
        """By one caller only; raises Conflict for every other."""
        with self._guard:
            if container_id in self._going:
                raise Conflict(f"removal of container {reference} is already in progress")
            self._going.add(container_id)
        try:
            yield
        finally:
            with self._guard:
                self._going.discard(container_id)
