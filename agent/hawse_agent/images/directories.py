"""Unpacked layers: `layers/<hex of the diff_id>`, complete or absent.

One is filled in `incoming/` and appears by rename; what goes is moved there first and then taken apart, so
neither a crash nor a full disk leaves half a layer under its name. Who has which layer, others know.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hawse_agent.images.blobs import disk
from hawse_agent.linux import files, tree
from hawse_agent.paths import Paths

_EMPTY = "empty"


class LayerDirectories:
    """Raises OutOfSpace, HostRefused."""

    def __init__(self, paths: Paths) -> None:
        self._layers = paths.layers
        self._incoming = paths.incoming
        self._usage: dict[str, int] = {}
        """By diff_id: a layer does not change."""
        self._unsynced = False
        self._syncing = threading.Lock()

    def path(self, diff_id: str) -> Path:
        return self._layers / diff_id.removeprefix("sha256:")

    def empty(self) -> Path:
        """What an image without layers is made of."""
        path = self._layers / _EMPTY
        path.mkdir(mode=0o755, exist_ok=True)
        return path

    def disk_usage(self, diff_id: str) -> int:
        """Bytes on the disk; 0 when it is not here."""
        if diff_id not in self._usage:
            path = self.path(diff_id)
            if not path.exists():
                return 0
            self._usage[diff_id] = files.disk_usage(path)
        return self._usage[diff_id]

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """A directory to fill, and then to `publish`: if that does not happen, it is gone after the block."""
        with disk("unpack a layer"):
            directory = Path(tempfile.mkdtemp(dir=self._incoming, prefix="layer-"))
            directory.chmod(0o755)  # the root of a tar that has no entry for it
        try:
            yield directory
        finally:
            if directory.exists():
                tree.remove(directory)

    def publish(self, directory: Path, diff_id: str) -> None:
        """Give a complete directory its name; what lay there is litter that nobody names."""
        path = self.path(diff_id)
        with disk(f"keep layer {diff_id}"):
            if path.exists():
                self.bury([self.take_away(diff_id)])
            self._unsynced = True
            os.rename(directory, path)

    def sync(self) -> bool:
        """What was published survives a power cut from now on, and so does all else on the file system; False
        when there was nothing to do."""
        with self._syncing:
            if not self._unsynced:
                return False
            self._unsynced = False  # before: what is published meanwhile needs another one
            try:
                with disk("keep layers"):
                    _sync(self._layers)
            except BaseException:
                self._unsynced = True
                raise
            return True

    def take_away(self, diff_id: str) -> Path:
        """Out of its place at once; returns what remains to be buried."""
        self._usage.pop(diff_id, None)
        path = self.path(diff_id)
        grave = Path(tempfile.mkdtemp(dir=self._incoming, prefix="gone-"))
        if path.exists():
            path.rename(grave / path.name)
        return grave

    def bury(self, graves: Collection[Path]) -> None:
        for grave in graves:
            tree.remove(grave)

    def sweep(self, named: Collection[str]) -> None:
        """Litter of a crash: what was being filled or taken apart, and layers that nobody names."""
        with disk(f"clear {self._incoming}"):
            for path in self._incoming.iterdir():
                if path.is_dir() and not path.is_symlink():
                    tree.remove(path)
                else:
                    path.unlink()
            kept = {self.path(diff_id).name for diff_id in named} | {_EMPTY}
            for path in self._layers.iterdir():
                if path.name not in kept:
                    self.bury([self.take_away(path.name)])


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files.syncfs(fd)
    finally:
        os.close(fd)
