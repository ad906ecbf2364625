"""Tells a daemon of a test, its shims and containers at which step to die: see `hawse_agent.failpoints`."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

PATIENCE = 60.0


class Failpoints:
    """A directory of orders; `environment` is what a daemon must be started with."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.environment = {"HAWSE_FAILPOINTS": str(directory)}

    def order(self, step: str, what: str) -> None:
        """The next who comes to that step does it: `die`, `stop`, `ENOSPC`."""
        path = self._path(step)
        path.with_suffix(".new").write_text(what)
        path.with_suffix(".new").rename(path)

    def meet(self, step: str, then: Callable[[], None], what: str = "") -> Thread:
        """Who comes to that step next waits there until `then` has been done, and then does `what`."""
        path = self._path(step)
        os.mkfifo(path)

        def wait() -> None:
            fd = _open_when_read(path)
            try:
                then()
                os.write(fd, what.encode())
            except BrokenPipeError:
                pass  # who waited was what `then` has killed
            finally:
                os.close(fd)

        thread = Thread(target=wait)
        thread.start()
        return thread

    def is_ordered(self, step: str) -> bool:
        """Nobody has come by yet."""
        return self._path(step).exists()

    def clear(self) -> None:
        for path in self._directory.iterdir():
            path.unlink()

    def _path(self, step: str) -> Path:
        return self._directory / step.replace("/", "-")


def _open_when_read(path: Path) -> int:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            assert error.errno == errno.ENXIO and time.monotonic() < deadline, f"nobody came to {path.name!r}"
        time.sleep(0.005)
