"""Blobs that come in part: what came is kept, and the next sender goes on from there."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from hawse_agent.errors import Conflict, ProtocolError
from hawse_agent.images.blobs import Blobs
from hawse_agent.images.partial import STALL, Partials
from hawse_agent.paths import Paths, paths_for

DATA = os.urandom(300_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Cut(Exception):
    pass


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = paths_for(tmp_path)
    for directory in (paths.blobs, paths.incoming):
        directory.mkdir(parents=True)
    return paths


@pytest.fixture
def partials(paths: Paths) -> Partials:
    return Partials(paths, Blobs(paths))


def send(partials: Partials, start: int, end: int) -> None:
    """A connection that is cut at `end`, if that is not the blob's."""
    with partials.writer(DIGEST, start, len(DATA)) as writer:
        writer.write(DATA[start:end])
        if end < len(DATA):
            raise Cut


def test_a_cut_blob_goes_on_where_it_stopped_also_with_the_next_daemon(paths: Paths) -> None:
    with pytest.raises(Cut):
        send(Partials(paths, Blobs(paths)), 0, 100_000)
    second = Partials(paths, Blobs(paths))
    assert second.offset(DIGEST) == 100_000
    with pytest.raises(Cut):
        send(second, 100_000, 250_000)
    send(second, 250_000, len(DATA))
    assert second.offset(DIGEST) is None
    assert Blobs(paths).path(DIGEST).read_bytes() == DATA and list(paths.partial.iterdir()) == []


def test_who_begins_before_the_end_of_what_is_there_writes_it_again(partials: Partials) -> None:
    with pytest.raises(Cut):
        send(partials, 0, 200_000)
    send(partials, 50_000, len(DATA))
    assert partials.offset(DIGEST) is None


def test_more_than_is_there_cannot_be_skipped(partials: Partials) -> None:
    with pytest.raises(Conflict, match="less than 7 bytes"):
        send(partials, 7, len(DATA))
    assert partials.offset(DIGEST) == 0


def test_wrong_bytes_are_not_kept(partials: Partials) -> None:
    with pytest.raises(ProtocolError, match="is damaged"), partials.writer(DIGEST, 0, len(DATA)) as writer:
        writer.write(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    assert partials.offset(DIGEST) == 0


def test_what_ends_too_early_is_kept(partials: Partials) -> None:
    with (
        pytest.raises(ProtocolError, match="came with 5 bytes"),
        partials.writer(DIGEST, 0, 300_000) as writer,
    ):
        writer.write(DATA[:5])
    assert partials.offset(DIGEST) == 5


def test_a_second_sender_waits_for_the_first(partials: Partials) -> None:
    told: list[int | None] = []
    waiting = threading.Thread(target=lambda: told.append(partials.offset(DIGEST)))
    with partials.writer(DIGEST, 0, len(DATA)) as writer:
        writer.write(DATA[:1000])
        waiting.start()
        with pytest.raises(Conflict, match="being sent by another"), partials.writer(DIGEST):
            pass
        assert told == []
        writer.write(DATA[1000:])
    waiting.join(10)
    assert told == [None]


def test_a_sender_that_fell_silent_is_superseded(paths: Paths) -> None:
    now = [0.0]
    partials = Partials(paths, Blobs(paths), clock=lambda: now[0])
    with pytest.raises(Conflict, match="taken over"), partials.writer(DIGEST, 0, len(DATA)) as first:
        first.write(DATA[:1000])
        now[0] = STALL + 1
        assert partials.offset(DIGEST) == 1000
        send(partials, 1000, len(DATA))
        first.write(DATA[1000:])
    assert Blobs(paths).path(DIGEST).read_bytes() == DATA


def test_what_nobody_came_back_for_goes_after_a_day(paths: Paths) -> None:
    with pytest.raises(Cut):
        send(Partials(paths, Blobs(paths)), 0, 1000)
    [file] = paths.partial.iterdir()
    os.utime(file, (time.time() - 25 * 3600,) * 2)
    assert Partials(paths, Blobs(paths)).offset(DIGEST) == 0
