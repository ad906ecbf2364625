"""A container's log: Docker's json-file format, written by the shim, rotated, read by anyone.

One JSON object a line: `{"log":"text\\n","stream":"stdout","time":"2026-11-24T09:00:00.123456789Z"}`.
The file is `<path>`, older ones are `<path>.1` (youngest) to `<path>.N`. A writer never blocks and never
fails for its container: what a full disk does not take is counted and dropped.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hawse_agent.spec.container import LogConfig

Stream = Literal["stdout", "stderr"]
LONGEST_LINE = 16 * 1024
"""Bytes after which a line without an end is written in parts, as Docker does."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
FOLLOW_INTERVAL = 0.1
"""Seconds between two looks at a followed file."""


@dataclass(frozen=True, kw_only=True)
class LogRecord:
    time: float
    """Epoch seconds."""
    time_text: str
    """RFC 3339 with nanoseconds, as it stands in the file."""
    stream: Stream
    data: bytes


class LogWriter:
    """Splits what comes out of a container into lines, and writes them. Owned by one shim."""

    def __init__(self, path: Path, config: LogConfig) -> None:
        self._path = path
        self._config = config
        self._partial: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self.dropped = 0
        """Bytes of output that the disk did not take."""
        self._fd = -1
        self._size = 0
        if config.driver != "none":
            self._open()

    def write(self, stream: Stream, data: bytes) -> None:
        if self._fd < 0:
            return
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        encoded = [_encode(stream, line + b"\n") for line in lines]
        while len(rest) >= LONGEST_LINE:
            encoded.append(_encode(stream, rest[:LONGEST_LINE]))
            rest = rest[LONGEST_LINE:]
        self._partial[stream] = rest
        if encoded:
            self._append(encoded)

    def flush(self) -> None:
        """Write lines that have no end yet; the container has ended."""
        if self._fd < 0:
            return
        for stream, rest in self._partial.items():
            if rest:
                self._append([_encode(stream, rest)])
                self._partial[stream] = b""

    def unfinished(self) -> Iterator[LogRecord]:
        """What has come of lines without an end, and is not in the file yet."""
        for stream, rest in self._partial.items():
            if rest:
                yield LogRecord(time=time.time(), time_text="", stream=stream, data=rest)

    def close(self) -> None:
        self.flush()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._path, _FLAGS, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _append(self, lines: list[bytes]) -> None:
        block = bytearray()
        for line in lines:
            size = self._size + len(block)
            if size and size + len(line) > self._config.max_size:
                self._write(block)
                self._rotate()
                block = bytearray()
            block += line
        self._write(block)

    def _write(self, block: bytes | bytearray) -> None:
        try:
            written = os.write(self._fd, block) if block else 0
        except OSError:
            written = 0
        if written < len(block):
            self.dropped += len(block) - written
            if written:  # half a line would spoil the next one
                os.ftruncate(self._fd, self._size)
                written = 0
        self._size += written

    def _rotate(self) -> None:
        keep = max(1, self._config.max_files) - 1
        if keep == 0:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            fresh = os.open(beside, _FLAGS | os.O_TRUNC, 0o640)
        except OSError:  # a full disk: it goes on in the file that is open, and is tried again
            return
        for number in range(keep - 1, 0, -1):
            older = _rotated(self._path, number)
            if older.exists():
                older.rename(_rotated(self._path, number + 1))
        self._path.rename(_rotated(self._path, 1))
        beside.rename(self._path)
        os.close(self._fd)
        self._fd, self._size = fresh, 0


