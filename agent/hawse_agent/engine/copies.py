"""`cp`, `diff` and `export`: files out of and into containers as tar streams, whether they run or not.

A container is looked at through a descriptor of its root (`runtime.view`): below it every path is resolved by
the kernel as inside the container, so that no link of it leads to the host, and nothing of it is executed.
Reading holds no lock: a slow client keeps nobody from starting or removing the container. What is put into a
container that does not run is received whole before it is kept from being started, and then unpacked.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.changes import Change, changes
from hawse_agent.engine.containers import Containers
from hawse_agent.engine.events import EventBus
from hawse_agent.errors import Conflict, HawseError, HostRefused, InputError, NotFound
from hawse_agent.images.compression import Readable, plain
from hawse_agent.images.extract import Extractor
from hawse_agent.images.tar import TarError, TarReader
from hawse_agent.images.tarball import END, TarWriter
from hawse_agent.linux import files, namespace, privilege, tree
from hawse_agent.paths import Paths
from hawse_agent.runtime import identity, view
from hawse_agent.spec.records import ContainerRecord, IdRange
from hawse_agent.volumes.store import refused

_PIECE = 1 << 16
_READ = 1 << 20


class ReadOnly(HawseError):
    status = 403


@dataclass(frozen=True, kw_only=True)
class PathStat:
    name: str
    size: int
    mode: int
    """As stat(2) has it."""
    mtime_ns: int
    link_target: str = ""
    """Of a link: the path that it stands for, all links in it followed."""


@dataclass(frozen=True, kw_only=True)
class _View:
    root: int
    check: Callable[[], None]
    """Raises when what it shows has gone meanwhile."""
    ids: IdRange | None = None
    """While a container with ids of its own runs, owners are the host's; on the disk they are its own."""


class Copies:
    def __init__(self, *, paths: Paths, containers: Containers, events: EventBus) -> None:
        self._paths = paths
        self._containers = containers
        self._announce = Announcer(events)

    # out

    def stat(self, reference: str, path: str) -> PathStat:
        """Raises NotFound; a link as the last component is not followed, unless a `/` comes after it."""
        record = self._containers.record(reference)
        with self._view(record) as seen, _finding(path, reference):
            fd = _open(seen.root, clean(path))
            try:
                return _stat(seen.root, clean(path), fd)
            finally:
                os.close(fd)

    def read(self, reference: str, path: str) -> tuple[PathStat, Iterator[bytes]]:
        """The tar of a file or directory, whose entries begin with its last component. Raises NotFound."""
        record = self._containers.record(reference)
        place = clean(path)
        with ExitStack() as opened:
            seen = opened.enter_context(self._view(record))
            with _finding(path, reference):
                fd = _open(seen.root, place)
                opened.callback(os.close, fd)
                status = _stat(seen.root, place, fd)
            writer = TarWriter([], seen.ids)
            if stat.S_ISDIR(status.mode):
                pieces = writer.directory(fd, os.fsencode(status.name.rstrip("/") + "/"))
            else:
                pieces = writer.entry(fd, os.fsencode(status.name))
            self._announce.container("archive-path", record)
            return status, _archive(pieces, seen, opened.pop_all(), f"copy {path}")

    def export(self, reference: str) -> Iterator[bytes]:
        """The tar of the whole root, without what is mounted on it."""
        record = self._containers.record(reference)
        with ExitStack() as opened:
            seen = opened.enter_context(self._view(record, mounts=False))
            self._announce.container("export", record)
            pieces = TarWriter([], seen.ids).directory(seen.root, b"")
            return _archive(pieces, seen, opened.pop_all(), "export")

    def changes(self, reference: str) -> list[Change]:
        stack = self._containers.stack(self._containers.record(reference))
        with ExitStack() as opened, refused("compare the container with its image"):
            image = view.image(stack)
            opened.callback(os.close, image)
            upper = os.open(stack.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, upper)
            return changes(upper, image)

    # in

    def write(
        self, reference: str, path: str, archive: Readable, *, keep_kinds: bool = False, as_user: bool = False
    ) -> None:
        """Unpack a tar, compressed or not, in the directory `path`.

        `keep_kinds`: no directory is replaced by a file, nor a file by a directory. `as_user`: all belongs to
        the container's user, if it has one. Raises NotFound, InputError, ReadOnly, Conflict.
        """
        record = self._containers.record(reference)
        wanted = _Wanted(
            reference=reference,
            path=path,
            keep_kinds=keep_kinds,
            user=self._containers.user(record) if as_user else "",
        )
        pidfd = self._containers.open_init(record.id)
        if pidfd is not None:
            with _running(pidfd, record) as seen:
                _unpack(seen, archive, wanted)
        else:
            held = self._containers.holding([record.id])
            with self._received(archive) as file, held, self._to_write(record) as seen:
                _unpack(seen, file, wanted)
        self._announce.container("extract-to-dir", record)

    @contextmanager
    def _received(self, archive: Readable) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryFile(dir=self._paths.incoming) as file:
            while data := archive.read(_READ):
                file.write(data)
            file.seek(0)
            yield file

    # views

    @contextmanager
    def _view(self, record: ContainerRecord, *, mounts: bool = True) -> Iterator[_View]:
        """To read."""
        pidfd = self._containers.open_init(record.id)
        if pidfd is not None:
            with _running(pidfd, record, mounts=mounts) as seen:
                yield seen
            return
        _exists(self._containers, record.id)  # whose files are going is not looked into
        stack = self._containers.stack(record)
        try:
            with refused("look into the container"):
                root = view.stopped(stack) if mounts else view.written(stack)
        except HostRefused:
            _exists(self._containers, record.id)  # that it was removed just now says more
            raise
        try:
            yield _View(root=root, check=lambda: _exists(self._containers, record.id))
        finally:
            os.close(root)

    @contextmanager
    def _to_write(self, record: ContainerRecord) -> Iterator[_View]:
        """While nobody can start it."""
        pidfd = self._containers.open_init(record.id)
        if pidfd is not None:  # started before it was kept from it
            with _running(pidfd, record) as seen:
                yield seen
            return
        if self._containers.get(record.id).state.running:
            raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
        with refused("look into the container"):
            root = view.stopped_to_write(self._containers.stack(record))
        try:
            yield _View(root=root, check=lambda: None)
        finally:
            os.close(root)


