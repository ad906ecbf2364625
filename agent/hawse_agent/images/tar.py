"""Reads tar streams entry by entry: v7, ustar, pax and GNU, with long names, xattrs and sparse files.

Reads forward only, from anything with `read(n)`, about five times faster than `tarfile`. Only the stream is
read here: what an entry may do to a file system is decided in `layers`. A stream that ends too early raises
EOFError, anything else that is no tar TarError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

BLOCK = 512
_PIECE = 1 << 20
_MAX_EXTENSION = 1 << 20
"""No real pax headers and long names of one entry are larger; hostile ones shall not fill the memory."""
_MAX_SEGMENTS = 1 << 18
"""Of a sparse file; likewise."""
_MAX_NUMBER = 40
"""Characters in a line of its map."""
_ZEROS = bytes(BLOCK)

Kind = Literal["file", "directory", "symlink", "hardlink", "character", "block", "fifo"]

_KINDS: dict[int, Kind] = {
    ord("0"): "file",
    0: "file",
    ord("7"): "file",
    ord("S"): "file",
    ord("1"): "hardlink",
    ord("2"): "symlink",
    ord("3"): "character",
    ord("4"): "block",
    ord("5"): "directory",
    ord("6"): "fifo",
}


class TarError(Exception):
    """The stream is not a tar, or is damaged."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(kw_only=True, slots=True)
class Entry:
    """`name` and `link` are as written; `size` counts a sparse file's holes."""

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: str = ""
    device: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    segments: list[tuple[int, int]] | None = None
    """(offset, size) of the parts of a sparse file that are stored; None: it is stored whole."""


@dataclass(kw_only=True, slots=True)
class _Extension:
    """What pax and GNU headers say about the entry that follows them."""

    size: int = 0
    values: dict[str, bytes] = field(default_factory=dict)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: list[int] = field(default_factory=list)


def is_tar(start: bytes) -> bool:
    """Whether a stream that begins so may be a tar: its first header's checksum is right."""
    block = start[:BLOCK]
    try:
        return len(block) == BLOCK and _sum(block) == _number(block[148:156])
    except TarError:
        return False


