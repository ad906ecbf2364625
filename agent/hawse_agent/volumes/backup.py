"""Backup of a volume into a stream, and restore from one.

The stream is a plain tar (pax headers, extended attributes and with them ACLs, hard links, sparse files,
numeric owners) that `tar` reads, compressed or not. It is read as it passes, so the manifest says what is in
the stream, with a SHA-256 for each file and one for the whole.

A restore unpacks into a new directory and compares every entry with the manifest; only then are the
directories exchanged. Refused: a device that no container may make, names that lead out.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from hawse_agent.errors import InputError, NotSupported, ProtocolError
from hawse_agent.images.compression import Readable, plain
from hawse_agent.images.tar import Entry, Kind, TarError, TarReader
from hawse_agent.linux import files, tree, zstd
from hawse_agent.spec.volume import VolumeSpec
from hawse_agent.volumes.store import VolumeInfo, VolumeStore, refused
from hawse_agent.volumes.unpack import Unpacker, clean, content_digest
from hawse_agent.volumes.writer import open_tar

Compression = Literal["zstd", "gzip", "none"]

FORMAT = 1
_GZIP_LEVEL = 6
_ZSTD_THREADS = 2
_DEVICES = frozenset(
    os.makedev(*numbers) for numbers in ((0, 0), (1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))
)
"""What any container may make: overlay's whiteout, null, zero, full, random, urandom, tty, ptmx."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    path: str
    """Below the volume; its own directory is "."."""
    type: Kind
    mode: int
    uid: int
    gid: int
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    """Of a file's content; of a sparse file, of its map and its stored parts."""
    link: str = ""
    """Target of a symbolic link; for a hard link, the path of its first name."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    format: int
    volume: VolumeSpec
    created: float
    version: str
    """Of the agent that made it."""
    compression: Compression
    tar_sha256: str
    """Of the stream as it is sent, compression included."""
    bytes: int
    """Length of that stream."""
    files: tuple[FileEntry, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()
    """What changed while it was read; what has no place in a tar."""


def write_backup(
    info: VolumeInfo, out: Callable[[bytes], None], compression: Compression, version: str
) -> Manifest:
    """Write the tarball to `out`. Raises HostRefused, NotSupported for a device; what `out` raises."""
    name = info.spec.name
    created = time.time()
    sink = _Sink(out)
    warnings: list[str] = []
    entries: list[FileEntry] = []
    with open_tar(info.path, warnings) as source, _compressor(sink, compression) as compressor:
        reader = TarReader(_Tee(source, compressor))
        for entry in reader:
            _check_device(entry, f"volume {name}")
            digest = content_digest(entry, reader.data()) if entry.kind == "file" else ""
            entries.append(_described(entry, digest))
        reader.drain()
    return Manifest(
        format=FORMAT,
        volume=info.spec,
        created=created,
        version=version,
        compression=compression,
        tar_sha256=sink.sha256.hexdigest(),
        bytes=sink.bytes,
        files=tuple(entries),
        warnings=tuple(warnings),
    )


def _to_disk(directory: Path) -> None:
    """Everything on its file system."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files.syncfs(fd)
    finally:
        os.close(fd)


