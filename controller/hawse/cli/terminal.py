"""This terminal as the far end of a process in a container: raw bytes both ways, its size, and back again."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import IO, Any

from hawse_agent.errors import HawseError
from hawse_agent.spec.detach import Detector

_PIECE = 64 * 1024


@contextlib.contextmanager
def raw(file: IO[bytes]) -> Iterator[None]:
    """Keys go through as they are, Ctrl-C too, until the block is left. Does nothing where `file` is none."""
    if not file.isatty():
        yield
        return
    before = termios.tcgetattr(file)
    tty.setraw(file.fileno(), termios.TCSADRAIN)  # what was typed early stays
    try:
        yield
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def size() -> tuple[int, int]:
    """Height and width of this terminal, in characters; (0, 0) when there is none."""
    for descriptor in (1, 0, 2):
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(descriptor)
            return lines, columns
    return 0, 0


@contextlib.contextmanager
def resized(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Calls `resize(height, width)` now and whenever the window changes, from a thread of its own."""
    changed = threading.Event()
    changed.set()
    over = False

    def work() -> None:
        while changed.wait() and not over:
            changed.clear()
            height, width = size()
            if height and width:
                with contextlib.suppress(HawseError):  # it ends just now
                    resize(height, width)

    def wake(number: int, frame: Any) -> None:
        changed.set()

    before = signal.signal(signal.SIGWINCH, wake)
    worker = threading.Thread(target=work, name="window", daemon=True)
    worker.start()
    try:
        yield
    finally:
        over = True
        changed.set()
        signal.signal(signal.SIGWINCH, before)
        worker.join()


def forward(
    file: IO[bytes],
    send: Callable[[bytes, float | None], None],
    close: Callable[[], None],
    *,
    keys: Detector | None = None,
    detached: Callable[[], None] = lambda: None,
) -> None:
    """Sends what `file` holds to a process, in the background, and its end as the end of input.

    When `keys` finds its sequence there, nothing further is sent and `detached` is called. The thread may
    stay behind in a read when the process has ended: it is a daemon.
    """

    def work() -> None:
        try:
            while data := os.read(file.fileno(), _PIECE):
                found = False
                if keys is not None:
                    data, found = keys.feed(data)
                if data:
                    send(data, None)
                if found:
                    detached()
                    return
            close()
        except OSError:
            pass  # the process takes no more input: its exit code tells the rest

    threading.Thread(target=work, name="stdin", daemon=True).start()
