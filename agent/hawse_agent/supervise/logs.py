"""A container's log: Docker's json-file format, its files, and how they are read.

One JSON object a line: `{"log":"text\\n","stream":"stdout","time":"2026-11-24T09:00:00.123456789Z"}`; a line
that came in parts has `"partial":true` in all of them but the last. The file is `<path>`, older ones are
`<path>.1` (youngest) to `<path>.N`. `logwriter.py` writes them.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from json.encoder import encode_basestring
from pathlib import Path
from typing import Literal

Stream = Literal["stdout", "stderr"]
Limit = Callable[[os.stat_result], int | None]
"""How much of a file may be read; None: all of it."""
FOLLOW_INTERVAL = 0.1
"""Seconds between two looks at a followed file."""
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class LogRecord:
    time: float
    """Epoch seconds."""
    time_text: str
    """RFC 3339 with nanoseconds, as it stands in the file."""
    stream: Stream
    data: bytes
    partial: bool = False
    """Its line goes on in the next record of this stream."""
    begins: bool = True
    """It is the beginning of its line."""


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
    limit: Limit = lambda _: None,
) -> Iterator[LogRecord]:
    """Records over all files, oldest first; with `follow` until `stop()` is true and all is read, or until
    `until` has passed.

    `tail` counts matching lines from the end. Times are epoch seconds. Rotations meanwhile lose nothing and
    repeat nothing, except that a file may be deleted before its turn.
    """

    def wanted(record: LogRecord) -> bool:
        if not (stdout if record.stream == "stdout" else stderr):
            return False
        return (since is None or record.time >= since) and (until is None or record.time <= until)

    def over() -> bool:
        return stop() or (until is not None and time.time() > until)

    going_on: set[Stream] = set()
    files = _Files(path)
    try:
        found, position = ([], 0) if tail is None else files.last_lines(tail, wanted)
        for record in found:
            yield _placed(record, going_on)
        for record in _records(files, position, follow, over, limit):
            if until is not None and record.time > until:
                return
            if wanted(record):
                yield _placed(record, going_on)
    finally:
        files.close()


def _placed(record: LogRecord, going_on: set[Stream]) -> LogRecord:
    begins = record.stream not in going_on
    (going_on.add if record.partial else going_on.discard)(record.stream)
    return record if begins else replace(record, begins=False)


def _records(
    files: _Files, position: int, follow: bool, over: Callable[[], bool], limit: Limit
) -> Iterator[LogRecord]:
    """What comes after `position` in the first file, and in all younger ones."""
    rest = b""
    while True:
        ending = not follow or over()  # asked before the read, so that nothing written earlier is missed
        while chunk := files.read(position, limit):
            position += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if (record := decode(line)) is not None:
                    yield record
        if files.forward():
            position, rest = 0, b""
        elif follow and files.find_younger():
            continue  # to what was written before the rotation
        elif ending:
            return
        else:
            select.select([], [], [], FOLLOW_INTERVAL)


class _Files:
    """Those of one log, open; the oldest is the one being read. A rotation only renames them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = self._look()

    def read(self, position: int, limit: Limit) -> bytes:
        if not self._open:
            return b""
        most = limit(os.fstat(self._open[0]))
        size = _CHUNK if most is None else min(_CHUNK, most - position)
        return os.pread(self._open[0], size, position) if size > 0 else b""

    def forward(self) -> bool:
        """On to the next younger file, when one is known."""
        if len(self._open) < 2:
            return False
        os.close(self._open.pop(0))
        return True

    def find_younger(self) -> bool:
        """Whether there was a rotation since the last look: then `forward` goes on to what it made."""
        try:
            youngest = os.stat(self._path)
        except FileNotFoundError:  # none yet, in the middle of a rotation, or removed
            return False
        if self._open and os.path.samestat(youngest, os.fstat(self._open[-1])):
            return False
        now = self._look()
        if not self._open:
            self._open = now
            return bool(now)
        own = self._open[-1]
        places = [place for place, fd in enumerate(now) if os.path.sameopenfile(own, fd)]
        known = places[-1] + 1 if places else 0  # none: it is deleted already, and all of them are younger
        for fd in now[:known]:
            os.close(fd)
        self._open += now[known:]
        return len(now) > known

    def last_lines(self, count: int, wanted: Callable[[LogRecord], bool]) -> tuple[list[LogRecord], int]:
        """The records of the last `count` lines; and the position in the youngest file after them, which is
        the only one from now on."""
        found: list[LogRecord] = []
        position = lines = 0
        streams: set[Stream] = set()
        for fd in reversed(self._open):
            end = os.fstat(fd).st_size
            backwards = _lines_backwards(fd, end)
            unfinished = next(backwards)
            if fd == self._open[-1]:
                position = end - len(unfinished)
            for record in map(decode, backwards):
                if record is None or not wanted(record):
                    continue
                if not record.partial or record.stream not in streams:  # the end of one more line
                    lines += 1
                if lines > count:
                    break
                streams.add(record.stream)
                found.append(record)
            if lines > count:
                break
        for fd in self._open[:-1]:
            os.close(fd)
        del self._open[:-1]
        return found[::-1], position

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def _look(self) -> list[int]:
        """All that there are, oldest first. Looked for from the youngest on, the way that a rotation moves
        them: one may be met twice, none is passed over."""
        found: list[int] = []
        gap = number = 0
        while gap < 2:  # in the middle of a rotation one name is free
            name = rotated(self._path, number) if number else self._path
            number += 1
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                gap += 1
                continue
            gap = 0
            if found and os.path.sameopenfile(found[0], fd):
                os.close(fd)
            else:
                found.insert(0, fd)
        return found


def _lines_backwards(fd: int, end: int) -> Iterator[bytes]:
    """From the last line on; the first piece is what follows the last newline."""
    rest = b""
    while end > 0:
        size = min(_CHUNK, end)
        end -= size
        rest, *lines = (os.pread(fd, size, end) + rest).split(b"\n")
        yield from reversed(lines)
    yield rest


def rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def ending(stream: Stream, *, partial: bool = False) -> str:
    """What follows the text in a line of the file that is written now."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    more = ',"partial":true' if partial else ""
    return f',"stream":"{stream}","time":"{_second(seconds)}.{nanoseconds:09d}Z"{more}}}\n'


def encode(text: str, end: str) -> bytes:
    """A line of the file; many have their `ending` in common."""
    return f'{{"log":{encode_basestring(text)}{end}'.encode()


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def decode(line: bytes) -> LogRecord | None:
    """None for a line that a power cut has spoilt."""
    try:
        entry = json.loads(line.decode())  # of bytes it would guess the encoding, line by line
        text, stream, stamp = entry["log"], entry["stream"], entry["time"]
        return LogRecord(
            time=parse_time(stamp),
            time_text=stamp,
            stream=stream,
            data=text.encode(),
            partial=bool(entry.get("partial", False)),
        )
    except (ValueError, KeyError, TypeError):
        return None


def parse_time(stamp: str) -> float:
    """`2026-11-24T09:00:00.123456789Z` as epoch seconds; raises ValueError."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    seconds = _epoch(whole)
    return seconds + int(fraction) / 10 ** len(fraction) if fraction else float(seconds)


@lru_cache(maxsize=8)
def _epoch(whole: str) -> int:
    """Seconds since 1970 of a UTC time; `calendar` would drag `datetime` into every shim."""
    date, _, clock = whole.partition("T")
    year, month, day = map(int, date.split("-"))
    hour, minute, second = map(int, clock.split(":"))
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    days = era * 146_097 + day_of_era - 719_468
    return days * 86_400 + hour * 3600 + minute * 60 + second
