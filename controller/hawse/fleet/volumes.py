"""Backups of volumes as files here: a tarball, and beside it `FILE.manifest.json`, both of mode 0600.

A backup appears under its name only when it is whole and has the digest that its manifest says. One that
replaces another is two files to exchange: the new manifest lies beside the old, as `….next`, until the
tarball is there; whatever interrupts this, one of the two belongs to the tarball: `read_manifest` finds it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from hawse.fleet.client import AgentClient
from hawse_agent.errors import HostRefused, InputError, OutOfSpace, ProtocolError, Unreachable

Compression = Literal["zstd", "gzip", "none"]
ENDINGS: dict[Compression, str] = {"zstd": ".tar.zst", "gzip": ".tar.gz", "none": ".tar"}
_PIECE = 1 << 20

Progress = Callable[[int, int], None]
"""Hears of (bytes so far, bytes in all); 0 in all when that is not known."""


def file_name(volume: str, compression: Compression, *, host: str = "", now: float | None = None) -> str:
    """`web1-data-20260130-142501.tar.zst`."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    parts = (host.replace(os.sep, "_"), volume, stamp)
    return "-".join(part for part in parts if part) + ENDINGS[compression]


def manifest_path(tarball: Path) -> Path:
    return tarball.with_name(f"{tarball.name}.manifest.json")


def _next_manifest(tarball: Path) -> Path:
    return tarball.with_name(f"{tarball.name}.manifest.json.next")


def backup(
    client: AgentClient,
    volume: str,
    path: Path,
    *,
    compression: Compression = "zstd",
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Writes a volume to `path`, and its manifest beside it; gives the manifest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"cannot write to {path.parent}: {error.strerror}") from error
    seen = hashlib.sha256()
    try:
        with (
            os.fdopen(fd, "wb") as file,
            client.backup_volume(volume, compression=compression) as (identity, data),
        ):
            try:
                for piece in data:
                    seen.update(piece)
                    file.write(piece)
                    progress(file.tell(), 0)
            except (ProtocolError, Unreachable):  # cut off: the agent may say why
                with client.second() as other:
                    other.backup_manifest(volume, identity)
                raise
            file.flush()
            os.fsync(file.fileno())
        manifest = client.backup_manifest(volume, identity)
        if manifest.get("tar_sha256") != seen.hexdigest():
            raise ProtocolError(f"{client.name}: the backup of {volume} was damaged on its way")
        _write(_next_manifest(path), json.dumps(manifest, indent=1))
        os.replace(partial, path)
        _sync_directory(path.parent)
        os.replace(_next_manifest(path), manifest_path(path))
        _sync_directory(path.parent)
    except OSError as error:
        Path(partial).unlink(missing_ok=True)
        kind = OutOfSpace if error.errno == errno.ENOSPC else HostRefused
        raise kind(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return manifest


def restore(
    client: AgentClient, volume: str, path: Path, *, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Sends a backup; the agent verifies it before it replaces anything.

    Gives `files`, `bytes` and the containers that were `restarted`.
    """
    manifest = read_manifest(path)
    return client.restore_volume(volume, manifest, _pieces(path, progress))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a backup that is here, both halves of it."""
    if not path.is_file():
        raise InputError(f"no such backup: {path}")
    upcoming = _next_manifest(path)
    if upcoming.exists() and _read(upcoming)["tar_sha256"] == _digest(path):
        return _read(upcoming)  # an exchange was interrupted after the tarball
    return _read(manifest_path(path))


def _read(beside: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{beside.with_name(beside.name.removesuffix('.manifest.json'))} has no manifest",
            hint=f"it lies beside it, as {beside.name}, when Hawse made the backup",
        ) from error
    except OSError as error:
        raise InputError(f"cannot read the manifest: {error.strerror}", where=str(beside)) from error
    except ValueError as error:
        raise InputError("not a manifest", where=str(beside)) from error
    if not isinstance(manifest, dict) or "tar_sha256" not in manifest:
        raise InputError("not a manifest", where=str(beside))
    return manifest


def _pieces(path: Path, progress: Progress) -> Iterator[bytes]:
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
            done += len(piece)
            progress(done, total)


def _write(path: Path, text: str) -> None:
    fd, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