def read(
    path: Path,
    *,
    follow: bool = False,
    since: float | None = None,
    until: float | None = None,
    tail: int | None = None,
    stdout: bool = True,
    stderr: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[LogRecord]:
    """Records over all files, oldest first; with `follow` until `stop()` is true and all is read.

    `tail` counts matching records from the end. Times are epoch seconds.
    """

    def wanted(record: LogRecord) -> bool:
        if not (stdout if record.stream == "stdout" else stderr):
            return False
        return since is None or record.time >= since

    if tail is not None and tail >= 0:
        records, position = _last(path, tail, wanted)
        for record in records:
            if until is not None and record.time > until:
                return
            yield record
    else:
        for older in reversed(_rotated_files(path)):
            for record in _records(older):
                if until is not None and record.time > until:
                    return
                if wanted(record):
                    yield record
        position = 0
    for record in _live(path, position, follow, stop):
        if until is not None and record.time > until:
            return
        if wanted(record):
            yield record


def _last(path: Path, count: int, wanted: Callable[[LogRecord], bool]) -> tuple[list[LogRecord], int]:
    """The last `count` records, and where the current file goes on after them."""
    found: list[LogRecord] = []
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    position = data.rfind(b"\n") + 1
    current = [r for line in data[:position].splitlines() if (r := _decode(line)) and wanted(r)]
    found = current
    for older in _rotated_files(path):
        if len(found) >= count:
            break
        found = [r for r in _records(older) if wanted(r)] + found
    return (found[-count:] if count else []), position


def _live(path: Path, position: int, follow: bool, stop: Callable[[], bool]) -> Iterator[LogRecord]:
    """Records of the current file from `position` on, across rotations."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not follow:
            return
        fd = -1
    rest = b""
    try:
        if fd >= 0:
            os.lseek(fd, position, os.SEEK_SET)
        while True:
            ending = not follow or stop()  # asked before the read, so that nothing written earlier is missed
            chunk = os.read(fd, 1 << 16) if fd >= 0 else b""
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if (record := _decode(line)) is not None:
                        yield record
                continue
            fresh = _replaced(path, fd)
            if fresh >= 0:
                if fd >= 0:
                    os.close(fd)
                fd, rest = fresh, b""
                continue
            if ending:
                return
            select.select([], [], [], FOLLOW_INTERVAL)
    finally:
        if fd >= 0:
            os.close(fd)


def _replaced(path: Path, fd: int) -> int:
    """A descriptor of the file that took this one's place; -1 when it is still the same."""
    try:
        fresh = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    if fd >= 0:
        now, then = os.fstat(fresh), os.fstat(fd)
        if (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino):
            os.close(fresh)
            if now.st_size < os.lseek(fd, 0, os.SEEK_CUR):
                os.lseek(fd, 0, os.SEEK_SET)  # truncated in place: a log of one file
            return -1
    return fresh


def _records(path: Path) -> Iterator[LogRecord]:
    try:
        with path.open("rb") as file:
            for line in file:
                if (record := _decode(line)) is not None:
                    yield record
    except FileNotFoundError:  # rotated away since it was listed
        return


def _rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _rotated_files(path: Path) -> list[Path]:
    """Youngest first."""
    files: list[Path] = []
    while (older := _rotated(path, len(files) + 1)).exists():
        files.append(older)
    return files


def _encode(stream: Stream, line: bytes) -> bytes:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    text = line.decode(errors="replace")
    return (
        json.dumps({"log": text, "stream": stream, "time": f"{stamp}.{nanoseconds:09d}Z"}, ensure_ascii=False)
        + "\n"
    ).encode()


def _decode(line: bytes) -> LogRecord | None:
    """None for a line that a power cut has spoilt."""
    try:
        entry = json.loads(line)
        text, stream, stamp = entry["log"], entry["stream"], entry["time"]
        return LogRecord(time=parse_time(stamp), time_text=stamp, stream=stream, data=text.encode())
    except (ValueError, KeyError, TypeError):
        return None


def parse_time(stamp: str) -> float:
    """`2026-11-24T09:00:00.123456789Z` as epoch seconds; raises ValueError."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    parts = time.strptime(whole, "%Y-%m-%dT%H:%M:%S")
    return _timegm(parts) + (float(f"0.{fraction}") if fraction else 0.0)


def _timegm(parts: time.struct_time) -> int:
    """Seconds since 1970 of a UTC time; `calendar` would drag `datetime` into every shim."""
    year, month, day = parts.tm_year, parts.tm_mon, parts.tm_mday
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    days = era * 146_097 + day_of_era - 719_468
    return days * 86_400 + parts.tm_hour * 3600 + parts.tm_min * 60 + parts.tm_sec
