"""Raw system calls through libc, with errno checked by construction."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

from hawse_agent.linux import syscalls

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

Argument = int | bytes | ctypes.Array[Any] | ctypes.Structure | None


def syscall(name: str, *args: Argument, what: str = "") -> int:
    """Call by name; a result of -1 becomes OSError, whose text says `what` was tried."""
    result = int(_libc.syscall(ctypes.c_long(syscalls.number(name)), *map(_as_register, args)))
    if result == -1:
        raise error(what or name)
    return result


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0, *, what: str) -> int:
    result = int(_libc.prctl(option, arg2, arg3, arg4, arg5))
    if result == -1:
        raise error(what)
    return result


def error(what: str) -> OSError:
    """The OSError of the call that has just failed in this thread."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _as_register(
    value: Argument,
) -> ctypes.c_long | ctypes.c_char_p | ctypes.c_void_p | object:
    """Variadic arguments are passed as C int unless told otherwise, which would cut 64-bit values."""
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, bytes):
        if b"\0" in value:  # C would see another, shorter text
            raise OSError(errno.EINVAL, f"{value!r}: {os.strerror(errno.EINVAL)}")
        return ctypes.c_char_p(value)
    return ctypes.byref(value)