class TarReader:
    """Iterate for the entries; the data of the current one is read by `data`, or skipped."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self._left = 0  # bytes of the current entry's data that were not read yet
        self._padding = 0
        self._global: dict[str, bytes] = {}
        self._globals = _Extension()

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def data(self) -> Iterator[bytes]:
        """The stored data of the current entry, in pieces."""
        while self._left:
            available = len(self._buffer) - self._at
            if not available:
                self._fill()
                continue
            size = min(available, self._left)
            piece = self._buffer[self._at : self._at + size]
            self._at += size
            self._left -= size
            yield piece

    def drain(self) -> None:
        """Reads the stream to its end: what hashes it shall see the padding too."""
        self._buffer, self._at = b"", 0
        while self._stream.read(_PIECE):
            pass

    # -- headers ---------------------------------------------------------------------------------

    def _next(self) -> Entry | None:
        extension = _Extension()
        while True:
            self._skip()
            block = self._block()
            if block is None:
                return None
            kind = block[156]
            size = _number(block[124:136])
            if size < 0:
                raise TarError(f"an entry of {size} bytes: {os.fsdecode(_text(block[:100]))!r}")
            if kind == 0x78:  # x
                self._pax(self._extension(size, extension), extension)
            elif kind == 0x67:  # g
                self._globals.values.clear()
                self._pax(self._extension(size, self._globals), self._globals)
                self._global.update(self._globals.values)
            elif kind == 0x4C:  # L
                extension.values["path"] = self._extension(size, extension).rstrip(b"\0")
            elif kind == 0x4B:  # K
                extension.values["linkpath"] = self._extension(size, extension).rstrip(b"\0")
            else:
                entry = self._entry(block, kind, size, extension)
                if entry is not None:
                    return entry
                extension = _Extension()

    def _block(self) -> bytes | None:
        """The next header, its checksum verified; None at the end of the archive."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._stream.read(_PIECE), 0
            if not self._buffer:
                return None  # no end marker: some writers leave it out
        block = self._take(BLOCK)
        if block == _ZEROS:
            return None
        if _sum(block) != _number(block[148:156]):
            raise TarError("not a tar archive, or a damaged one: a header's checksum is wrong")
        return block

    def _entry(self, block: bytes, letter: int, size: int, extension: _Extension) -> Entry | None:
        kind = _KINDS.get(letter)
        values = {**self._global, **extension.values} if self._global else extension.values
        if "size" in values:
            size = _decimal(values["size"])
        self._left, self._padding = (size, -size % BLOCK) if _has_data(letter) else (0, 0)
        if kind is None:
            return None  # a volume label or a vendor's extension: nothing to unpack
        name = values.get("path")
        if name is None:
            name = _text(block[:100])
            if block[257:263] == b"ustar\0" and block[345]:
                name = _text(block[345:500]) + b"/" + name
        link = values.get("linkpath")
        if link is None:
            link = _text(block[157:257])
        if kind == "file" and name.endswith(b"/"):
            kind = "directory"  # v7 has no other way to say it
        entry = Entry(
            name=os.fsdecode(name),
            kind=kind,
            mode=_number(block[100:108]) & 0o7777,
            uid=_decimal(values["uid"]) if "uid" in values else _number(block[108:116]),
            gid=_decimal(values["gid"]) if "gid" in values else _number(block[116:124]),
            size=size,
            mtime_ns=_nanoseconds(values["mtime"])
            if "mtime" in values
            else _number(block[136:148]) * 1_000_000_000,
            link=os.fsdecode(link),
            xattrs=extension.xattrs,
        )
        if kind in ("character", "block"):
            entry.device = _device(entry.name, _number(block[329:337]), _number(block[337:345]))
        if letter == 0x53:
            self._gnu_sparse(entry, block)
        elif any(key.startswith("GNU.sparse.") for key in values) or extension.sparse:
            self._pax_sparse(entry, values, extension.sparse)
        return entry

    def _extension(self, size: int, extension: _Extension) -> bytes:
        extension.size += size
        if extension.size > _MAX_EXTENSION:
            raise TarError(f"extended headers of {extension.size} bytes")
        data = self._take(size)
        self._left, self._padding = 0, -size % BLOCK
        return data

    def _pax(self, data: bytes, extension: _Extension) -> None:
        """Records of the form `LENGTH KEY=VALUE\\n`; the value may hold any byte."""
        at = 0
        while at < len(data):
            space = data.find(b" ", at)
            length = _decimal(data[at:space]) if space > at else 0
            end = at + length
            if space < 0 or length <= space - at or end > len(data) or data[end - 1 : end] != b"\n":
                raise TarError("a damaged pax header")
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if not equals:
                raise TarError("a damaged pax header")
            at = end
            name = os.fsdecode(key)
            if name.startswith("SCHILY.xattr."):
                extension.xattrs[name.removeprefix("SCHILY.xattr.")] = value
            elif name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
                extension.sparse.append(_decimal(value))
            else:
                extension.values[name] = value

    # -- sparse files ----------------------------------------------------------------------------

    def _gnu_sparse(self, entry: Entry, block: bytes) -> None:
        """The old GNU format: four segments in the header, more in blocks after it."""
        numbers = [_number(block[at : at + 12]) for at in range(386, 482, 12)]
        entry.size = _number(block[483:495])
        extended = block[482]
        while extended:
            if len(numbers) > 2 * _MAX_SEGMENTS:
                raise TarError(f"a sparse file of more than {_MAX_SEGMENTS} parts: {entry.name!r}")
            more = self._take(BLOCK)
            numbers += [_number(more[at : at + 12]) for at in range(0, 504, 12)]
            extended = more[504]
        self._set_segments(entry, numbers)

    def _pax_sparse(self, entry: Entry, values: dict[str, bytes], numbers: list[int]) -> None:
        """GNU's pax formats 0.0 and 0.1 (the map is in the header) and 1.0 (it stands before the data)."""
        if "GNU.sparse.name" in values:
            entry.name = os.fsdecode(values["GNU.sparse.name"])
        size = values.get("GNU.sparse.realsize", values.get("GNU.sparse.size"))
        if size is None:
            raise TarError("a sparse file without its size")
        entry.size = _decimal(size)
        if values.get("GNU.sparse.major") == b"1":
            numbers = self._map_before_data()
        elif "GNU.sparse.map" in values:
            numbers = [_decimal(number) for number in values["GNU.sparse.map"].split(b",") if number]
        self._set_segments(entry, numbers)

    def _map_before_data(self) -> list[int]:
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise TarError("a damaged map of a sparse file")
            *whole, rest = (rest + self._take(BLOCK)).split(b"\n")
            self._left -= BLOCK
            lines += whole
            if lines and wanted == 1:
                wanted = 1 + 2 * _decimal(lines[0])
            if wanted > 2 * _MAX_SEGMENTS or (len(lines) < wanted and len(rest) > _MAX_NUMBER):
                raise TarError(f"a damaged map of a sparse file, or one of more than {_MAX_SEGMENTS} parts")
        return [_decimal(line) for line in lines[1:wanted]]

    def _set_segments(self, entry: Entry, numbers: list[int]) -> None:
        segments = [(numbers[at], numbers[at + 1]) for at in range(0, len(numbers) - 1, 2)]
        segments = [(offset, size) for offset, size in segments if size]
        if sum(size for _, size in segments) != self._left or any(
            offset + size > entry.size for offset, size in segments
        ):
            raise TarError("a damaged map of a sparse file")
        entry.segments = segments

    # -- the stream ------------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        parts = [self._buffer[self._at :]]
        missing = size - len(parts[0])
        while missing:
            self._fill()
            parts.append(self._buffer[:missing])
            self._at = len(parts[-1])
            missing -= self._at
        return b"".join(parts)

    def _fill(self) -> None:
        self._buffer, self._at = self._stream.read(_PIECE), 0
        if not self._buffer:
            raise EOFError("the tar archive ends too early")

    def _skip(self) -> None:
        """To the next header. What fills the last block may be missing: the docker command leaves it out."""
        missing, padding = self._left + self._padding, self._padding
        self._left = self._padding = 0
        available = len(self._buffer) - self._at
        while missing > available:
            missing -= available
            try:
                self._fill()
            except EOFError:
                if missing > padding:
                    raise
                missing = 0
            available = len(self._buffer) - self._at
        self._at += missing


