"""Writes a container's log (the format is that of `logs.py`), and never holds the container up.

    output ──► lines ──► queue (bounded) ──► one write at a time ──► <path>, <path>.1 …

A write is the kernel's to finish. While it takes its time, lines wait in memory; once there are many the
container waits, too, as it does for any reader of a pipe, but no longer than a healthy disk takes (`LATE`).
For a slower one nobody waits: further lines are dropped. So is what a full disk does not take. `dropped`
counts both.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from hawse_agent.linux.uring import Ring
from hawse_agent.spec.container import LogConfig
from hawse_agent.supervise import logs
from hawse_agent.supervise.logs import LogRecord, Stream
from hawse_agent.supervise.loop import READ, Loop, Timer

LONGEST_LINE = 16 * 1024
"""Bytes after which a line without an end is written in parts, as Docker does."""
LATE = 0.25
"""Seconds after which a write is not waited for any more."""
PATIENCE = 5.0
"""Seconds that the end of a run waits for a disk that takes nothing."""
_AT_ONCE = 1 << 18
"""Bytes of one write."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Disk(Protocol):
    def write(
        self, fd: int, data: bytes, done: Callable[[int], None], late: Callable[[], None]
    ) -> int | None:
        """Append: how many bytes it took, or a negative errno; None: `done` is called with that, later, and
        `late` before when that takes long."""

    def close(self) -> None: ...


