"""The context of a build: the client's tar, unpacked into a private directory.

Nothing of it is trusted: entries are made below an opened directory, links lead nowhere out, owners are
root's, and everything is read again through `openat2`. The directory goes with the build.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hawse_agent.build import globs, placing
from hawse_agent.errors import InputError
from hawse_agent.images.blobs import disk
from hawse_agent.images.compression import Readable, plain
from hawse_agent.images.extract import Extractor
from hawse_agent.images.tar import TarError, TarReader
from hawse_agent.linux import tree
from hawse_agent.spec import ignore

DEFAULT = "Dockerfile"
_MAX_DOCKERFILE = 4 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Context:
    """Below an opened directory, which is `path` on the host."""

    def __init__(self, root: int, path: Path) -> None:
        self.root = root
        self.path = path

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
                for entry in reader:
                    extractor.extract(entry, reader.data())
                extractor.finish()
                reader.drain()
        except (TarError, EOFError) as error:
            raise InputError(f"the build's context: {error}") from error
        finally:
            extractor.close()
        yield Context(root, path)
    finally:
        os.close(root)
