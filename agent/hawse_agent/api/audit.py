"""The audit log: one JSON line for each request that changes something, with who asked and how it went."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from hawse_agent.api.http import Caller

MAX_SIZE = 10 << 20
"""Bytes, after which the log is renamed to `.1` and begun again."""
_READING = ("GET", "HEAD", "OPTIONS")


class Audit:
    """Never holds a body, a query or a header besides the caller's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def record(self, caller: Caller, method: str, path: str, status: int, seconds: float) -> None:
        """A log that cannot be written is no reason to refuse what has been done already."""
        if method in _READING:
            return
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "user": caller.user,
            "key": caller.key,
            "run": caller.run,
            "method": method,
            "path": path,
            "status": status,
            "seconds": round(seconds, 3),
        }
        line = json.dumps({key: value for key, value in entry.items() if value != ""}) + "\n"
        try:
            with self._lock:
                self._append(line.encode())
        except OSError:
            pass

    def _append(self, line: bytes) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line)
            full = os.fstat(fd).st_size > MAX_SIZE
        finally:
            os.close(fd)
        if full:
            self._path.rename(self._path.with_suffix(".log.1"))
