"""Further processes in a running container: `exec`, and the probes of a health check."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from hawse_agent.errors import NotFound, StartFailed
from hawse_agent.runtime.enter import Entered, enter
from hawse_agent.spec.runtime import ProcessConfig, RuntimeConfig
from hawse_agent.supervise.children import Children
from hawse_agent.supervise.health import KEPT_OUTPUT, TIMED_OUT, Probe, duration, shown
from hawse_agent.supervise.logs import Stream
from hawse_agent.supervise.loop import Loop
from hawse_agent.supervise.streams import ProcessStreams

KEPT = 1000
"""Ended executions whose exit code is still known; the oldest go first."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The container that is entered: its PID 1 as the shim sees it."""

    config: RuntimeConfig
    pid: int
    pidfd: int


@dataclass(kw_only=True)
class Execution:
    entered: Entered
    streams: ProcessStreams
    exit_code: int | None = None


class Executions:
    """`exited(id, exit_code)` is called when a process has ended and its output is with its client,
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
    ) -> None:
        """Raises StartFailed. `client` is owned from now on, whatever happens."""
        own = ProcessStreams(
            self._loop,
            tty=process.tty,
            stdin=process.stdin,
            stdin_once=True,
            log=None,
            when_quiet=self._when_quiet,
            detached=lambda: self._detached(exec_id),
        )
        try:
            entered = enter(host.config, host.pid, host.pidfd, process, own.stdio)
        except BaseException:
            own.abandon()
            if client is not None:
                client.close()
            raise
        execution = Execution(entered=entered, streams=own)
        self._known[exec_id] = execution
        self._children.expect(entered.pid, lambda code: self._ended(exec_id, code))
        if client is not None:
            own.attach(
                client,
                stdin=process.stdin,
                streams=streams,
                detach=detach,
                head=head,
            )
        elif process.stdin:
            own.input_ended()
        own.started(entered.console)
        self._forget_old()

    def state(self, exec_id: str) -> dict[str, int | bool | None]:
        execution = self._find(exec_id)
        code = execution.exit_code
        return {"running": code is None, "pid": execution.entered.pid, "exit_code": code}

    def resize(self, exec_id: str, height: int, width: int) -> None:
        self._find(exec_id).streams.resize(height, width)

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
        execution.exit_code = code  # before the client sees the end, after which it asks for it
        os.close(execution.entered.pidfd)
        execution.streams.end(lambda: self._exited(exec_id, code))

    def _forget_old(self) -> None:
        for exec_id, execution in list(self._known.items()):
            if len(self._known) <= KEPT:
                return
            if execution.exit_code is not None:
                del self._known[exec_id]


class _Kept:
    """The beginning of a probe's output."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, stream: Stream, data: bytes) -> None:
        self.data = (self.data + data)[: KEPT_OUTPUT + 1]


def probe(
    loop: Loop,
    children: Children,
    host: Host,
    process: ProcessConfig,
    timeout: float,
    done: Callable[[Probe], None],
) -> None:
    """Run one health check; `done` gets its result, also when it could not start or took too long."""
    start = time.time()
    kept = _Kept()
    streams = ProcessStreams(loop, tty=False, stdin=False, stdin_once=False, log=kept)

    def report(exit_code: int, output: str) -> None:
        done(Probe(start=start, end=time.time(), exit_code=exit_code, output=output))

    try:
        entered = enter(host.config, host.pid, host.pidfd, process, streams.stdio)
    except (StartFailed, OSError) as error:
        streams.abandon()
        report(error.container_exit if isinstance(error, StartFailed) else 1, str(error))
        return
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(entered.pid, signal.SIGKILL)  # it leads a session of its own, and is not reaped yet

    timer = loop.after(timeout, give_up)

    def ended(code: int) -> None:
        timer.cancel()
        os.close(entered.pidfd)

        def over() -> None:
            output = shown(kept.data)
            if late:
                text = f"Health check exceeded timeout ({duration(timeout)})"
                report(TIMED_OUT, f"{text}: {output}" if output else text)
            else:
                report(code, output)

        streams.end(over)

    children.expect(entered.pid, ended)
    streams.started(entered.console)
