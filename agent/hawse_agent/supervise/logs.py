"""A container's log: Docker's json-file format, its files, and how they are read.

A follower has a lock (flock) on the youngest file that it has open. A file that a rotation would delete is
kept aside as `<path>.held-<sequence>` while somebody has a lock on it or on an older one; an empty one stands
for those that there was no room for.

One JSON object a line: `{"log":"text\\n","stream":"stdout","time":"2026-11-24T09:00:00.123456789Z"}`; a line
that came in parts has `"partial":true` in all of them but the last. The file is `<path>`, older ones are
`<path>.1` (youngest) to `<path>.N`. `logwriter.py` writes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
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
MOST_HELD, MOST_BYTES_HELD = 4096, 64 << 20
"""Files that are kept for followers who are behind; further ones are deleted, and that is said."""
_OPEN_AHEAD = 256
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
    repeat nothing; a follower who is too far behind (`MOST_BYTES_HELD`) gets a record that says so.
    """

    def wanted(record: LogRecord) -> bool:
        if not (stdout if record.stream == "stdout" else stderr):
            return False
        return (since is None or record.time >= since) and (until is None or record.time <= until)

    def over() -> bool:
        return stop() or (until is not None and time.time() > until)

    going_on: set[Stream] = set()
    files = _Files(path, follow=follow)
    try:
        found, position = ([], 0) if tail is None else files.last_lines(tail, wanted)
        for record in found:
            yield _placed(record, going_on)
        for one in _records(files, position, follow, over, limit):
            if one is None:
                yield _missing("stderr" if stderr else "stdout")
            elif until is not None and one.time > until:
                return
            elif wanted(one):
                yield _placed(one, going_on)
    finally:
        files.close()


def _missing(stream: Stream) -> LogRecord:
    text = "hawse-agent: lines are missing here: the log was rotated faster than it was read"
    record = decode(encode(text + "\n", ending(stream)).rstrip(b"\n"))
    assert record is not None
    return record


def _placed(record: LogRecord, going_on: set[Stream]) -> LogRecord:
    begins = record.stream not in going_on
    (going_on.add if record.partial else going_on.discard)(record.stream)
    return record if begins else replace(record, begins=False)


def _records(
    files: _Files, position: int, follow: bool, over: Callable[[], bool], limit: Limit
) -> Iterator[LogRecord | None]:
    """What comes after `position` in the first file, and in all younger ones; None where some are lost."""
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
            if files.after_gap():
                yield None
        elif follow and files.find_younger():
            continue  # to what was written before the rotation
        elif ending:
            return
        else:
            select.select([], [], [], FOLLOW_INTERVAL)


class _Files:
    """Those of one log, open; the oldest is the one being read. A rotation only renames them."""

    def __init__(self, path: Path, *, follow: bool) -> None:
        self._path, self._follow = path, follow
        self._gaps: set[int] = set()
        self._open = self._look()
        while not self._hold():  # deleted before it could be held: it was not the youngest any more
            self.close()
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
        left = self._open.pop(0)
        self._gaps.discard(left)
        os.close(left)
        if self._follow and len(self._open) == 1:
            let_go(self._path)
        return True

    def find_younger(self) -> bool:
        """Whether there was a rotation since the last look: then `forward` goes on to what it made."""
        try:
            youngest = os.stat(self._path)
        except FileNotFoundError:  # none yet, in the middle of a rotation, or removed
            return False
        if not self._open:
            self._open = self._look()
            self._hold()
            return bool(self._open)
        own = os.fstat(self._open[-1])
        if os.path.samestat(youngest, own):
            return False
        fresh = self._since(own.st_ino)
        self._open += fresh
        if fresh and self._hold():
            fcntl.flock(self._open[-1 - len(fresh)], fcntl.LOCK_UN)
        elif fresh:  # the youngest is being retired: what is held till now leads to where it will be
            for fd in fresh:
                self._gaps.discard(fd)
                os.close(fd)
            del self._open[-len(fresh) :]
        return bool(fresh)

    def _since(self, own: int) -> list[int]:
        """Those that are younger than the file with that inode, oldest first: of many the next ones."""
        chain = self._look()
        inodes = [os.fstat(fd).st_ino for fd in chain]
        if own in inodes:
            known, held = inodes.index(own) + 1, []
        else:
            aside = [(name, inode) for name, inode in retired(self._path) if inode not in inodes]
            places = [place for place, (_, inode) in enumerate(aside) if inode == own]
            if not places:  # somebody else has deleted it
                self._gaps.update(chain[:1])
            held = [name for name, _ in (aside[places[0] + 1 :] if places else aside)]
            known = len(chain) if len(held) > _OPEN_AHEAD else 0
        for fd in chain[:known]:
            os.close(fd)
        opened = _open_all(held[:_OPEN_AHEAD])
        self._gaps.update(fd for fd in opened if os.fstat(fd).st_size == 0)
        return [*opened, *chain[known:]]

    def _hold(self) -> bool:
        """From now on no younger file than the youngest of these is deleted, as far as there is room. False
        when this one has been, already."""
        if not self._follow or not self._open:
            return True
        try:
            fcntl.flock(self._open[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # it is being deleted
            return False
        return os.fstat(self._open[-1]).st_nlink > 0

    def after_gap(self) -> bool:
        """Whether files have been deleted before the one that is read now."""
        return self._open[0] in self._gaps

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
        if self._follow:
            let_go(self._path)

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


def retired(path: Path) -> list[tuple[Path, int]]:
    """The files that are kept aside for followers, oldest first, each with its inode."""
    prefix = f"{path.name}.held-"
    try:
        with os.scandir(path.parent) as entries:
            found = [(entry.name, entry.inode()) for entry in entries if entry.name.startswith(prefix)]
    except FileNotFoundError:
        return []
    return [(path.with_name(name), inode) for name, inode in sorted(found)]


def held_name(path: Path, sequence: int) -> Path:
    return path.with_name(f"{path.name}.held-{sequence:012d}")


def let_go(path: Path) -> None:
    """Delete what was kept aside and nobody needs any more."""
    for name, _ in retired(path):
        if not delete_unheld(name):
            return


def delete_unheld(name: Path) -> bool:
    """False when a follower holds it; true also when it is gone already."""
    try:
        with open(name, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True


def _open_all(names: Iterable[Path]) -> list[int]:
    opened = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            opened.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
    return opened


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
