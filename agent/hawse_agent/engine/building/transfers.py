"""COPY and ADD.

Content is hashed first, so that the cache knows it whatever its times are. Of a stage or an image, whose
layers never change, they themselves are tried as the key before anything is read.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hawse_agent.build import globs, placing, values, walk
from hawse_agent.build.cache import key
from hawse_agent.build.draft import Draft
from hawse_agent.build.grammar import is_url
from hawse_agent.build.instructions import Add, Transfer
from hawse_agent.build.placing import Placed
from hawse_agent.engine.building.downloads import download, name_of
from hawse_agent.engine.building.surroundings import Building
from hawse_agent.errors import InputError
from hawse_agent.images.blobs import disk
from hawse_agent.images.image import Layer
from hawse_agent.images.tar import Entry
from hawse_agent.linux import tree

_NUMBERS = re.compile(r"[0-9]+(:[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something to be put into the image: below an opened root, or what a heredoc says."""

    root: int
    path: str
    digest: str
    """`file:HEX` or `dir:HEX`."""
    is_directory: bool = False
    content: bytes | None = None
    unpacked: bool = False
    """An archive, of which the content is wanted."""


class Transfers:
    """One instruction, whose variables are replaced."""

    def __init__(self, building: Building, draft: Draft, instruction: Transfer, other: Draft | None) -> None:
        """`other`: the stage or image that `--from` names."""
        self._building = building
        self._draft = draft
        self._instruction = instruction
        self._other = other
        self._destination = placing.destination(
            draft.config.get("WorkingDir") or "/", instruction.destination
        )

    @contextmanager
    def opened(self) -> Iterator[list[Source]]:
        """Raises InputError for what is not there."""
        with ExitStack() as stack:
            if self._other is None:
                root = self._building.context.root
            else:
                root = stack.enter_context(self._building.looking_into(self._other))
            sources = [one for source in self._instruction.sources for one in self._found(root, source)]
            sources += [_heredoc(one.name, one.content) for one in self._instruction.heredocs]
            if not sources:
                raise InputError("no source files were specified")
            if len(sources) > 1 and not self._destination.endswith("/"):
                word = self._instruction.text.split(None, 1)[0].upper()
                raise InputError(
                    f"when using {word} with more than one source file, the destination must be a directory "
                    "and end with a /"
                )
            yield sources

    def quick_key(self) -> str | None:
        """Without reading anything, where what it takes cannot have changed."""
        instruction = self._instruction
        if self._other is not None:
            return key("copy", *self._place(), "layers", self._other.diff_ids, instruction.sources)
        if isinstance(instruction, Add) and instruction.checksum and not instruction.heredocs:
            return key("copy", *self._place(), "checksum", instruction.checksum, instruction.sources)
        return None

    def key(self, sources: list[Source]) -> str:
        return key(
            "copy", *self._place(), *((s.digest, _name(s), s.is_directory, s.unpacked) for s in sources)
        )

    def _place(self) -> tuple[object, ...]:
        instruction = self._instruction
        # Whom a name means is told by what is below.
        named = instruction.chown and not _NUMBERS.fullmatch(instruction.chown)
        below = () if instruction.link and not named else self._draft.diff_ids
        return below, self._destination, instruction.chown, instruction.chmod, instruction.link

    @property
    def told(self) -> bool:
        """Whether `comment` says all that it is made from."""
        instruction = self._instruction
        unpack = instruction.unpack if isinstance(instruction, Add) else None
        return not (instruction.chmod or instruction.link or instruction.heredocs) and unpack is None

    def comment(self, sources: list[Source]) -> str:
        """The history's, as Docker's builder writes it."""
        word = self._instruction.text.split(None, 1)[0].upper()
        chown = f"--chown={self._instruction.chown} " if self._instruction.chown else ""
        return f"{word} {chown}{_joined([s.digest for s in sources])} in {self._instruction.destination} "

    def layer(self, sources: list[Source]) -> Layer | None:
        home = self._building.directory()
        instruction = self._instruction
        below = None if instruction.link else self._draft
        with self._building.writing(below, home) as root, disk("write the layer"):
            owner = self._owner(root) if instruction.chown else None
            mode = values.mode(instruction.chmod) if instruction.chmod else None
            for source in sources:
                self._building.stopping.check()
                own = owner
                if source.unpacked:
                    own = None  # as with Docker's builder: an archive says whose its files are
                elif own is None and self._other is None:
                    own = (0, 0)  # whoever has made the context
                _put(root, Placed(destination=self._destination, owner=own, mode=mode), source)
        layer = self._building.layer(home / "upper")
        with disk("clear up after the layer"):
            tree.remove(home)
        return layer

    def _owner(self, root: int) -> placing.Owner:
        if not self._instruction.link:
            return placing.owner(root, self._instruction.chown)
        with self._building.looking_into(self._draft) as below:
            return placing.owner(below, self._instruction.chown)

    # -- what is taken ------------------------------------------------------------------------------

    def _found(self, root: int, source: str) -> Iterator[Source]:
        if is_url(source):
            yield self._downloaded(source)
            return
        path = globs.clamped(source)
        paths = (
            _matching(root, path) if globs.has_wildcards(path) and not placing.exists(root, path) else [path]
        )
        if not paths:
            raise InputError(f"no source files were specified: nothing matches {source}")
        for one in paths:
            if not placing.exists(root, one):
                where = "the context, or .dockerignore leaves it out" if self._other is None else "it"
                raise InputError(f"{source} is not in {where}: file not found")
            yield self._source(root, one)

    def _source(self, root: int, path: str) -> Source:
        fd = tree.open_in(root, path)
        try:
            directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
        owners = self._other is not None and not self._instruction.chown
        context = self._building.context
        known = context.digests if root == context.root else {}
        real = tree.follow(root, path).strip("/")
        below = real if directory else real.rpartition("/")[0]
        digest = walk.digest(
            walk.walk(root, path),
            owners=owners,
            known=known,
            below=f"{below}/" if below else "",
            check=self._building.stopping.check,
        )
        unpacked = isinstance(self._instruction, Add) and not directory and self._unpacks(root, path)
        return Source(
            root=root,
            path=path,
            digest=f"{'dir' if directory else 'file'}:{digest}",
            is_directory=directory,
            unpacked=unpacked,
        )

    def _unpacks(self, root: int, path: str, *, remote: bool = False) -> bool:
        assert isinstance(self._instruction, Add)
        wanted = self._instruction.unpack
        if wanted is False or (remote and wanted is None):
            return False
        fd = tree.open_file_in(root, path, os.O_RDONLY)
        with open(fd, "rb") as file:
            return placing.is_archive(file)

    def _downloaded(self, url: str) -> Source:
        """As Docker has it: mode 600, time by Last-Modified, name by the address."""
        name = name_of(url)
        if not name and self._destination.endswith("/"):
            raise InputError(f"cannot tell a file's name from {url}", hint="name it in the destination")
        directory = self._building.directory()
        path = directory / (name or "download")
        self._download(url, path)
        with disk("open a download"):
            root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._building.closing.callback(os.close, root)
        source = self._source(root, path.name)
        return Source(
            root=root,
            path=path.name,
            digest=source.digest,
            unpacked=self._unpacks(root, path.name, remote=True),
        )

    def _download(self, url: str, path: Path) -> None:
        self._building.say(f"Downloading {url}\n")
        assert isinstance(self._instruction, Add)
        wanted = self._instruction.checksum
        algorithm = wanted.partition(":")[0] or "sha256"
        digest, when = download(url, path, self._building.stopping, algorithm=algorithm)
        if wanted and wanted != digest:
            raise InputError(f"{url} has the digest {digest}, not {wanted}")
        path.chmod(0o600)
        os.utime(path, (when, when))


