"""What is compressed, and how much memory it may take."""

from __future__ import annotations

import io
import lzma

import pytest

from hawse_agent.errors import InputError
from hawse_agent.images.compression import plain


def packed(dictionary: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}]
    return lzma.compress(b"content", filters=filters)


def test_xz_as_its_program_makes_it() -> None:
    assert plain(io.BytesIO(packed(64 << 20))).read(100) == b"content"  # -9


def test_xz_that_takes_much_memory_is_refused() -> None:
    with pytest.raises(InputError, match="xz: unpacking it takes more than 80 MB of memory"):
        plain(io.BytesIO(packed(128 << 20))).read(100)