class LogWriter:
    """Splits what comes out of a container into lines, and writes them. Owned by one shim.

    `when_dropping` is called whenever `dropped` has grown, `when_free` when it may be `full` no longer.
    """

    def __init__(
        self,
        path: str,
        config: LogConfig,
        disk: Disk,
        *,
        when_dropping: Callable[[], None] = lambda: None,
        when_free: Callable[[], None] = lambda: None,
    ) -> None:
        self._path, self._config, self._disk = path, config, disk
        self._when_dropping, self._when_free = when_dropping, when_free
        self._partial: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._under_way: list[bytes] = []
        self._rest = b""
        """What the disk has not taken of them."""
        self._waiting = False
        """For the disk to say how it went."""
        self._late = False
        self._then: list[Callable[[], None]] = []
        self.dropped = 0
        """Bytes of output that are not in the log."""
        self._fd = -1
        self._size = 0
        self._held: Held | None = None
        if config.driver != "none":
            self._open()

    def write(self, stream: Stream, data: bytes) -> None:
        if self._fd < 0:
            return
        data = self._partial[stream] + data
        end_of_lines = data.rfind(b"\n") + 1
        if end_of_lines:
            end = logs.ending(stream)
            for text in data[:end_of_lines].decode(errors="replace").split("\n")[:-1]:
                if len(text) < LONGEST_LINE // 4:  # of characters, which have four bytes at most
                    self._add(f"{text}\n", end)
                else:
                    last = self._without_parts(stream, text.encode())
                    self._add(f"{last.decode(errors='replace')}\n", end)
        self._partial[stream] = self._without_parts(stream, data[end_of_lines:])
        if not self._waiting:
            self._write_next()

    @property
    def full(self) -> bool:
        """Whether output had better wait: for a disk that is not late."""
        return self._waiting and not self._late and self._queued >= self._config.buffer

    def flush(self, then: Callable[[], None]) -> None:
        """Write lines that have no end, since the container has; `then` when all that came is on the disk,
        or when that has not taken it for long."""
        for stream, rest in self._partial.items():
            if rest and self._fd >= 0:
                self._add(rest.decode(errors="replace"), logs.ending(stream))
                self._partial[stream] = b""
        if not self._waiting:
            self._write_next()
        if self._waiting:
            self._then.append(then)
        else:
            then()

    def give_up(self) -> None:
        """What is not on the disk now is dropped; whoever waits for it goes on."""
        self._drop(self._queue)
        self._queue.clear()
        self._queued = 0
        self._tell()

    def unwritten(self) -> list[LogRecord]:
        """What has come and is not in the file, lines without an end included."""
        lines = map(logs.decode, (*self._under_way, *self._queue))
        return [line for line in lines if line is not None] + [
            LogRecord(time=0.0, time_text="", stream=stream, data=rest)
            for stream, rest in self._partial.items()
            if rest
        ]

    def written(self, file: os.stat_result) -> int | None:
        """How much of this file is settled, when it is the one being written; None for an older one."""
        if self._fd < 0:
            return None
        now = os.fstat(self._fd)
        return self._size if (now.st_dev, now.st_ino) == (file.st_dev, file.st_ino) else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._disk.close()

    # inside

    def _open(self) -> None:
        self._fd = os.open(self._path, _FLAGS, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _without_parts(self, stream: Stream, text: bytes) -> bytes:
        """What is left of a long line when its full parts have been added."""
        while len(text) >= LONGEST_LINE:
            cut = _character_boundary(text, LONGEST_LINE - 1)
            self._add(text[:cut].decode(errors="replace"), logs.ending(stream, partial=True))
            text = text[cut:]
        return text

    def _add(self, text: str, end: str) -> None:
        line = logs.encode(text, end)
        if self._late and self._queued + len(line) > self._config.buffer:
            self._drop([line])
            return
        self._queue.append(line)
        self._queued += len(line)

    def _write_next(self) -> None:
        """As much as is there, until the disk takes its time."""
        while self._fd >= 0 and (self._under_way or self._queue):
            if not self._under_way:
                self._under_way = self._next_block()
                self._rest = b"".join(self._under_way)
            result = self._disk.write(self._fd, self._rest, self._done, self._is_late)
            if result is None:
                self._waiting = True
                return
            self._settle(result)

    def _is_late(self) -> None:
        self._late = True
        self._when_free()

    def _done(self, result: int) -> None:
        self._waiting = self._late = False
        self._settle(result)
        self._write_next()
        self._when_free()
        if not self._waiting:
            self._tell()

    def _tell(self) -> None:
        then, self._then = self._then, []
        for work in then:
            work()

    def _next_block(self) -> list[bytes]:
        """The lines of the next write: no more than the current file still holds, but at least one."""
        queue, most = self._queue, self._config.max_size
        if most and self._size and self._size + len(queue[0]) > most:
            self._rotate()
        room = min(_AT_ONCE, most - self._size) if most else _AT_ONCE
        block = [queue.popleft()]
        size = len(block[0])
        while queue and size + len(queue[0]) <= room:
            size += len(queue[0])
            block.append(queue.popleft())
        self._queued -= size
        return block

    def _settle(self, result: int) -> None:
        if result > 0:
            self._rest = self._rest[result:]
        if self._rest and result > 0:
            return  # a part was taken: the rest is tried
        block, self._under_way = self._under_way, []
        size = sum(map(len, block))
        if not self._rest:
            self._size += size
            return
        if len(self._rest) < size:  # half a line would spoil the next one
            os.ftruncate(self._fd, self._size)
        self._rest = b""
        self._drop(block)

    def _drop(self, lines: list[bytes] | deque[bytes]) -> None:
        if lines:
            self.dropped += sum(len(record.data) for line in lines if (record := logs.decode(line)))
            self._when_dropping()

    def _rotate(self) -> None:
        keep = max(1, self._config.max_files) - 1
        path, beside = Path(self._path), f"{self._path}.new"
        try:
            fresh = os.open(beside, _FLAGS | os.O_TRUNC, 0o640)
        except OSError:  # a full disk: it goes on in the file that is open, and is tried again
            return
        if self._held is None:  # most logs are never rotated
            self._held = Held(path)
        with self._held.retiring(logs.rotated(path, keep) if keep else path):
            for number in range(keep - 1, 0, -1):
                older = logs.rotated(path, number)
                if older.exists():
                    older.rename(logs.rotated(path, number + 1))
            if keep:
                path.rename(logs.rotated(path, 1))
            os.rename(beside, path)
        os.close(self._fd)
        self._fd, self._size = fresh, 0


class Held:
    """What is kept aside for followers who are behind."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: deque[tuple[Path, int]] = deque()
        """Oldest first, with sizes."""
        self._bytes = 0
        self._sequence = 0
        for name, _ in logs.retired(path):  # of an earlier run
            self._keep(name)
            self._sequence = int(name.name.rpartition("-")[2])

    @contextlib.contextmanager
    def retiring(self, name: Path) -> Iterator[None]:
        """The file of that name may be replaced in the block. A follower that needs it finds it aside; one
        that comes now finds it locked."""
        self._let_go()
        try:
            file = open(name, "rb")  # noqa: SIM115 closed below
        except FileNotFoundError:
            yield
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                followed = False
            except BlockingIOError:
                followed = True
            if followed or self._files:
                self._put_aside(name, os.fstat(file.fileno()).st_size)
            yield

    def _put_aside(self, name: Path, size: int) -> None:
        """Or, where there is no room, an empty file that says so to who gets there."""
        room = len(self._files) < logs.MOST_HELD and self._bytes + size <= logs.MOST_BYTES_HELD
        if not room and self._files and self._files[-1][1] == 0:
            return
        self._sequence += 1
        aside = logs.held_name(self._path, self._sequence)
        if room:
            name.rename(aside)
        else:
            os.close(os.open(aside, _FLAGS, 0o640))
        self._keep(aside)

    def _let_go(self) -> None:
        """Delete what nobody needs any more."""
        while self._files and logs.delete_unheld(self._files[0][0]):
            self._bytes -= self._files.popleft()[1]

    def _keep(self, name: Path) -> None:
        with contextlib.suppress(FileNotFoundError):  # a follower was the last to need it
            size = name.stat().st_size
            self._files.append((name, size))
            self._bytes += size


class PlainDisk:
    """Waits for each write."""

    def write(
        self, fd: int, data: bytes, done: Callable[[int], None], late: Callable[[], None]
    ) -> int | None:
        try:
            return os.write(fd, data)
        except OSError as error:
            return -(error.errno or errno.EIO)

    def close(self) -> None:
        """Nothing is ever under way."""


class PatientDisk:
    """Lets the kernel wait for the disk. Where it cannot, each write is waited for."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ring: Ring | None = None
        self._plain: PlainDisk | None = None
        self._data = b""
        self._fd = -1
        self._done: Callable[[int], None] = lambda _: None
        self._timer: Timer | None = None

    @property
    def waits(self) -> bool:
        """Whether it must wait for each write itself, on this kernel."""
        return self._plain is not None

    def write(
        self, fd: int, data: bytes, done: Callable[[int], None], late: Callable[[], None]
    ) -> int | None:
        if self._ring is None and self._plain is None:  # made when something is said: many never do
            try:
                self._ring = Ring()
            except OSError:
                self._plain = PlainDisk()
            else:
                self._loop.add(self._ring.fd, READ, self._ready)
        if self._ring is None:
            assert self._plain is not None
            return self._plain.write(fd, data, done, late)
        self._fd, self._data, self._done = fd, data, done
        self._ring.write(fd, data)
        self._timer = self._loop.after(LATE, late)
        return None

    def _ready(self, _: int) -> None:
        assert self._ring is not None
        result = self._ring.result()
        if result is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if result in (-errno.EINVAL, -errno.EOPNOTSUPP):  # an old kernel has rings that cannot write
            self.close()
            self._plain = PlainDisk()
            result = self._plain.write(self._fd, self._data, self._done, lambda: None) or 0
        self._data = b""
        self._done(result)

    def close(self) -> None:
        if self._ring is not None:
            self._loop.remove(self._ring.fd)
            self._ring.close()
            self._ring = None
        if self._timer is not None:
            self._timer.cancel()


def _character_boundary(text: bytes, at: int) -> int:
    """The last place up to `at` that is not inside a character of UTF-8."""
    for place in range(at, at - 4, -1):
        if text[place] & 0xC0 != 0x80:
            return place
    return at  # no text: any place is as good
