"""This terminal as the near end of a process in a container: its streams, and the signals meant for it."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from types import FrameType, TracebackType

from hawse.cli import terminal
from hawse.cli.context import Context
from hawse.cli.hosts import HostOutput
from hawse.fleet.client import AgentClient, demultiplex
from hawse.fleet.stream import Stream
from hawse_agent.errors import HawseError, InputError, NotFound, ProtocolError, Unreachable
from hawse_agent.spec import detach

_PROXIED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_ENOUGH = 3
"""Ctrl-C so many times means us, whatever the process does about it."""


def check_terminal(context: Context, *, tty: bool, stdin: bool) -> None:
    if tty and stdin and not context.stdin.isatty():
        raise InputError("the input device is not a TTY", hint="use -i alone")


def attend(
    context: Context,
    streams: tuple[Stream, bytes],
    writer: HostOutput,
    *,
    name: str,
    tty: bool,
    stdin: bool,
    detach_keys: str = "",
    resize: Callable[[int, int], None],
) -> bool:
    """Both ways until the process's output ends; whether it was left by the detach keys, and runs on."""
    stream, first = streams
    left = threading.Event()

    def leave() -> None:
        left.set()
        stream.close()

    with closing(stream), ExitStack() as stack:
        if tty:
            if stdin:
                stack.enter_context(terminal.raw(context.stdin))
            stack.enter_context(terminal.resized(resize))
        if stdin:
            keys = detach.Detector(detach.parse(detach_keys)) if tty else None
            terminal.forward(context.stdin, stream.send, stream.close_write, keys=keys, detached=leave)
        chunks = _received(stream, first, name)
        try:
            for number, data in ((1, piece) for piece in chunks) if tty else demultiplex(chunks):
                writer.write(number, data)
        except (ProtocolError, Unreachable):
            if not left.is_set():
                raise
    return left.is_set()


def _received(stream: Stream, first: bytes, name: str) -> Iterator[bytes]:
    if first:
        yield first
    try:
        while data := stream.recv(None):
            yield data
    except OSError as error:
        raise Unreachable(f"{name}: the connection was cut: {error}", stage="tcp") from error


def exit_code(agent: AgentClient, container: str, ended: Callable[[], int]) -> int:
    """By `ended`; asked for again when the daemon has been replaced in the meantime."""
    try:
        return ended()
    except Unreachable as lost:
        try:
            with agent.waiting(container, "not-running") as again:
                return again()
        except NotFound:  # it is removed, and with it what its exit code was
            raise lost from None


class Signals:
    """In a `with` block, from `hold` on, signals go to the containers that are named by `to`, and not to this
    process; those that come before wait for that. Until `hold` each interrupts, as Ctrl-C does. When not
    `proxied`, nothing changes.
    """

    def __init__(self, *, proxied: bool) -> None:
        self._numbers = _PROXIED if proxied else ()
        self._before: dict[int, signal._HANDLER] = {}
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._targets: list[Callable[[str], None]] = []
        self._asked = 0
        self._holding = False

    def hold(self) -> None:
        """A container is about to start."""
        self._holding = True

    def to(self, kill: Callable[[str], None]) -> None:
        """`kill` gets a signal's name, in a thread of its own. Its container may have ended."""
        self.hold()
        with self._lock:
            self._targets.append(kill)
            if len(self._targets) == 1 and self._numbers:
                threading.Thread(target=self._pass_on, name="signals", daemon=True).start()

    def __enter__(self) -> Signals:
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._queue.put("")

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if not self._holding:
            raise KeyboardInterrupt
        if number in (signal.SIGINT, signal.SIGTERM):
            self._asked += 1
            if self._asked >= _ENOUGH:
                raise KeyboardInterrupt
        self._queue.put(signal.Signals(number).name)

    def _pass_on(self) -> None:
        while name := self._queue.get():
            with self._lock:
                targets = list(self._targets)
            for kill in targets:
                try:
                    kill(name)
                except HawseError:
                    continue  # it has ended: nobody is left to be told