class Restore:
    """`receive`, `swap`, `discard`, in this order; until `swap` the volume keeps the data that it has."""

    def __init__(self, store: VolumeStore, name: str, manifest: Manifest) -> None:
        if manifest.format != FORMAT:
            raise InputError(f"the backup has format {manifest.format}; this agent reads {FORMAT}")
        self.manifest = manifest
        self._store = store
        self._name = name
        with refused(f"restore volume {name}"):
            self._directory = store.staging()
        self._verified = False

    def receive(self, chunks: Iterable[bytes]) -> None:
        """Unpack and verify. Raises InputError for a tarball that is not the manifest's, OutOfSpace."""
        source = _Source(chunks)
        with refused(f"restore volume {self._name}"):
            try:
                self._unpack(source)
            except (TarError, EOFError, ProtocolError) as error:
                raise self._damaged(str(error)) from error
            if source.bytes != self.manifest.bytes:
                raise self._damaged(f"{source.bytes} bytes came, {self.manifest.bytes} were expected")
            if source.sha256.hexdigest() != self.manifest.tar_sha256:
                raise self._damaged("its SHA-256 is not the one in the manifest")
        self._verified = True

    def swap(self) -> None:
        """Exchange the verified directory with the volume's; nothing may have it mounted."""
        if not self._verified:
            raise InputError(f"the backup for volume {self._name} was not received completely")
        with refused(f"restore volume {self._name}"):
            target = self._store.path(self._name)
            # Else a power cut could find the exchange on the disk, and neither the new data nor the old.
            _to_disk(self._directory)
            files.exchange(target, self._directory)
            _to_disk(target)

    def discard(self) -> None:
        """Remove what is not the volume's data: an unfinished restore, or what the volume held before."""
        with refused(f"restore volume {self._name}"):
            if self._directory.exists():
                tree.remove(self._directory)

    def _unpack(self, source: _Source) -> None:
        expected = iter(self.manifest.files)
        unpacker = Unpacker(self._directory)
        try:
            reader = TarReader(plain(source))
            for entry in reader:
                _check_device(entry, "the backup")
                wanted = next(expected, None)
                digest = unpacker.add(entry, reader.data())
                if wanted is None or _described(entry, digest) != wanted:
                    raise self._damaged(f"{entry.name} is not what the manifest says")
            reader.drain()
            source.drain()
            if (missing := next(expected, None)) is not None:
                raise self._damaged(f"{missing.path} is missing")
            unpacker.finish()
        finally:
            unpacker.close()

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"the backup for volume {self._name} is damaged or incomplete: {reason}",
            hint="the volume keeps the data that it has",
        )


def _described(entry: Entry, digest: str) -> FileEntry:
    link = entry.link if entry.kind == "symlink" else clean(entry.link) if entry.kind == "hardlink" else ""
    return FileEntry(
        path=clean(entry.name) or ".",
        type=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size if entry.kind == "file" else 0,
        mtime_ns=entry.mtime_ns,
        sha256=digest,
        link=link,
    )


def _check_device(entry: Entry, where: str) -> None:
    if entry.kind == "block" or (entry.kind == "character" and entry.device not in _DEVICES):
        numbers = f"{os.major(entry.device)}:{os.minor(entry.device)}"
        raise NotSupported(f"{where} has the {entry.kind} device {numbers}: {entry.name}")


class _Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Sink:
    """Hashes and counts what leaves."""

    def __init__(self, out: Callable[[bytes], None]) -> None:
        self._out = out
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes, /) -> None:
        self.sha256.update(data)
        self.bytes += len(data)
        self._out(data)


class _Source:
    """Hashes and counts what arrives."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int, /) -> bytes:
        while not self._buffer:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self.sha256.update(chunk)
            self.bytes += len(chunk)
            self._buffer = bytes(chunk)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


class _Tee:
    """What is read also goes to the compressor."""

    def __init__(self, source: Readable, target: _Writer) -> None:
        self._source = source
        self._target = target

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        if data:
            self._target.write(data)
        return data


class _Gzip:
    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._zlib = zlib.compressobj(_GZIP_LEVEL, wbits=31)

    def write(self, data: bytes, /) -> None:
        if packed := self._zlib.compress(data):
            self._sink.write(packed)

    def close(self) -> None:
        self._sink.write(self._zlib.flush())


@contextmanager
def _compressor(sink: _Sink, compression: Compression) -> Iterator[_Writer]:
    """Completes the stream when it is left without an error."""
    if compression == "none":
        yield sink
    elif compression == "gzip":
        gzip = _Gzip(sink)
        yield gzip
        gzip.close()
    else:
        with zstd.ZstdWriter(sink, threads=_ZSTD_THREADS) as writer:
            yield writer
