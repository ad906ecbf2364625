"""Whose namespaces and ids a container shares.

Who shares namespaces of another one is in the same user namespace, with the same ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hawse_agent.engine import resolve
from hawse_agent.engine.register import Register
from hawse_agent.engine.settings import Settings
from hawse_agent.errors import Conflict, InputError, NotFound
from hawse_agent.paths import Paths
from hawse_agent.runtime.ids import Ids
from hawse_agent.spec import partners
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.records import ContainerRecord, IdRange


class Sharing:
    def __init__(self, *, paths: Paths, settings: Settings, register: Register) -> None:
        self._paths, self._settings, self._register = paths, settings, register
        self._ids = Ids(IdRange(first=settings.userns.first, count=settings.userns.size))

    def tidy(self) -> None:
        """After a crash: ids whose container is not there are free."""
        self._ids.tidy(self._paths.containers)

    def pinned(self, spec: ContainerSpec) -> ContainerSpec:
        """With ids for the containers that it joins or is linked to, whose names may be others' one day.
        Raises NotFound."""
        return partners.renamed(spec, lambda reference: self._register.record(reference).id)

    def namespaces(self, spec: ContainerSpec) -> resolve.Namespaces:
        return resolve.Namespaces(
            network=self._network_namespace(spec),
            pid=self._namespace(spec.pid_mode),
            ipc=self._ipc_namespace(spec.ipc_mode),
            uts=self._namespace(spec.uts_mode),
            user=self._namespace(f"container:{others[0][1]}" if (others := partners.joined(spec)) else ""),
        )

    def _network_namespace(self, spec: ContainerSpec) -> str:
        mode = spec.network_mode
        if mode in ("host", "none"):
            return mode
        if mode.startswith("container:"):
            return self._namespace(mode)
        return "new"

    def _ipc_namespace(self, mode: str) -> str:
        joined = self._namespace(mode)
        if mode.startswith("container:"):
            donor = self._register.record(mode.partition(":")[2])
            if donor.spec.ipc_mode in ("", "private", "none"):
                raise Conflict(
                    f"can't join IPC of container {donor.id}: non-shareable IPC (hint: use IpcMode:shareable "
                    "for the donor container)"
                )
        return joined

    def _namespace(self, mode: str) -> str:
        if mode in ("", "private", "shareable", "none"):
            return "new"
        if mode == "host":
            return "host"
        kind, _, other = mode.partition(":")
        if kind != "container":
            raise InputError(f"invalid namespace mode: {mode}")
        record, live = self._register.find(other)
        if live.state.status not in ("running", "paused"):
            raise Conflict(f"cannot join namespace of a non running container: container {record.spec.name}")
        return f"container:{record.id}"

    def shared_etc(self, spec: ContainerSpec) -> Path | None:
        kind, _, other = spec.network_mode.partition(":")
        return self._paths.container(self._register.record(other).id) / "etc" if kind == "container" else None

    def donors_first(self, records: Sequence[ContainerRecord]) -> list[str]:
        """Who shares the namespaces of others starts after them."""
        wanted = {record.id: record for record in records}
        ordered: dict[str, None] = {}

        def add(record: ContainerRecord, waiting: tuple[str, ...] = ()) -> None:
            for _, reference in partners.joined(record.spec):
                with contextlib.suppress(NotFound, Conflict):  # it cannot start, and says so
                    donor = self._register.record(reference)
                    if donor.id in wanted and donor.id not in waiting:
                        add(donor, (*waiting, record.id))
            ordered[record.id] = None

        for record in records:
            add(record)
        return list(ordered)

    def has_own_ids(self, spec: ContainerSpec) -> bool:
        """Whether it gets a user namespace; raises InputError for what does not go with one, as Docker."""
        others = [self._register.record(other) for _, other in partners.joined(spec)]
        wanted = spec.userns_mode or self._settings.userns.default
        if others and not spec.userns_mode:  # as the one with whom it shares
            wanted = "auto" if others[0].ids is not None else "host"
        if wanted == "host":
            if any(other.ids is not None for other in others):
                # The host's root owns them: no capability that it has dropped would be missing there.
                raise Conflict(
                    "cannot share namespaces of a container with ids of its own with --userns=host"
                )
            return False
        if spec.privileged:
            raise InputError(
                "privileged mode is incompatible with user namespaces.  You must run the container in the "
                "host namespace when running privileged mode",
                hint="--userns=host",
            )
        for mode, what in (
            (spec.network_mode, "host's network namespace"),
            (spec.pid_mode, "host PID namespace"),
            (spec.ipc_mode, "host's IPC namespace"),
        ):
            if mode == "host":
                raise InputError(
                    f"cannot share the {what} when user namespaces are enabled", hint="--userns=host"
                )
        for mount in spec.mounts:
            if mount.propagation in ("shared", "rshared"):
                raise InputError(
                    f"mount on {mount.target}: propagation {mount.propagation} is not possible when user "
                    "namespaces are enabled",
                    hint="--userns=host",
                )
        return True

    def find_ids(self, record: ContainerRecord) -> IdRange:
        """Who shares a namespace shares its owner, too."""
        others = [self._register.record(other) for _, other in partners.joined(record.spec)]
        if not others:
            directory = self._paths.container(record.id)
            return self._ids.keep(record.ids, directory) if record.ids else self._ids.take(directory)
        ids = {other.ids for other in others}
        found = ids.pop()
        if ids or found is None:
            names_of = ", ".join(other.spec.name for other in others)
            raise Conflict(f"cannot share namespaces of {names_of}: not in one user namespace of its own")
        return found

    def with_ids(self, record: ContainerRecord) -> ContainerRecord:
        """Before a start: its ids may have gone to another one while the host was down."""
        if record.ids is None:
            return record
        ids = self.find_ids(record)
        if ids != record.ids:
            return self._register.amend(record.id, ids=ids)
        return record

    def give_back_ids(self, record: ContainerRecord) -> None:
        if record.ids is None:
            return
        rest = [other.id for other, _ in self._register.all() if other.ids == record.ids]
        heir = next((self._paths.container(other) for other in rest if other != record.id), None)
        self._ids.give_back(record.ids, self._paths.container(record.id), heir)