def _put(root: int, placed: Placed, source: Source) -> None:
    if source.content is not None:
        entry = Entry(
            name=source.path,
            kind="file",
            mode=0o644,
            uid=0,
            gid=0,
            size=len(source.content),
            mtime_ns=time.time_ns(),
        )
        placing.put_file(root, placed, walk.Found(entry=entry, data=iter([source.content])))
    elif source.is_directory:
        placing.put_directory(root, placed, walk.walk(source.root, source.path))
    elif source.unpacked:
        fd = tree.open_file_in(source.root, source.path, os.O_RDONLY)
        with open(fd, "rb") as file:
            placing.put_archive(root, placed, file, source.path)
    else:
        for found in walk.walk(source.root, source.path):
            entry = found.entry
            entry.name = posixpath.basename(source.path)
            placing.put_file(root, placed, walk.Found(entry=entry, data=found.data))


def _heredoc(name: str, content: str) -> Source:
    data = content.encode()
    digest = hashlib.sha256(data).hexdigest()
    return Source(root=-1, path=name, digest=f"file:{digest}", content=data)


def _name(source: Source) -> str:
    """What counts of where it was."""
    return "" if source.is_directory else posixpath.basename(source.path)


def _joined(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return f"multi:{hashlib.sha256(','.join(digests).encode()).hexdigest()}"


def _matching(root: int, pattern: str) -> list[str]:
    """Paths, sorted; only directories that can hold a match are read, since a pattern goes segment by
    segment."""
    found = [""]
    for segment in pattern.split("/"):
        deeper = []
        for parent in found:
            try:
                directory = tree.open_in(root, parent, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                names = sorted(os.listdir(directory))
            finally:
                os.close(directory)
            deeper += [f"{parent}/{name}".lstrip("/") for name in names if globs.match(segment, name)]
        found = deeper
    return found
