"""gzip on all processors: what others read, and the same however many there are."""

from __future__ import annotations

import gzip as reference
import io
import os
import random
import zlib

import pytest

from hawse_agent.images import gzip

TEXT = b"".join(b"line %d of a file that has some sense\n" % (number % 977) for number in range(120_000))


@pytest.mark.parametrize(
    "data",
    [b"", b"x", TEXT, random.Random(1).randbytes(3 << 20), bytes(1 << 20), bytes((1 << 20) + 1)],
    ids=["nothing", "one byte", "text", "noise", "a block", "a block and a byte"],
)
def test_others_read_it(data: bytes) -> None:
    packed = b"".join(gzip.compressed(io.BytesIO(data)))
    assert reference.decompress(packed) == data
    whole = zlib.decompressobj(31)
    assert whole.decompress(packed) == data and whole.eof and not whole.unused_data, "one member"
    assert len(packed) < len(reference.compress(data, gzip.LEVEL)) * 1.03 + 100


def test_it_is_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 100_001))

    found = set()
    for processors in (1, 2, 7):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        found |= {b"".join(gzip.compressed(stream(TEXT))) for stream in (io.BytesIO, Slow)}
    assert len(found) == 1
