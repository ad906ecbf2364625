"""zstd streams against the `zstandard` package, which has a libzstd of its own."""

from __future__ import annotations

import io
import os

import pytest
import zstandard

from hawse_agent.errors import InputError, ProtocolError
from hawse_agent.linux import zstd

pytestmark = pytest.mark.skipif(not zstd.available(), reason="no libzstd here")

DATA = os.urandom(300_000) + b"text " * 200_000


def test_reads_what_others_wrote() -> None:
    packed = zstandard.compress(DATA)
    assert io.BufferedReader(zstd.ZstdReader(io.BytesIO(packed))).read() == DATA
    assert zstd.ZstdReader(io.BytesIO(packed)).read(10) == DATA[:10]


def test_reads_several_frames_and_nothing() -> None:
    packed = zstandard.compress(b"one ") + zstandard.compress(b"") + zstandard.compress(b"two")
    assert zstd.ZstdReader(io.BytesIO(packed)).readall() == b"one two"
    assert zstd.ZstdReader(io.BytesIO(b"")).readall() == b""


def test_small_reads_of_much_data() -> None:
    reader = zstd.ZstdReader(io.BytesIO(zstandard.compress(bytes(5_000_000))))
    assert sum(len(piece) for piece in iter(lambda: reader.read(40_000), b"")) == 5_000_000


@pytest.mark.parametrize("threads", [0, 2])
def test_others_read_what_it_wrote(threads: int) -> None:
    out = io.BytesIO()
    with zstd.ZstdWriter(out, threads=threads) as writer:
        for start in range(0, len(DATA), 70_001):
            writer.write(DATA[start : start + 70_001])
    assert zstandard.ZstdDecompressor().decompressobj().decompress(out.getvalue()) == DATA


def test_writes_an_empty_frame() -> None:
    out = io.BytesIO()
    zstd.ZstdWriter(out).close()
    assert zstd.ZstdReader(io.BytesIO(out.getvalue())).readall() == b""


def test_a_window_that_takes_much_memory_is_refused() -> None:
    for log, fits in ((26, True), (27, False)):
        parameters = zstandard.ZstdCompressionParameters(window_log=log, compression_level=1)
        packing = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        reader = zstd.ZstdReader(io.BytesIO(packing.compress(DATA) + packing.flush()))
        if fits:
            assert reader.readall() == DATA
        else:
            with pytest.raises(InputError, match="more than 64 MB of memory"):
                reader.readall()


def test_cut_stream() -> None:
    with pytest.raises(ProtocolError, match="ends too early"):
        zstd.ZstdReader(io.BytesIO(zstandard.compress(DATA)[:-20])).readall()


def test_damaged_stream() -> None:
    out = io.BytesIO()
    with zstd.ZstdWriter(out) as writer:
        writer.write(DATA)
    packed = bytearray(out.getvalue())
    packed[1000] ^= 0xFF
    with pytest.raises(ProtocolError, match="damaged"):
        zstd.ZstdReader(io.BytesIO(bytes(packed))).readall()
    with pytest.raises(ProtocolError, match="damaged"):
        zstd.ZstdReader(io.BytesIO(b"not zstd at all")).readall()
