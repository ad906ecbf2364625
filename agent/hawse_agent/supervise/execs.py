"""Further processes in a running container: `exec`, and the probes of a health check."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from hawse_agent.errors import HawseError, NotFound, StartFailed
from hawse_agent.spec.runtime import ProcessConfig
from hawse_agent.supervise.children import Children
from hawse_agent.supervise.health import KEPT_OUTPUT, TIMED_OUT, Probe, duration, shown
from hawse_agent.supervise.jobs import Enter
from hawse_agent.supervise.logs import Stream
from hawse_agent.supervise.loop import Loop
from hawse_agent.supervise.maker import Maker, Running, Spawned
from hawse_agent.supervise.streams import ProcessStreams

KEPT = 1000
"""Ended executions whose exit code is still known; the oldest go first."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The container that is entered: its runtime.json, and its PID 1 as the shim sees it."""

    document: bytes
    pid: int
    pidfd: int


@dataclass(kw_only=True)
class Execution:
    streams: ProcessStreams
    pid: int = 0
    """0 while it is being made."""
    pidfd: int = -1
    exit_code: int | None = None

    def spawned(self, made: Spawned) -> None:
        self.pid, self.pidfd = made.pid, made.pidfd

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Executions:
    """`exited(id, exit_code)` is called when a process has ended, before its client hears of it,
    `detached(id)` when its client has typed the keys that let go."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        *,
        exited: Callable[[str, int], None],
        detached: Callable[[str], None],
        when_quiet: Callable[[], None],
    ) -> None:
        self._loop, self._children, self._when_quiet = loop, children, when_quiet
        self._exited, self._detached = exited, detached
        self._known: dict[str, Execution] = {}
        self._under_way: set[str] = set()

    def start(
        self,
        exec_id: str,
        host: Host,
        process: ProcessConfig,
        client: socket.socket | None,
        head: bytes,
        *,
        streams: frozenset[Stream],
        detach: bytes,
        framed: bool | None,
        done: Callable[[int | HawseError], None],
    ) -> None:
        """`done` gets its process id when its program runs, else why it does not. `client` is owned from now
        on, whatever happens."""
        own = ProcessStreams(
            self._loop,
            tty=process.tty,
            stdin=process.stdin,
            stdin_once=True,
            log=None,
            when_quiet=self._when_quiet,
            detached=lambda: self._detached(exec_id),
        )
        self._known[exec_id] = execution = Execution(streams=own)
        self._under_way.add(exec_id)

        def running(made: Running) -> None:
            if client is not None:
                own.attach(
                    client, stdin=process.stdin, streams=streams, detach=detach, head=head, framed=framed
                )
            elif process.stdin:
                own.input_ended()
            own.started(made.console)
            self._forget_old()
            done(execution.pid)

        def failed(error: HawseError) -> None:
            del self._known[exec_id]
            self._under_way.remove(exec_id)
            execution.close()
            own.abandon()
            if client is not None:
                client.close()
            done(error)
            self._when_quiet()

        job = Enter(document=host.document, pid=host.pid, pidfd=host.pidfd, process=process, stdio=own.stdio)
        Maker(
            self._loop,
            self._children,
            job,
            spawned=execution.spawned,
            running=running,
            failed=failed,
            ended=lambda code: self._ended(exec_id, code),
            keep=job.descriptors,
        )

    def resize(self, exec_id: str, height: int, width: int) -> None:
        self._find(exec_id).streams.resize(height, width)

    @property
    def over(self) -> bool:
        """All have told how they ended."""
        return not self._under_way

    @property
    def quiet(self) -> bool:
        return all(execution.streams.quiet for execution in self._known.values())

    def _find(self, exec_id: str) -> Execution:
        try:
            return self._known[exec_id]
        except KeyError:
            raise NotFound(f"No such exec instance: {exec_id}") from None

    def _ended(self, exec_id: str, code: int) -> None:
        execution = self._known[exec_id]
        execution.exit_code = code
        execution.close()
        self._exited(exec_id, code)  # before the client sees the end, after which it asks for it

        def over() -> None:
            self._under_way.discard(exec_id)
            self._when_quiet()

        execution.streams.end(over)

    def _forget_old(self) -> None:
        for exec_id, execution in list(self._known.items()):
            if len(self._known) <= KEPT:
                return
            if execution.exit_code is not None:
                del self._known[exec_id]


class _Kept:
    """The beginning of a probe's output."""

    full = False

    def __init__(self) -> None:
        self.data = b""

    def write(self, stream: Stream, data: bytes) -> None:
        self.data = (self.data + data)[: KEPT_OUTPUT + 1]


def probe(
    loop: Loop,
    children: Children,
    host: Host,
    argv: tuple[str, ...],
    timeout: float,
    done: Callable[[Probe], None],
) -> None:
    """Run one health check; `done` gets its result, also when it could not start or took too long."""
    start = time.time()
    kept = _Kept()
    streams = ProcessStreams(loop, tty=False, stdin=False, stdin_once=False, log=kept, merged=True)
    execution = Execution(streams=streams)
    late = False

    def report(exit_code: int, output: str) -> None:
        execution.close()
        if late:
            text = f"Health check exceeded timeout ({duration(timeout)})"
            exit_code, output = TIMED_OUT, f"{text}: {output}" if output else text
        done(Probe(start=start, end=time.time(), exit_code=exit_code, output=output))

    def failed(error: HawseError) -> None:
        timer.cancel()
        streams.abandon()
        report(error.container_exit if isinstance(error, StartFailed) else 1, "" if late else str(error))

    def ended(code: int) -> None:
        timer.cancel()
        streams.end(lambda: report(code, shown(kept.data)))

    def give_up() -> None:
        nonlocal late
        late = True
        maker.give_up()
        if execution.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(
                    execution.pid, signal.SIGKILL
                )  # it leads a session of its own, and is not reaped yet

    job = Enter(document=host.document, pid=host.pid, pidfd=host.pidfd, argv=argv, stdio=streams.stdio)
    timer = loop.after(timeout, give_up)
    maker = Maker(
        loop,
        children,
        job,
        spawned=execution.spawned,
        running=lambda made: streams.started(made.console),
        failed=failed,
        ended=ended,
        keep=job.descriptors,
    )
