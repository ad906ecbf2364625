"""Where volumes live, and the copy that fills an empty one from an image.

    volumes/<name>/volume.json   what it is: its spec and when it was made
                   _data/        what containers mount
                   copied/       a first-use copy that is complete, being moved into _data
    volumes/.new-…               about to become a volume, the copy of one, or a restore
    volumes/.gone-…              about to be removed

A volume is there or not: it is made and removed by one rename. Whatever begins with a dot is left from a
daemon that was killed; `recover` removes it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hawse_agent.errors import Conflict, HostRefused, InputError, NotFound, NotSupported, OutOfSpace
from hawse_agent.linux import tree
from hawse_agent.linux.files import disk_usage
from hawse_agent.paths import Paths
from hawse_agent.spec import codec
from hawse_agent.spec.volume import VolumeSpec
from hawse_agent.volumes import image

DATA = "_data"
_ABOUT = "volume.json"
_COPIED = "copied"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_MAX_NAME = 255


@dataclass(frozen=True, kw_only=True)
class VolumeInfo:
    spec: VolumeSpec
    created: float
    path: Path
    """What a container mounts."""


class VolumeStore:
    def __init__(self, paths: Paths) -> None:
        self._root = paths.volumes
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)

    def create(self, spec: VolumeSpec) -> VolumeInfo:
        """Make the volume; the one that is there when it has the same options. Raises Conflict otherwise."""
        _check(spec)
        with refused(f"create volume {spec.name}"):
            fresh = self.staging()
            try:
                (fresh / DATA).mkdir()
                _write(fresh / _ABOUT, {"spec": codec.to_json(spec), "created": time.time()})
                fresh.chmod(0o711)
                fresh.rename(self._root / spec.name)
            except OSError as error:
                tree.remove(fresh)
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        info = self.get(spec.name)
        if dict(info.spec.options) != dict(spec.options):
            raise Conflict(f"a volume named {spec.name} already exists with other driver options")
        return info

    def get(self, name: str) -> VolumeInfo:
        home = self._root / name
        try:
            if not _NAME.fullmatch(name):
                raise FileNotFoundError(name)
            about = json.loads((home / _ABOUT).read_bytes())
            spec = codec.from_json(VolumeSpec, about["spec"], str(home / _ABOUT))
            created = float(about["created"])
        except FileNotFoundError:
            raise NotFound(f"get {name}: no such volume") from None
        except (ValueError, KeyError, TypeError, InputError):
            # Spoilt by a power cut. It is the data that counts: a volume without options.
            if not (home / DATA).is_dir():
                raise NotFound(f"get {name}: no such volume") from None
            spec, created = VolumeSpec(name=name), (home / DATA).stat().st_ctime
        return VolumeInfo(spec=spec, created=created, path=home / DATA)

    def list(self) -> list[VolumeInfo]:
        found = []
        for name in sorted(os.listdir(self._root)):
            with suppress(NotFound):  # removed meanwhile, or no volume
                found.append(self.get(name))
        return found

    def path(self, name: str) -> Path:
        return self.get(name).path

    def remove(self, name: str) -> None:
        home = self.get(name).path.parent
        gone = self._root / f".gone-{secrets.token_hex(8)}"
        with refused(f"remove volume {name}"):
            home.rename(gone)
            tree.remove(gone)

    def size(self, name: str) -> int:
        """Bytes that it takes on the disk; a file with several links counts once."""
        return disk_usage(self.path(name))

    def populate(self, name: str, layers: tuple[Path, ...], target: str) -> None:
        """Fill an empty volume with what an image has at `target`; owner and mode come along.

        `layers` are topmost first. The data directory stays the same one, since another container may have
        it mounted already; what is moved into it was copied completely before.
        """
        data = self.path(name)
        if any(os.scandir(data)) or not layers:
            return
        with refused(f"copy {target} of the image into volume {name}"):
            fresh = self.staging()
            try:
                if image.copy(layers, target, fresh):
                    fresh.rename(data.parent / _COPIED)
                    _move_in(data.parent / _COPIED, data)
            finally:
                if fresh.exists():
                    tree.remove(fresh)

    def staging(self) -> Path:
        """A new directory on the volumes' file system; removed by `recover` when it is left behind."""
        path = self._root / f".new-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        return path

    def recover(self) -> None:
        """After a crash: finish copies that were complete, remove everything else that was not."""
        for entry in self._root.iterdir():
            if entry.name.startswith("."):
                tree.remove(entry)
            elif (entry / _COPIED).is_dir():
                _move_in(entry / _COPIED, entry / DATA)


@contextmanager
def refused(what: str) -> Iterator[None]:
    """An OSError inside says what was tried, and whether space is the reason."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "remove containers, images or volumes, then run again"
            raise OutOfSpace(f"{what}: the disk is full", hint=hint) from error
        reason = error.strerror or str(error)
        raise HostRefused(f"{what}: {f'{error.filename}: ' if error.filename else ''}{reason}") from error


def _check(spec: VolumeSpec) -> None:
    if not _NAME.fullmatch(spec.name) or len(spec.name) > _MAX_NAME:
        raise InputError(
            f"{spec.name!r} is no name for a volume", hint="letters, digits, _ . and -; no dot in front"
        )
    for option in spec.options:
        raise NotSupported(f"volume {spec.name}: the local driver's option {option!r} is not supported")


def _write(path: Path, value: object) -> None:
    with path.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _move_in(copied: Path, data: Path) -> None:
    """Move what was copied into the data directory; may be repeated after a crash."""
    for name in os.listdir(copied):
        os.rename(copied / name, data / name)
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (copied, data)]
    try:
        image.copy_attributes(*fds)
    finally:
        for fd in fds:
            os.close(fd)
    copied.rmdir()
