"""The context of a build: the client's tar, unpacked into a private directory.

Nothing of it is trusted: entries are made below an opened directory, links lead nowhere out, owners are
root's, and everything is read again through `openat2`. The directory goes with the build.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hawse_agent.build import globs, placing
from hawse_agent.errors import InputError
from hawse_agent.images.blobs import disk
from hawse_agent.images.compression import Readable, plain
from hawse_agent.images.extract import Extractor
from hawse_agent.images.tar import Entry, TarError, TarReader
from hawse_agent.linux import tree
from hawse_agent.spec import ignore

DEFAULT = "Dockerfile"
_MAX_DOCKERFILE = 4 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Context:
    """Below an opened directory, which is `path` on the host."""

    def __init__(self, root: int, path: Path, digests: Mapping[str, bytes]) -> None:
        self.root = root
        self.path = path
        self.digests = digests
        """SHA-256 of the data of files, by path, as far as they are known from receiving them."""

    def dockerfile(self, name: str) -> tuple[str, bytes]:
        """Its name, and what is in it. Raises InputError."""
        names = [name] if name else [DEFAULT, DEFAULT.lower()]
        for candidate in names:
            data = self._read(candidate)
            if data is not None:
                if not data.strip():
                    raise InputError(f"the Dockerfile ({candidate}) cannot be empty")
                return globs.clamped(candidate), data
        raise InputError(f"Cannot locate specified Dockerfile: {names[0]}")

    def drop_ignored(self, dockerfile: str) -> None:
        """Clients always send these; whether COPY sees them is for .dockerignore to say."""
        for name in ignore.candidates(dockerfile):
            data = self._read(name)
            if data is not None:
                rules = ignore.Ignore.parse(data, file=name)
                for path in (dockerfile, *ignore.candidates(dockerfile)):
                    if rules.excludes(path):
                        self._remove(path)
                return

    def paths(self) -> list[str]:
        """All that is in it, relative to the top."""
        found = []
        pending = [""]
        while pending:
            prefix = pending.pop()
            directory = tree.open_in(self.root, prefix, _DIRECTORY | os.O_NOFOLLOW, links=False)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        found.append(f"{prefix}{entry.name}")
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{prefix}{entry.name}/")
            finally:
                os.close(directory)
        return sorted(found)

    def has(self, path: str) -> bool:
        """Links are followed inside."""
        return placing.exists(self.root, path)

    def _read(self, name: str) -> bytes | None:
        try:
            fd = tree.open_file_in(self.root, name, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(fd, "rb") as file:
            data = file.read(_MAX_DOCKERFILE + 1)
        if len(data) > _MAX_DOCKERFILE:
            raise InputError(f"{name} is larger than {_MAX_DOCKERFILE} bytes")
        return data

    def _remove(self, name: str) -> None:
        parent, _, last = name.rpartition("/")
        with suppress(FileNotFoundError, NotADirectoryError):
            directory = tree.open_in(self.root, parent, links=False)
            try:
                if not stat.S_ISDIR(os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode):
                    os.unlink(last, dir_fd=directory)
            finally:
                os.close(directory)


class _Digests:
    """Hashes data on its way. What came is what lies there only as long as each name comes once and below
    directories alone: with the first that does not, nothing is known of any."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}
        self._directories: set[str] = set()
        self._others: set[str] = set()
        self._believable = True

    def of(self, entry: Entry, data: Iterator[bytes]) -> Iterator[bytes]:
        name = "/".join(part for part in entry.name.split("/") if part not in ("", "."))
        if self._believable and not self._is_simple(name, directory=entry.kind == "directory"):
            self._believable = False
            self.known.clear()
        if not self._believable or entry.kind != "file" or entry.segments is not None:
            return data
        return self._hashed(name, data)

    def _hashed(self, name: str, data: Iterator[bytes]) -> Iterator[bytes]:
        own = hashlib.sha256()
        for piece in data:
            own.update(piece)
            yield piece
        self.known[name] = own.digest()

    def _is_simple(self, name: str, *, directory: bool) -> bool:
        above, _, _ = name.rpartition("/")
        while above and above not in self._directories:
            if above in self._others:
                return False
            self._directories.add(above)
            above, _, _ = above.rpartition("/")
        if name in self._others or (not directory and name in self._directories):
            return False
        (self._directories if directory else self._others).add(name)
        return True


@contextmanager
def received(archive: Readable, path: Path) -> Iterator[Context]:
    """The context of a tar, compressed or not, in the empty directory `path`; raises InputError,
    OutOfSpace."""
    with disk("receive the build's context"):
        root = os.open(path, _DIRECTORY)
    try:
        extractor = Extractor(root, what="the build's context", owner=(0, 0))
        try:
            with disk("receive the build's context"):
                reader = TarReader(plain(archive))
                digests = _Digests()
                for entry in reader:
                    extractor.extract(entry, digests.of(entry, reader.data()))
                extractor.finish()
                reader.drain()
        except (TarError, EOFError) as error:
            raise InputError(f"the build's context: {error}") from error
        finally:
            extractor.close()
        yield Context(root, path, digests.known)
    finally:
        os.close(root)
