"""Logs: lines in, records out; rotation, tails, following, a full disk, spoilt lines."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from hawse_agent.spec.container import LogConfig
from hawse_agent.supervise import logs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


def texts(path: Path, **options: object) -> list[str]:
    return [record.data.decode() for record in logs.read(path, **options)]  # type: ignore[arg-type]


def test_lines_become_records(path: Path) -> None:
    writer = logs.LogWriter(path, LogConfig())
    writer.write("stdout", b"one\ntw")
    writer.write("stderr", b"oops\n")
    writer.write("stdout", b"o\nlast")
    writer.close()
    assert texts(path) == ["one\n", "oops\n", "two\n", "last"]
    assert texts(path, stdout=False) == ["oops\n"]
    first = json.loads(path.read_text().splitlines()[0])
    assert set(first) == {"log", "stream", "time"}
    assert first["time"].endswith("Z")


def test_rotation_keeps_the_youngest_files(path: Path) -> None:
    writer = logs.LogWriter(path, LogConfig(max_size=400, max_files=3))
    for number in range(40):
        writer.write("stdout", f"line {number}\n".encode())
    writer.close()
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
    writer = logs.LogWriter(path, LogConfig())
    writer.write("stdout", b"a\nb\n")
    assert texts(path, tail=0) == []
    assert texts(path, tail=1) == ["b\n"]


def test_following_crosses_a_rotation_and_ends(path: Path) -> None:
    writer = logs.LogWriter(path, LogConfig(max_size=300, max_files=2))
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
    writer.close()
    stopped.set()
    reader.join(5)
    assert not reader.is_alive()
    assert seen == ["first\n", "0\n", "1\n", "2\n"]


def test_a_full_disk_is_counted_and_leaves_whole_lines() -> None:
    writer = logs.LogWriter(Path("/dev/full"), LogConfig())
    writer.write("stdout", b"lost\n")
    assert writer.dropped > 0


def test_a_spoilt_line_is_passed_over(path: Path) -> None:
    writer = logs.LogWriter(path, LogConfig())
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
    writer = logs.LogWriter(path, LogConfig(max_size=400, max_files=3))
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
    writer.close()
    seen = [int(text.split()[1]) for text in texts(path)]
    assert seen == sorted(seen)
    assert seen[-4:] == [8, 9, 10, 11]
    assert {4, 5, 6, 7} <= set(seen)
