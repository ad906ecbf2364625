"""What a build works on: a directory without what .dockerignore leaves out, or what comes on stdin; as a tar.

    DIR           its Dockerfile, or the one of -f, which may lie outside; `-f -`: the Dockerfile is on stdin
    -             on stdin is a tar, compressed or not, or a Dockerfile alone

Owners are not sent: everything in a context is root's, as with docker.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hawse.docker.archive import tar_of
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec import ignore
from hawse_agent.spec.ignore import Ignore, Matched

DOCKERFILE = "Dockerfile"
_OUTSIDE = ".dockerfile.hawse"
"""The name in the context of a Dockerfile that is not in it."""
_PIECE = 1 << 18
_REMOTE = re.compile(r"(git|ssh|https?|git\+ssh)://|git@|github\.com/")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_MAGIC = 257
"""Where a tar says `ustar`."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """`dockerfile` is its path in the tar that `pieces` makes."""

    dockerfile: str
    pieces: Callable[[], Iterator[bytes]]
    once: bool = False
    """It comes from stdin, and cannot be read again."""


def context(path: str, dockerfile: str, stdin: IO[bytes]) -> Context:
    """Of `hawse build PATH -f DOCKERFILE`. Raises InputError, and NotSupported for what lies elsewhere."""
    if path == "-":
        if dockerfile == "-":
            raise InputError("context and Dockerfile cannot both be on stdin")
        return _from_stdin(stdin, dockerfile)
    if _REMOTE.match(path) or (path.endswith(".git") and not Path(path).exists()):
        raise NotSupported(
            f"a context from elsewhere is not supported by hawse: {path}",
            hint="clone it, and name the directory",
        )
    top = Path(path)
    if not top.is_dir():
        raise InputError(f"{path} is no directory: a build's context is one, or - for stdin")
    if dockerfile == "-":
        return _with_outside(top, stdin.read())
    file = Path(dockerfile) if dockerfile else top / DOCKERFILE
    if dockerfile and not file.is_absolute() and not file.exists() and (top / file).exists():
        file = top / file  # as Compose has it; docker takes it from the working directory alone
    if not file.is_file():
        raise InputError(f"no such Dockerfile: {file}")
    inside = _inside(top, file)
    return _with_outside(top, file.read_bytes(), file) if inside is None else _of_directory(top, inside)


def with_text(path: str, dockerfile: str) -> Context:
    """A directory with a Dockerfile that stands elsewhere, as text."""
    if not Path(path).is_dir():
        raise InputError(f"{path} is no directory: a build's context is one")
    return _with_outside(Path(path), dockerfile.encode())


def _inside(top: Path, file: Path) -> str | None:
    """The Dockerfile's path in the context; None when it is not there."""
    real, directory = Path(os.path.realpath(file.parent)) / file.name, Path(os.path.realpath(top))
    return str(real.relative_to(directory)) if real.is_relative_to(directory) else None


def _of_directory(top: Path, dockerfile: str) -> Context:
    ignored = _ignored(top, ignore.candidates(dockerfile)).without(dockerfile, ignore.FILE)
    return Context(
        dockerfile=dockerfile,
        pieces=lambda: tar_of(_walk(str(top), ignored), change=_owned_by_root),
    )


def _with_outside(top: Path, dockerfile: bytes, file: Path | None = None) -> Context:
    """The Dockerfile gets a name in the context, and is no part of the build."""
    beside = _read(Path(f"{file}{ignore.FILE}")) if file is not None else None
    own = beside if beside is not None else _read(top / ignore.FILE)
    rules = Ignore.parse(own or b"", file=str(top / ignore.FILE))
    hidden = (own if own is not None else ignore.FILE.encode()) + f"\n{_OUTSIDE}\n".encode()

    def pieces() -> Iterator[bytes]:
        yield from _file(_OUTSIDE, dockerfile)
        yield from _file(ignore.FILE, hidden)
        listed = ((path, name) for path, name in _walk(str(top), rules) if name != ignore.FILE)
        yield from tar_of(listed, change=_owned_by_root)

    return Context(dockerfile=_OUTSIDE, pieces=pieces)


def _ignored(top: Path, names: tuple[str, ...]) -> Ignore:
    for name in names:
        found = _read(top / name)
        if found is not None:
            return Ignore.parse(found, file=str(top / name))
    return Ignore()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _walk(top: str, rules: Ignore, directory: str = "", above: Matched = ()) -> Iterator[tuple[str, str]]:
    """Paths here with their names in the context, a directory before what is in it."""
    where = f"{top}/{directory}" if directory else top
    try:
        names = sorted(os.listdir(where))
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}") from error
    for name in names:
        path = f"{directory}/{name}" if directory else name
        excluded, matched = rules.look(path, above)
        if not excluded:
            yield f"{top}/{path}", path
        if excluded and not rules.keeps_below(path):
            continue
        if stat.S_ISDIR(os.lstat(f"{top}/{path}").st_mode):
            yield from _walk(top, rules, path, matched)


def _owned_by_root(entry: tarfile.TarInfo) -> None:
    entry.uid = entry.gid = 0


def _from_stdin(stdin: IO[bytes], dockerfile: str) -> Context:
    start = stdin.read(tarfile.BLOCKSIZE)
    if start.startswith(_COMPRESSED) or start[_MAGIC : _MAGIC + 5] == b"ustar":

        def pieces() -> Iterator[bytes]:
            yield start
            while piece := stdin.read(_PIECE):
                yield piece

        return Context(dockerfile=dockerfile or DOCKERFILE, pieces=pieces, once=True)
    if dockerfile:
        raise InputError("both stdin and --file name a Dockerfile")
    text = start + stdin.read()
    if not text.strip():
        raise InputError("nothing on stdin: a Dockerfile or a tar was expected")

    def alone() -> Iterator[bytes]:
        yield from _file(DOCKERFILE, text)
        yield bytes(2 * tarfile.BLOCKSIZE)

    return Context(dockerfile=DOCKERFILE, pieces=alone)


def _file(name: str, data: bytes) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    yield entry.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
