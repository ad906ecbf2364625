"""gzip on all processors: one member, whose blocks are deflated side by side, each with the end of the one
before as its dictionary. The same bytes give the same result, however many processors there are.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from hawse_agent.images.compression import Readable

LEVEL = 6
_BLOCK = 1 << 20
_WINDOW = 1 << 15
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Deflate, no name, no time, of an unknown system."""


def compressed(stream: Readable) -> Iterator[bytes]:
    """The gzip of a stream, piece by piece."""
    workers = os.cpu_count() or 1
    checksum, size, before = 0, 0, b""
    under_way: deque[Future[bytes]] = deque()
    yield _HEADER
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="gzip") as pool:
        while block := _read(stream):
            checksum = zlib.crc32(block, checksum)
            size += len(block)
            under_way.append(pool.submit(_deflated, block, before, zlib.Z_SYNC_FLUSH))
            before = block[-_WINDOW:]
            if len(under_way) > workers:
                yield under_way.popleft().result()
        for block_done in under_way:
            yield block_done.result()
    yield _deflated(b"", b"", zlib.Z_FINISH)
    yield struct.pack("<LL", checksum, size & 0xFFFFFFFF)


def _deflated(block: bytes, before: bytes, end: int) -> bytes:
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    return deflate.compress(block) + deflate.flush(end)


def _read(stream: Readable) -> bytes:
    """A whole block, but for the last."""
    pieces, left = [], _BLOCK
    while left and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
