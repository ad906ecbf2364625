"""zstd streams by the host's libzstd.

Where the host has none, `available()` is False and the callers use gzip. A damaged or cut stream is a
ProtocolError, never silently short data.
"""

from __future__ import annotations

import ctypes
import io
from functools import cache
from typing import Any, Protocol

from hawse_agent.errors import HostRefused, InputError, ProtocolError

DEFAULT_LEVEL = 3

_CHUNK = 128 * 1024
_CONTINUE, _END = 0, 2
_COMPRESSION_LEVEL, _CHECKSUM, _WORKERS = 100, 201, 400
_SETTERS = ("ZSTD_CCtx_setParameter", "ZSTD_DCtx_setParameter")
_WINDOW_LOG_MAX = 100
_WINDOW_LOG = 26
"""64 MB: all that `zstd` makes without --long or --ultra -22; a frame may ask for twice that otherwise."""
_WINDOW_TOO_LARGE = 16


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def available() -> bool:
    return _library() is not None


class ZstdReader(io.RawIOBase):
    """The decompressed bytes of `raw`, which may hold several frames. Closing it leaves `raw` open."""

    def __init__(self, raw: Source) -> None:
        super().__init__()
        self._raw = raw
        self._zstd = _required()
        self._context = ctypes.c_void_p(self._zstd.ZSTD_createDCtx())
        code = self._zstd.ZSTD_DCtx_setParameter(self._context, _WINDOW_LOG_MAX, _WINDOW_LOG)
        _check(self._zstd, code, "the window cannot be limited")
        self._input = _Buffer()
        self._data = b""
        self._ended = True
        """Between frames: the only place where the stream may end."""
        self._more = False
        """The decoder may hold data that did not fit into the last buffer."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        if not target:
            return 0
        area = (ctypes.c_char * len(target)).from_buffer(target)
        output = _Buffer(address=ctypes.addressof(area), size=len(target), position=0)
        while output.position == 0:
            if not self._more and self._input.position == self._input.size and not self._fill():
                return 0
            hint = self._zstd.ZSTD_decompressStream(
                self._context, ctypes.byref(output), ctypes.byref(self._input)
            )
            self._ended = _check(self._zstd, hint, "the data is damaged") == 0
            self._more = not self._ended and output.position == output.size
        return int(output.position)

    def close(self) -> None:
        if not self.closed:
            self._zstd.ZSTD_freeDCtx(self._context)
        super().close()

    def _fill(self) -> bool:
        self._data = self._raw.read(_CHUNK)
        if not self._data and not self._ended:
            raise ProtocolError("zstd: the data ends too early")
        self._input = _Buffer(address=_address(self._data), size=len(self._data), position=0)
        return bool(self._data)


class ZstdWriter:
    """Compresses what is written into `raw`; `close` ends the frame and leaves `raw` open."""

    def __init__(self, raw: Sink, *, level: int = DEFAULT_LEVEL, threads: int = 0) -> None:
        self._raw = raw
        self._zstd = _required()
        self._context = ctypes.c_void_p(self._zstd.ZSTD_createCCtx())
        self._set(_COMPRESSION_LEVEL, level)
        self._set(_CHECKSUM, 1)
        if threads:
            self._zstd.ZSTD_CCtx_setParameter(self._context, _WORKERS, threads)  # not every build has threads
        self._area = ctypes.create_string_buffer(_CHUNK)
        self._closed = False

    def write(self, data: bytes) -> int:
        source = _Buffer(address=_address(data), size=len(data), position=0)
        while source.position < source.size:
            self._step(source, _CONTINUE)
        return len(data)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            while self._step(_Buffer(), _END):
                pass
        finally:
            self._zstd.ZSTD_freeCCtx(self._context)

    def __enter__(self) -> ZstdWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set(self, parameter: int, value: int) -> None:
        code = self._zstd.ZSTD_CCtx_setParameter(self._context, parameter, value)
        _check(self._zstd, code, f"parameter {parameter}={value}")

    def _step(self, source: _Buffer, directive: int) -> int:
        """What is still to be flushed."""
        output = _Buffer(address=ctypes.addressof(self._area), size=_CHUNK, position=0)
        left = self._zstd.ZSTD_compressStream2(
            self._context, ctypes.byref(output), ctypes.byref(source), directive
        )
        _check(self._zstd, left, "cannot compress")
        if output.position:
            self._raw.write(ctypes.string_at(output.address, output.position))
        return int(left)


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    address: int
    size: int
    position: int
    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    for name in ("ZSTD_createDCtx", "ZSTD_createCCtx"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("ZSTD_decompressStream", "ZSTD_compressStream2", *_SETTERS):
        getattr(library, name).restype = ctypes.c_size_t
    library.ZSTD_getErrorCode.argtypes = (ctypes.c_size_t,)
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


def _required() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise HostRefused("this host has no libzstd", hint="install libzstd1 (libzstd), or use gzip")
    return library


def _check(library: ctypes.CDLL, code: int, what: str) -> int:
    if library.ZSTD_isError(code):
        if library.ZSTD_getErrorCode(code) == _WINDOW_TOO_LARGE:
            raise InputError(
                f"zstd: unpacking it takes more than {1 << _WINDOW_LOG >> 20} MB of memory",
                hint="compress it without --long and --ultra",
            )
        raise ProtocolError(f"zstd: {what}: {library.ZSTD_getErrorName(code).decode()}")
    return code


def _address(data: bytes) -> int:
    """Where the bytes lie; the caller keeps them alive."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