def _sum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * 0x20


def _has_data(letter: int) -> bool:
    """Links, devices, directories and fifos have none, whatever their size field says."""
    return letter not in b"123456"


def _text(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _device(name: str, major: int, minor: int) -> int:
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise TarError(f"a device of no number, {major}:{minor}: {name!r}")
    return os.makedev(major, minor)


def _number(data: bytes) -> int:
    """Octal text, or GNU's base 256 where the first bit is set."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big") & ~(0x80 << 8 * (len(data) - 1))
        if data[0] & 0x40:  # negative: two's complement
            value -= 1 << 8 * len(data) - 1
        return value
    try:
        return int(data.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise TarError(f"not a tar archive, or a damaged one: {data!r} in a header") from None


def _decimal(data: bytes) -> int:
    try:
        value = int(data)
    except ValueError:
        raise TarError(f"not a number in a pax header: {data[:40]!r}") from None
    if value < 0:
        raise TarError(f"a negative number in a pax header: {value}")
    return value


def _nanoseconds(data: bytes) -> int:
    """`1700000000.25`, which may be negative, without the rounding of a float."""
    whole, _, fraction = data.partition(b".")
    try:
        seconds = int(whole) * 1_000_000_000
        part = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    except ValueError:
        raise TarError(f"not a time in a pax header: {data[:40]!r}") from None
    return seconds - part if whole.startswith(b"-") else seconds + part
