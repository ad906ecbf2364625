"""The host's libnftables: one transaction of nft's own language.

For tables and networks, which change rarely. Each call has a context of its own, and so works in whatever
network namespace its thread is in.
"""

from __future__ import annotations

import ctypes
from functools import cache

from hawse_agent.errors import HostRefused

_NAMES = ("libnftables.so.1", "libnftables.so.2", "libnftables.so")


def run(commands: str) -> None:
    """All or nothing; raises HostRefused with the kernel's words."""
    library = _library()
    context = library.nft_ctx_new(0)
    if not context:
        raise HostRefused("libnftables: no netlink socket")
    try:
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        if library.nft_run_cmd_from_buffer(context, commands.encode()):
            words = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
            raise HostRefused(f"nft: {_first_error(words)}")
    finally:
        library.nft_ctx_free(context)


def _first_error(words: str) -> str:
    lines = [line for line in words.splitlines() if "rror" in line]
    return (lines or words.splitlines() or ["failed without a word"])[0]


@cache
def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        for function in (
            library.nft_ctx_free,
            library.nft_ctx_buffer_error,
            library.nft_ctx_buffer_output,
            library.nft_ctx_get_error_buffer,
        ):
            function.argtypes = (ctypes.c_void_p,)
        library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        return library
    raise HostRefused(
        "libnftables is not on this host",
        hint="install it (Debian: libnftables1), or run hawse host bootstrap",
    )
