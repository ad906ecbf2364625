"""Volumes as containers use them: which mount gets which, first-use copies, and who is using one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hawse_agent.engine.events import EventBus
from hawse_agent.errors import Conflict, InputError, NotFound
from hawse_agent.images.store import Image
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.records import ContainerRecord
from hawse_agent.spec.volume import Mount, VolumeSpec
from hawse_agent.volumes.store import VolumeInfo, VolumeStore

Lookup = Callable[[str], ContainerRecord]

LABEL_ANONYMOUS = "com.docker.volume.anonymous"


class Volumes:
    def __init__(
        self, *, store: VolumeStore, events: EventBus, containers: Callable[[], Iterable[ContainerRecord]]
    ) -> None:
        self.store = store
        self._events = events
        self._containers = containers

    # looking

    def list(self) -> Sequence[VolumeInfo]:
        return self.store.list()

    def get(self, name: str) -> VolumeInfo:
        return self.store.get(name)

    def path(self, name: str) -> Path:
        return self.store.path(name)

    def users(self, name: str) -> Sequence[ContainerRecord]:
        """Containers that mount the volume, running or not."""
        return [record for record in self._containers() if name in record.volumes.values()]

    # making and removing

    def create(self, spec: VolumeSpec) -> VolumeInfo:
        known = {info.spec.name for info in self.store.list()}
        info = self.store.create(spec)
        if spec.name not in known:
            self._events.publish("volume", "create", spec.name, {"driver": spec.driver})
        return info

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises Conflict while a container, even a stopped one, refers to it."""
        if users := self.users(name):
            ids = ", ".join(record.id for record in users)
            raise Conflict(f"remove {name}: volume is in use - [{ids}]")
        self._drop(name, force=force)

    def _drop(self, name: str, *, force: bool) -> None:
        try:
            self.store.remove(name)
        except NotFound:
            if not force:
                raise
            return
        self._events.publish("volume", "destroy", name, {"driver": "local"})

    def prune(
        self, *, named: bool, wanted: Callable[[VolumeInfo], bool] = lambda info: True
    ) -> dict[str, int]:
        """Remove volumes that no container refers to; only anonymous ones unless `named`. Name → bytes."""
        removed = {}
        for info in filter(wanted, self.store.list()):
            if self.users(info.spec.name) or not (named or LABEL_ANONYMOUS in info.spec.labels):
                continue
            size = self.store.size(info.spec.name)
            self.remove(info.spec.name)
            removed[info.spec.name] = size
        return removed

    def discard(self, names: Iterable[str], *, of: str = "") -> None:
        """Remove anonymous volumes of a container that goes (`of`), except where another took them over."""
        for name in names:
            if all(record.id == of for record in self.users(name)):
                self._drop(name, force=True)

    # for a container

    def plan(
        self, spec: ContainerSpec, image: Image, lent: Sequence[Mount], inherit: Mapping[str, str]
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Mount target → volume name, and which of them are anonymous; `make` makes what is missing.

        `lent` is what `inherited` gives; `inherit`: anonymous volumes of a predecessor by target. Raises
        InputError for a bind source that is not there and shall not be made.
        """
        for mount in spec.mounts:
            if mount.kind == "bind" and not mount.create_source and not Path(mount.source).exists():
                raise InputError(
                    f'invalid mount config for type "bind": bind source path does not exist: {mount.source}',
                    hint=f"make {mount.source} on the host first",
                )
        mounted: dict[str, str] = {}
        anonymous: list[str] = []
        covered = {mount.target.rstrip("/") for mount in spec.mounts}
        for mount in lent:
            covered.add(mount.target.rstrip("/"))
            if mount.kind == "volume":
                mounted.setdefault(mount.target, mount.source)
        unnamed = [m.target for m in spec.mounts if m.kind == "volume" and not m.source]
        unnamed += [target for target in image.config.volumes if target.rstrip("/") not in covered]
        for target in unnamed:
            name = inherit.get(target) or secrets.token_hex(32)
            mounted[target] = name
            anonymous.append(name)
        for mount in spec.mounts:
            if mount.kind == "volume" and mount.source:
                mounted[mount.target] = mount.source
        return mounted, tuple(anonymous)

    def make(self, record: ContainerRecord) -> None:
        """Those of its volumes that are not there yet."""
        given = {record.volumes[m.target]: m.labels for m in record.spec.mounts if m.kind == "volume"}
        for name in dict.fromkeys(record.volumes.values()):
            labels = {**given.get(name, {}), **({LABEL_ANONYMOUS: ""} if name in record.anonymous else {})}
            self.create(self._existing(name) or VolumeSpec(name=name, labels=labels))

    def inherited(self, spec: ContainerSpec, lookup: Lookup) -> tuple[Mount, ...]:
        """What `volumes_from` brings: binds as they are, volumes by name."""
        found: dict[str, Mount] = {}
        for entry in spec.volumes_from:
            reference, _, mode = entry.partition(":")
            if mode not in ("", "rw", "ro"):
                raise InputError(f"volumes-from {entry}: expected NAME, NAME:ro or NAME:rw")
            other = lookup(reference)
            lent = {mount.target: mount for mount in other.inherited}
            known = lent | {mount.target: mount for mount in other.spec.mounts if mount.kind != "tmpfs"}
            mounts = [mount for mount in known.values() if mount.kind == "bind"]
            mounts += [
                replace(known.get(target, Mount(kind="volume", target=target)), source=name)
                for target, name in other.volumes.items()
            ]
            for mount in mounts:
                read_only = mount.read_only or mode == "ro"
                found.setdefault(mount.target, replace(mount, read_only=read_only))
        return tuple(found.values())

    def populate(self, record: ContainerRecord, layers: tuple[Path, ...]) -> None:
        """Docker's first-use copy: an empty volume takes what the image has at the mount's target; one that
        another container lends stays as it is."""
        own = {m.target: not (m.no_copy or m.subpath) for m in record.spec.mounts if m.kind == "volume"}
        for target, name in record.volumes.items():
            if own.get(target, name in record.anonymous):
                self.store.populate(name, layers, target)

    def check_sources(self, record: ContainerRecord) -> None:
        """Before a start: bind sources are there, or are made where the spec says so (-v, not --mount)."""
        for mount in record.spec.mounts:
            if mount.kind != "bind":
                continue
            source = Path(mount.source)
            if source.exists():
                continue
            if not mount.create_source:
                raise InputError(
                    f'invalid mount config for type "bind": bind source path does not exist: {mount.source}',
                    hint=f"make {mount.source} on the host first",
                )
            source.mkdir(mode=0o755, parents=True)

    def _existing(self, name: str) -> VolumeSpec | None:
        try:
            return self.store.get(name).spec
        except NotFound:
            return None
