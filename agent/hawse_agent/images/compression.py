"""Plain bytes out of gzip, zstd, bzip2 and xz: told apart by their first bytes, not by a manifest's word.

Several compressed streams one after another are one. Damaged or cut data raises ProtocolError.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Literal, Protocol

from hawse_agent.errors import InputError, ProtocolError
from hawse_agent.linux.zstd import ZstdReader

Kind = Literal["", "gzip", "zstd", "bzip2", "xz"]

_PIECE = 1 << 18
_XZ_MEMORY = 80 << 20
"""Bytes. What `xz -9` makes takes 65 MB to unpack; a stream can ask for 4 GB."""
_GZIP, _ZSTD, _BZIP2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00"
_ZSTD_SKIPPABLE = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def kind(start: bytes) -> Kind:
    """What a stream with these first bytes (six suffice) is compressed with; "" is nothing."""
    if start.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
        return "zstd"
    if start.startswith(_GZIP):
        return "gzip"
    if start.startswith(_BZIP2):
        return "bzip2"
    return "xz" if start.startswith(_XZ) else ""


def plain(stream: Readable) -> Readable:
    """What is inside `stream`; itself when it is not compressed."""
    ahead = stream if isinstance(stream, Ahead) else Ahead(stream)
    match kind(ahead.peek(6)):
        case "zstd":
            return ZstdReader(ahead)
        case "gzip":
            return _Decompressed(ahead, _Gzip, "gzip")
        case "bzip2":
            return _Decompressed(ahead, bz2.BZ2Decompressor, "bzip2")
        case "xz":
            return _Decompressed(ahead, _xz, "xz")
        case "":
            return ahead


class Ahead:
    """A stream whose first bytes were looked at."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._start = b""

    def peek(self, size: int) -> bytes:
        while len(self._start) < size and (piece := self._stream.read(size - len(self._start))):
            self._start += piece
        return self._start

    def read(self, size: int, /) -> bytes:
        if self._start:
            start, self._start = self._start[:size], self._start[size:]
            return start
        return self._stream.read(size)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib behind the interface that bz2 and lzma have."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


class _Decompressed:
    """At most what was asked for is unpacked at a time, however well it was compressed."""

    def __init__(self, stream: Readable, new: Callable[[], _Decompressor], name: str) -> None:
        self._stream = stream
        self._new = new
        self._name = name
        self._current = new()

    def read(self, size: int, /) -> bytes:
        while True:
            if self._current.eof:
                start = self._next_start()
                if not start:
                    return b""
                self._current = self._new()
                piece = self._decompress(start, size)
            elif self._current.needs_input:
                data = self._stream.read(_PIECE)
                if not data:
                    raise ProtocolError(f"{self._name}: the data ends too early")
                piece = self._decompress(data, size)
            else:
                piece = self._decompress(b"", size)
            if piece:
                return piece

    def _next_start(self) -> bytes:
        """The start of a further stream; b"" at the end. Zeros between and after streams are padding."""
        start = self._current.unused_data.lstrip(b"\0")
        while not start and (piece := self._stream.read(_PIECE)):
            start = piece.lstrip(b"\0")
        return start

    def _decompress(self, data: bytes, size: int) -> bytes:
        try:
            return self._current.decompress(data, size)
        except lzma.LZMAError as error:
            if "limit" in str(error).lower():
                raise InputError(
                    f"xz: unpacking it takes more than {_XZ_MEMORY >> 20} MB of memory",
                    hint="compress it with xz -9 or less, or with zstd",
                ) from error
            raise ProtocolError(f"{self._name}: the data is damaged: {error}") from error
        except (zlib.error, OSError, EOFError) as error:
            raise ProtocolError(f"{self._name}: the data is damaged: {error}") from error