def clean(path: str) -> str:
    """From the root, without `..`; a last `/` or `/.` stays, since it says that a link is to be followed."""
    if not path:
        raise InputError("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InputError("bad parameter: path cannot have a NUL in it")
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    if path.rstrip("/").rpartition("/")[2] == ".":
        cleaned = cleaned.rstrip("/") + "/."
    if path.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


@contextmanager
def _running(pidfd: int, record: ContainerRecord, *, mounts: bool = True) -> Iterator[_View]:
    """Closes the pidfd."""

    def check() -> None:
        if namespace.has_ended(pidfd):
            raise Conflict(f"container {record.id} ended while its files were copied")

    try:
        try:
            root = view.running(pidfd) if mounts else view.bare(pidfd)
        except ProcessLookupError:  # it has left its namespaces: it is about to have ended
            raise Conflict(f"container {record.id} ended before its files were copied") from None
        try:
            yield _View(root=root, check=check, ids=record.ids)
        finally:
            os.close(root)
    finally:
        os.close(pidfd)


def _exists(containers: Containers, container_id: str) -> None:
    try:
        going = containers.record(container_id).removing
    except NotFound:
        going = True
    if going:
        raise Conflict(f"container {container_id} was removed while its files were copied")


@contextmanager
def _finding(path: str, reference: str) -> Iterator[None]:
    shown = os.fsencode(path).decode(errors="replace")
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"Could not find the file {shown} in container {reference}") from None
    except NotADirectoryError:
        raise InputError(f"{shown} of container {reference}: not a directory") from None
    except OSError as error:
        raise HostRefused(f"{shown} of container {reference}: {os.strerror(error.errno or 0)}") from error


def _open(root: int, place: str) -> int:
    """An O_PATH fd. Of the kernel's file systems there is only the top, and that is empty."""
    fd = tree.open_in(root, place, tree.O_PATH | os.O_NOFOLLOW)
    try:
        if files.is_of_the_kernel(fd):
            above = tree.open_in(root, posixpath.dirname(posixpath.normpath(place)))
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode) or files.is_of_the_kernel(above):
                    raise FileNotFoundError(place)
            finally:
                os.close(above)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _stat(root: int, place: str, fd: int) -> PathStat:
    status = os.fstat(fd)
    return PathStat(
        name=posixpath.basename(place.rstrip("/")) or "/",
        size=status.st_size,
        mode=status.st_mode,
        mtime_ns=status.st_mtime_ns,
        link_target=tree.follow(root, place) if stat.S_ISLNK(status.st_mode) else "",
    )


def _archive(entries: Iterator[bytes], seen: _View, opened: ExitStack, what: str) -> Iterator[bytes]:
    """In pieces that are worth a write. The end of the archive says that it is whole."""
    with opened:
        gathered, size = list[bytes](), 0
        try:
            with refused(what):
                for piece in entries:
                    gathered.append(piece)
                    size += len(piece)
                    if size >= _PIECE:
                        yield b"".join(gathered)
                        gathered, size = [], 0
        except HostRefused:
            seen.check()  # that it has ended says more than what came of it
            raise
        seen.check()
        yield b"".join((*gathered, END))


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    reference: str
    path: str
    keep_kinds: bool
    user: str


def _unpack(seen: _View, archive: Readable, wanted: _Wanted) -> None:
    place = clean(wanted.path)
    with _finding(wanted.path, wanted.reference):
        _check_target(seen.root, place)
    owner = identity.owner_in(seen.root, wanted.user) if wanted.user else None
    extractor = Extractor(
        seen.root,
        what="the archive",
        below=posixpath.normpath(place),
        owner=owner,
        keep_kinds=wanted.keep_kinds,
        ids=seen.ids,
    )
    reader = TarReader(plain(archive))
    root = seen.ids.first if seen.ids is not None else 0
    try:
        with refused(f"copy to {wanted.path}"), privilege.making_files_as(root, root):
            for entry in reader:
                seen.check()
                extractor.extract(entry, reader.data())
            extractor.finish()
        seen.check()
    except (TarError, EOFError) as error:
        raise InputError(f"{error}") from error
    finally:
        extractor.close()


def _check_target(root: int, place: str) -> None:
    fd = tree.open_in(root, place)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InputError("extraction point is not a directory")
        if files.is_of_the_kernel(fd):
            raise InputError(f"{posixpath.normpath(place)} is the kernel's: nothing can be put there")
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            on_root = os.fstat(fd).st_dev == os.fstat(root).st_dev
            what = "container rootfs" if on_root else "mounted volume"
            raise ReadOnly(f"{what} is marked read-only")
    finally:
        os.close(fd)
