"""Backup and restore of volumes: streams out, and in with verification before anything is replaced."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal

from hawse_agent.engine.containers import Containers
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import HawseError, NotFound
from hawse_agent.spec import codec
from hawse_agent.spec.volume import VolumeSpec
from hawse_agent.volumes.backup import Manifest, Restore, write_backup

Compression = Literal["zstd", "gzip", "none"]
KEPT_MANIFESTS = 64


class Backups:
    def __init__(self, *, containers: Containers, volumes: Volumes, events: EventBus, version: str) -> None:
        self._containers = containers
        self._volumes = volumes
        self._events = events
        self._version = version
        self._lock = threading.Lock()
        self._outcomes: dict[str, Manifest | HawseError] = {}
        self._restores: dict[str, tuple[str, Restore]] = {}

    # out

    def backup(
        self, name: str, compression: Compression, out: Callable[[bytes], None], backup_id: str
    ) -> Manifest:
        """Write the tarball to `out`. `manifest(backup_id)` then has its manifest, or what went wrong."""
        try:
            manifest = write_backup(self._volumes.get(name), out, compression, self._version)
        except HawseError as error:
            self._keep(backup_id, error)
            raise
        self._keep(backup_id, manifest)
        self._events.publish("volume", "backup", name, {"backup": backup_id})
        return manifest

    def new_id(self, name: str) -> str:
        """Id of a backup about to be made; raises NotFound when there is no such volume."""
        self._volumes.get(name)
        return secrets.token_hex(8)

    def manifest(self, backup_id: str) -> Manifest:
        """Raises what a backup has failed by: its stream was cut off and could not tell."""
        with self._lock:
            outcome = self._outcomes.get(backup_id)
        if outcome is None:
            raise NotFound(f"no backup {backup_id} was completed by this daemon")
        if isinstance(outcome, HawseError):
            raise outcome
        return outcome

    def _keep(self, backup_id: str, outcome: Manifest | HawseError) -> None:
        with self._lock:
            self._outcomes[backup_id] = outcome
            while len(self._outcomes) > KEPT_MANIFESTS:
                del self._outcomes[next(iter(self._outcomes))]

    # in

    def begin_restore(self, name: str, manifest: dict[str, Any]) -> str:
        """Check the manifest, make a place for the data; returns the token for `restore`.

        A volume that is not there is made. Raises InputError for a manifest that is not one.
        """
        parsed = codec.from_json(Manifest, manifest, "manifest")
        token = secrets.token_hex(8)
        restore = Restore(self._volumes.store, name, parsed)
        with self._lock:
            for old, (other, stale) in list(self._restores.items()):
                if other == name:  # an earlier attempt whose tarball never came
                    stale.discard()
                    del self._restores[old]
            self._restores[token] = (name, restore)
        return token

    def restore(self, token: str, chunks: Iterable[bytes]) -> dict[str, Any]:
        """Receive, verify, stop the users, swap, start them again.

        The old data stays until the new is verified. Returns `{"files", "bytes", "restarted"}`; raises
        InputError for a damaged tarball, OutOfSpace.
        """
        with self._lock:
            try:
                name, restore = self._restores.pop(token)
            except KeyError:
                raise NotFound(f"no restore {token} was begun") from None
        try:
            restore.receive(chunks)
            self._volumes.create(self._spec(name, restore))
            with self._containers.holding([record.id for record in self._volumes.users(name)]):
                stopped = self._stop_users(name)
                try:
                    restore.swap()
                finally:
                    failures = self._start(stopped)
        finally:
            restore.discard()
        if failures:
            raise HawseError(
                f"volume {name} is restored, but {failures[0][0]} did not start again: {failures[0][1]}"
            )
        self._events.publish("volume", "restore", name)
        manifest = restore.manifest
        return {"files": len(manifest.files), "bytes": manifest.bytes, "restarted": stopped}

    def _spec(self, name: str, restore: Restore) -> VolumeSpec:
        """The volume as it is here, else as it was where the backup comes from, under the new name."""
        try:
            return self._volumes.get(name).spec
        except NotFound:
            was = restore.manifest.volume
            return VolumeSpec(name=name, driver=was.driver, options=was.options, labels=was.labels)

    def _stop_users(self, name: str) -> list[str]:
        stopped = []
        for record in self._volumes.users(name):
            if self._containers.get(record.id).state.running:
                self._containers.stop(record.id)
                stopped.append(record.spec.name)
        return stopped

    def _start(self, names: list[str]) -> list[tuple[str, str]]:
        failures = []
        for name in names:
            try:
                self._containers.start(name)
            except HawseError as error:
                failures.append((name, error.message))
        return failures
