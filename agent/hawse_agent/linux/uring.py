"""One write at a time that never blocks its caller, whatever the disk does: io_uring(7) in its smallest form.

A write to a regular file cannot be polled for: it blocks while the disk is slow, a file system frozen or a
server gone. The kernel's own workers wait instead, and an eventfd tells when it is done. Kernels from 5.6 on
have it, unless `kernel.io_uring_disabled` forbids it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

from hawse_agent.linux import libc

_OP_WRITE = 23
_REGISTER_EVENTFD = 4
_OFFSET_SQ, _OFFSET_CQ, _OFFSET_SQES = 0, 0x8000000, 0x10000000
_PARAMS = struct.Struct("=7I3I 10I 10I")
"""struct io_uring_params: seven words, three reserved, the offsets in both rings."""
_SQE = struct.Struct("=BBHiQQIIQHHiQQ")
_CQE = struct.Struct("=QiI")
_WORD = struct.Struct("=I")
_AT_THE_END = (1 << 64) - 1
"""The offset of a write that goes where the file's own position is, which O_APPEND puts at its end."""


class Ring:
    """`fd` becomes readable when the write that was submitted is done: then ask `result`."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has none."""
        params = ctypes.create_string_buffer(_PARAMS.size)
        self._fd = libc.syscall("io_uring_setup", 1, params, what="make an io_uring")
        self.fd = -1
        try:
            words = _PARAMS.unpack(params.raw)
            sq_tail, sq_mask, sq_array = words[11], words[12], words[16]
            self._cq_head, cq_tail, cq_mask, cqes = words[20], words[21], words[22], words[25]
            self._sq = mmap.mmap(self._fd, sq_array + words[0] * 4, offset=_OFFSET_SQ)
            self._cq = mmap.mmap(self._fd, cqes + words[1] * _CQE.size, offset=_OFFSET_CQ)
            self._sqes = mmap.mmap(self._fd, words[0] * _SQE.size, offset=_OFFSET_SQES)
            self._sq_tail, self._cq_tail, self._cqes, self._sq_array = sq_tail, cq_tail, cqes, sq_array
            self._sq_mask, self._cq_mask = _word(self._sq, sq_mask), _word(self._cq, cq_mask)
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            event = ctypes.create_string_buffer(_WORD.pack(self.fd), _WORD.size)
            libc.syscall("io_uring_register", self._fd, _REGISTER_EVENTFD, event, 1, what="watch an io_uring")
        except BaseException:
            self.close()
            raise
        self._buffer: ctypes.Array[ctypes.c_char] | None = None

    def write(self, fd: int, data: bytes) -> None:
        """Append `data`; the one before must be done. The ring keeps the data until then."""
        self._buffer = ctypes.create_string_buffer(data, len(data))
        tail = _word(self._sq, self._sq_tail)
        slot = tail & self._sq_mask
        address = ctypes.addressof(self._buffer)
        entry = _SQE.pack(_OP_WRITE, 0, 0, fd, _AT_THE_END, address, len(data), 0, 0, 0, 0, 0, 0, 0)
        self._sqes[slot * _SQE.size : (slot + 1) * _SQE.size] = entry
        _WORD.pack_into(self._sq, self._sq_array + slot * 4, slot)
        _WORD.pack_into(self._sq, self._sq_tail, (tail + 1) & 0xFFFFFFFF)
        libc.syscall("io_uring_enter", self._fd, 1, 0, 0, None, 0, what="write by io_uring")

    def result(self) -> int | None:
        """Bytes written, or a negative errno; None when it is not done yet."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return None
        head = _word(self._cq, self._cq_head)
        if head == _word(self._cq, self._cq_tail):
            return None
        _, result, _ = _CQE.unpack_from(self._cq, self._cqes + (head & self._cq_mask) * _CQE.size)
        _WORD.pack_into(self._cq, self._cq_head, (head + 1) & 0xFFFFFFFF)
        self._buffer = None
        return int(result)

    def close(self) -> None:
        """What is under way is given up or goes on in the kernel; its data stays in memory until then."""
        for fd in (self._fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self.fd = -1


def _word(memory: mmap.mmap, offset: int) -> int:
    return int(_WORD.unpack_from(memory, offset)[0])
