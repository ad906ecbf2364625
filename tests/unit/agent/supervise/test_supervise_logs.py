"""Logs: lines in, records out; rotation, tails, following, a slow or full disk, spoilt lines."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hawse_agent.spec.container import LogConfig
from hawse_agent.supervise import logs, logwriter
from hawse_agent.supervise.logwriter import LONGEST_LINE, LogWriter, PatientDisk, PlainDisk
from hawse_agent.supervise.loop import Loop


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


def new_writer(path: Path, config: LogConfig) -> LogWriter:
    return LogWriter(str(path), config, PlainDisk())


def end(writer: LogWriter) -> None:
    """As at the end of a run."""
    over: list[bool] = []
    writer.flush(lambda: over.append(True))
    assert over
    writer.close()


def texts(path: Path, **options: object) -> list[str]:
    return [record.data.decode() for record in logs.read(path, **options)]  # type: ignore[arg-type]


def test_lines_become_records(path: Path) -> None:
    writer = new_writer(path, LogConfig())
    writer.write("stdout", b"one\ntw")
    writer.write("stderr", b"oops\n")
    writer.write("stdout", b"o\nlast")
    end(writer)
    assert texts(path) == ["one\n", "oops\n", "two\n", "last"]
    assert texts(path, stdout=False) == ["oops\n"]
    first = json.loads(path.read_text().splitlines()[0])
    assert set(first) == {"log", "stream", "time"}
    assert first["time"].endswith("Z")


def test_rotation_keeps_the_youngest_files(path: Path) -> None:
    writer = new_writer(path, LogConfig(max_size=400, max_files=3))
    for number in range(40):
        writer.write("stdout", f"line {number}\n".encode())
    end(writer)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "c-json.log",
        "c-json.log.1",
        "c-json.log.2",
    ]
    kept = texts(path)
    assert kept[-1] == "line 39\n"
    assert kept == [f"line {n}\n" for n in range(40 - len(kept), 40)]
    assert texts(path, tail=7) == kept[-7:]


def test_tail_zero_shows_nothing(path: Path) -> None:
    writer = new_writer(path, LogConfig())
    writer.write("stdout", b"a\nb\n")
    assert texts(path, tail=0) == []
    assert texts(path, tail=1) == ["b\n"]


def test_following_crosses_a_rotation_and_ends(path: Path) -> None:
    writer = new_writer(path, LogConfig(max_size=300, max_files=2))
    writer.write("stdout", b"first\n")
    seen: list[str] = []
    stopped = threading.Event()
    got_first = threading.Event()

    def follow() -> None:
        for record in logs.read(path, follow=True, stop=stopped.is_set):
            seen.append(record.data.decode())
            got_first.set()

    reader = threading.Thread(target=follow)
    reader.start()
    assert got_first.wait(5)
    for number in range(3):
        writer.write("stdout", f"{number}\n".encode())
    end(writer)
    stopped.set()
    reader.join(5)
    assert not reader.is_alive()
    assert seen == ["first\n", "0\n", "1\n", "2\n"]


def test_a_full_disk_is_counted_and_leaves_whole_lines() -> None:
    writer = new_writer(Path("/dev/full"), LogConfig())
    writer.write("stdout", b"lost\n")
    assert writer.dropped > 0


def test_a_spoilt_line_is_passed_over(path: Path) -> None:
    writer = new_writer(path, LogConfig())
    writer.write("stdout", b"good\n")
    with path.open("ab") as file:
        file.write(b'{"log":"half\n')
    writer.write("stdout", b"again\n")
    assert texts(path) == ["good\n", "again\n"]


def test_times_are_those_of_the_calendar() -> None:
    assert logs.parse_time("1970-01-01T00:00:00Z") == 0
    assert logs.parse_time("2026-11-24T09:00:00.5Z") == 1795510800.5
    assert logs.parse_time("2024-02-29T23:59:59Z") == 1709251199


def test_since_and_until(path: Path) -> None:
    for second in range(3):
        line = {"log": f"{second}\n", "stream": "stdout", "time": f"2026-01-01T00:00:0{second}Z"}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    start = logs.parse_time("2026-01-01T00:00:00Z")
    assert texts(path, since=start + 1) == ["1\n", "2\n"]
    assert texts(path, until=start + 1) == ["0\n", "1\n"]


def test_a_rotation_that_fails_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the writer goes on in the file that it has, and rotates later."""
    writer = new_writer(path, LogConfig(max_size=400, max_files=3))
    for number in range(4):
        writer.write("stdout", f"line {number}\n".encode())
    real = os.open

    def full(*arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    for number in range(4, 8):
        writer.write("stdout", f"line {number}\n".encode())
    monkeypatch.setattr(os, "open", real)
    for number in range(8, 12):
        writer.write("stdout", f"line {number}\n".encode())
    end(writer)
    seen = [int(text.split()[1]) for text in texts(path)]
    assert seen == sorted(seen)
    assert seen[-4:] == [8, 9, 10, 11]
    assert {4, 5, 6, 7} <= set(seen)


# -- lines that come in parts -----------------------------------------------------------------------


def test_a_long_line_is_split_and_read_as_one(path: Path) -> None:
    writer = new_writer(path, LogConfig())
    line = "é" * LONGEST_LINE  # of two bytes each: the cuts must not fall inside one
    writer.write("stdout", b"before\n" + line.encode()[:20_001])
    writer.write("stderr", b"between\n")
    writer.write("stdout", line.encode()[20_001:] + b"\nafter\n")
    end(writer)
    parts = [json.loads(text) for text in path.read_text().splitlines()]
    assert max(len(part["log"].encode()) for part in parts) <= LONGEST_LINE
    assert [part.get("partial", False) for part in parts] == [False, True, False, True, False, False]
    assert "".join(texts(path, stderr=False)) == f"before\n{line}\nafter\n"
    assert "".join(texts(path, stderr=False, tail=2)) == f"{line}\nafter\n"
    assert "".join(texts(path, tail=3)) == "".join(texts(path))[len("before\n") :]
    begins = [record.begins for record in logs.read(path)]
    assert begins == [True, True, True, False, False, True]


def test_bytes_that_are_no_text_are_shown_as_docker_shows_them(path: Path) -> None:
    writer = new_writer(path, LogConfig())
    writer.write("stdout", b"\xff\x00\n" + b"\x80" * (LONGEST_LINE + 1) + b"\n")
    end(writer)
    assert "".join(texts(path)) == "\ufffd\0\n" + "\ufffd" * (LONGEST_LINE + 1) + "\n"


# -- a tail -----------------------------------------------------------------------------------------


def test_a_tail_goes_back_over_rotated_files_and_blocks(path: Path) -> None:
    writer = new_writer(path, LogConfig(max_size=100_000, max_files=4))
    for number in range(3000):
        writer.write("stdout" if number % 2 else "stderr", f"{number} {'x' * 50}\n".encode())
    end(writer)
    every = texts(path)
    for count in (1, 2, 999, 1500, len(every), len(every) + 1):
        assert texts(path, tail=count) == every[-count:]
    assert texts(path, tail=700, stderr=False) == [text for text in every if int(text.split()[0]) % 2][-700:]


def test_a_line_that_is_being_written_waits_for_its_end(path: Path) -> None:
    writer = new_writer(path, LogConfig())
    writer.write("stdout", b"whole\n")
    with path.open("ab") as file:
        file.write(b'{"log":"ha')
    assert texts(path) == texts(path, tail=1) == ["whole\n"]


# -- rotations under a reader -----------------------------------------------------------------------


def test_rotations_under_a_reader_lose_and_repeat_nothing(path: Path) -> None:
    """However far the reader is behind, as long as the files still exist."""
    writer = new_writer(path, LogConfig(max_size=1000, max_files=1000))
    writer.write("stdout", b"0\n")
    stopped = False
    reader = logs.read(path, follow=True, stop=lambda: stopped)
    seen = [next(reader).data]
    for number in range(1, 400):
        writer.write("stdout", f"{number}\n".encode())
        if number % 97 == 0:
            seen.append(next(reader).data)
    end(writer)
    stopped = True
    seen += [record.data for record in reader]
    assert [int(data) for data in seen] == list(range(400))


def test_a_reader_goes_on_with_the_oldest_that_is_left(path: Path) -> None:
    writer = new_writer(path, LogConfig(max_size=1000, max_files=3))
    writer.write("stdout", b"0\n")
    reader = logs.read(path, follow=True, stop=lambda: True)
    seen = [int(next(reader).data)]
    for number in range(1, 400):
        writer.write("stdout", f"{number}\n".encode())
    seen += [int(record.data) for record in reader]
    assert seen == sorted(set(seen))
    assert seen[-1] == 399 and texts(path)[0] == f"{seen[seen.index(399) - len(texts(path)) + 1]}\n"


def test_a_log_of_one_file_is_replaced_under_its_reader(path: Path) -> None:
    writer = new_writer(path, LogConfig(max_size=1000, max_files=1))
    for number in range(8):
        writer.write("stdout", f"{number}\n".encode())
    reader = logs.read(path, follow=True, stop=lambda: True)
    seen = [int(next(reader).data)]
    for number in range(8, 20):
        writer.write("stdout", f"{number}\n".encode())
    seen += [int(record.data) for record in reader]
    assert seen[-1] == 19 and seen == sorted(set(seen))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_size_without_limit(path: Path) -> None:
    writer = new_writer(path, LogConfig(max_size=0, max_files=2))
    for _ in range(100):
        writer.write("stdout", b"x" * 1000 + b"\n")
    end(writer)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# -- a slow disk ------------------------------------------------------------------------------------


class StuckDisk:
    """Takes a write and says nothing until it is let go."""

    def __init__(self) -> None:
        self.data = b""
        self._fd = -1
        self._done: Callable[[int], None] | None = None

    def write(
        self, fd: int, data: bytes, done: Callable[[int], None], late: Callable[[], None]
    ) -> int | None:
        assert self._done is None, "one write at a time"
        self._fd, self.data, self._done, self.late = fd, data, done, late
        return None

    def let_go(self) -> None:
        done, self._done = self._done, None
        assert done is not None
        done(os.write(self._fd, self.data))

    def close(self) -> None:
        pass


def test_a_disk_that_takes_its_time_loses_nothing(path: Path) -> None:
    """With a full buffer the container waits, as for any reader of a pipe; until the disk is late."""
    disk = StuckDisk()
    freed: list[bool] = []
    writer = LogWriter(str(path), LogConfig(buffer=500), disk, when_free=lambda: freed.append(writer.full))
    written = 0
    while not writer.full:
        writer.write("stdout", f"{written}\n".encode())
        written += 1
    writer.write("stdout", b"of a chunk that was read already\n")
    assert writer.dropped == 0 and written > 3
    disk.let_go()
    assert freed == [False] and not writer.full
    disk.let_go()
    writer.write("stdout", b"under way\n")
    writer.write("stdout", b"more\n" * 10)
    assert writer.full
    disk.late()
    assert freed[-1] is False and not writer.full
    writer.write("stdout", b"lost\n")
    assert writer.dropped == len(b"lost\n")


def test_a_slow_disk_holds_nothing_up(path: Path) -> None:
    """Lines wait, up to the buffer's size; those above are dropped, counted and told."""
    disk = StuckDisk()
    drops: list[int] = []
    writer = LogWriter(
        str(path), LogConfig(buffer=2000), disk, when_dropping=lambda: drops.append(writer.dropped)
    )
    writer.write("stdout", b"000000000\n")
    disk.late()
    for number in range(1, 100):
        writer.write("stdout", f"{number:09}\n".encode())
    assert texts(path) == []
    kept = [record.data for record in writer.unwritten()]
    assert writer.dropped == (100 - len(kept)) * 10 == drops[-1] > 0
    over: list[bool] = []
    writer.flush(lambda: over.append(True))
    assert not over
    disk.let_go()
    assert texts(path) == ["000000000\n"] and not over
    disk.let_go()
    assert over
    writer.write("stdout", b"again\n")
    disk.let_go()
    assert [text.encode() for text in texts(path)] == [*kept, b"again\n"]
    assert writer.unwritten() == []


def test_a_disk_that_never_takes_it_is_given_up(path: Path) -> None:
    writer = LogWriter(str(path), LogConfig(), StuckDisk())
    writer.write("stdout", b"under way\n")
    writer.write("stdout", b"waiting\n")
    over: list[bool] = []
    writer.flush(lambda: over.append(True))
    writer.give_up()
    assert over and writer.dropped == len(b"waiting\n")
    writer.close()


def test_a_kernel_that_does_not_wait_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise PermissionError(1, "kernel.io_uring_disabled")

    monkeypatch.setattr(logwriter, "Ring", none)
    disk = PatientDisk(Loop())
    writer = LogWriter(str(path), LogConfig(), disk)
    writer.write("stdout", b"one\ntwo\n")
    assert texts(path) == ["one\n", "two\n"] and disk.waits
    end(writer)


def test_the_kernel_waits_for_the_disk(path: Path) -> None:
    """A pipe that nobody reads is as slow as a disk can be: a write to it blocks."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    loop = Loop()
    disk = PatientDisk(loop)
    writer = LogWriter(str(path), LogConfig(), disk)
    writer.write("stdout", b"x\n")
    if disk.waits:
        pytest.skip("this kernel has no io_uring")
    line = b"y" * 10_000 + b"\n"
    for _ in range(20):  # more than a pipe holds
        writer.write("stdout", line)
    over: list[bool] = []
    writer.flush(lambda: over.append(True))
    received = 0
    while not over:
        loop.run_once()
        while True:
            try:
                received += os.read(reader, 1 << 20).count(b"\n")
            except BlockingIOError:
                break
    assert (received, writer.dropped) == (21, 0)
    writer.close()
    os.close(reader)


# -- followers who are behind -----------------------------------------------------------------------


def numbers(writer: LogWriter, first: int, last: int) -> None:
    for number in range(first, last):
        writer.write("stdout", b"%d\n" % number)


def aside(path: Path) -> int:
    return len(logs.retired(path))


@pytest.mark.parametrize("files", [1, 2, 3])
def test_what_a_follower_has_not_read_is_kept_for_it(path: Path, files: int) -> None:
    """However fast the log is rotated; and no longer than it is needed."""
    writer = new_writer(path, LogConfig(max_size=300, max_files=files))
    numbers(writer, 0, 2)
    over = False
    follower = logs.read(path, follow=True, stop=lambda: over)
    seen = [int(next(follower).data) for _ in range(2)]
    numbers(writer, 2, 2000)
    assert aside(path) > 400  # more than are opened at once
    seen += [int(next(follower).data) for _ in range(1500)]
    numbers(writer, 2000, 2100)
    assert aside(path) < 400
    over = True
    seen += [int(record.data) for record in follower]
    assert seen == list(range(2100))
    assert aside(path) == 0
    end(writer)


def test_two_followers_and_the_next_run(path: Path) -> None:
    """What one needs is kept when the other has read it, and by a writer that comes later."""
    config = LogConfig(max_size=300, max_files=2)
    writer = new_writer(path, config)
    numbers(writer, 0, 2)
    slow, quick = (logs.read(path, follow=True, stop=lambda: True) for _ in range(2))
    assert next(slow).data == next(quick).data == b"0\n"
    numbers(writer, 2, 100)
    assert [int(record.data) for record in quick] == list(range(1, 100))
    end(writer)
    writer = new_writer(path, config)
    numbers(writer, 100, 200)
    assert aside(path) > 30
    assert [int(record.data) for record in slow] == list(range(1, 200))
    assert aside(path) == 0
    end(writer)


def test_what_cannot_be_kept_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES_HELD", 3000)
    writer = new_writer(path, LogConfig(max_size=300, max_files=2))
    numbers(writer, 0, 2)
    over = False
    follower = logs.read(path, follow=True, stop=lambda: over)
    assert next(follower).data == b"0\n"
    numbers(writer, 2, 1000)
    assert aside(path) <= 11
    assert next(follower).data == b"1\n"
    seen = [next(follower).data.decode().rstrip() for _ in range(30)]
    numbers(writer, 1000, 1100)
    over = True
    seen += [record.data.decode().rstrip() for record in follower]
    end(writer)
    gaps = [place for place, text in enumerate(seen) if not text.isdigit()]
    assert {seen[gap] for gap in gaps} == {
        "hawse-agent: lines are missing here: the log was rotated faster than it was read"
    }
    said = [int(text) for text in seen if text.isdigit()]
    jumps = [place for place, (one, next_one) in enumerate(pairwise(said)) if next_one != one + 1]
    assert gaps == [place + 1 + earlier for earlier, place in enumerate(jumps)] and 0 < len(gaps) < 3
    assert (said[0], said[-1]) == (2, 1099) and said == sorted(said) and jumps[0] > 30
    assert aside(path) == 0
