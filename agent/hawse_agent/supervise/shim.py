"""The shim: one small process per container that has it made, owns its streams, and keeps it alive.

    main ── listen ── maker ── namespaces ─► daemon ── run ─► go ── started ─► loop … exited ── gone

It needs the daemon for the network of the first start, and for nothing after: restart policy, stop grace,
health checks, log and executions go on while there is none. The conversation is in docs/protocols.md. Where
things happen:

    loop.py children.py lines.py     descriptors and timers, ended processes, JSON lines
    streams.py logs.py               stdio, clients, the log
    restart.py health.py             the rules, pure
    maker.py jobs.py                 the making of processes, in forks of their own
    execs.py                         further processes

Runs after a fork of the zygote: no imports, no threads, no logging; imports neither asyncio nor sqlite3. What
a function touches is copied, some 20 KB, and stays for as long as the container lives: so paths are strings
here, and what the standard library does in Python is left out where a system call does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hawse_agent.cgroups import Base, Cgroup, Tree
from hawse_agent.errors import Conflict, HawseError, InternalError, NotFound, NotSupported, StartFailed
from hawse_agent.failpoints import reach
from hawse_agent.linux import files, namespace, privilege
from hawse_agent.spec import codec, detach
from hawse_agent.spec.container import HealthCheck, LogConfig, Resources, RestartPolicy
from hawse_agent.spec.runtime import ProcessConfig, RuntimeConfig
from hawse_agent.supervise import health, logs, logwriter
from hawse_agent.supervise.attach import AttachOptions
from hawse_agent.supervise.children import Children
from hawse_agent.supervise.execs import Executions, Host, probe
from hawse_agent.supervise.health import Health, Probe
from hawse_agent.supervise.jobs import Start
from hawse_agent.supervise.lines import Lines
from hawse_agent.supervise.logs import LogRecord
from hawse_agent.supervise.logwriter import LogWriter, PatientDisk
from hawse_agent.supervise.loop import PRIORITY, READ, Loop, Timer
from hawse_agent.supervise.maker import Maker, Running, Spawned
from hawse_agent.supervise.restart import Backoff, Stumbles, restarts
from hawse_agent.supervise.streams import PATIENCE, ProcessStreams

REHEARSALS = 16

Status = Literal["created", "running", "paused", "restarting", "exited"]


@dataclass(kw_only=True)
class State:
    """What `state.json`, `exit.json` and every answer hold. Times are epoch seconds."""

    status: Status = "created"
    pid: int = 0
    exit_code: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0
    oom: bool = False
    error: str = ""
    restart_count: int = 0
    health: dict[str, Any] | None = None
    dropped_log_bytes: int = 0


def main(runtime: str, starter: socket.socket) -> None:
    """`runtime` is the container's runtime.json; returns when the container has ended for good."""
    Shim(_read(runtime), starter).run()


def rehearse() -> None:
    """Read configurations until the interpreter has rewritten the code for it, which else each shim would do
    to copies of its own. For the zygote."""
    example = RuntimeConfig(
        id="x",
        name="x",
        hostname="x",
        process=ProcessConfig(argv=("x",), stdin=True),
        cgroup="x",
        cgroup_base="x",
        log=LogConfig(max_files=2),
        log_path="x",
        exit_path="x",
        run_dir="x",
        restart=RestartPolicy(mode="always"),
    )
    document = codec.dumps(example).encode()
    for _ in range(REHEARSALS):
        Config.of(document)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the shim itself needs of a RuntimeConfig: reading all of it costs half a megabyte of copied
    pages, and is left to makers."""

    id: str
    run_dir: str
    log_path: str
    exit_path: str
    cgroup: str
    cgroup_base: str
    log: LogConfig = LogConfig()
    pid_namespace: str = "new"
    stop_signal: int = 15
    stop_timeout: int = 10
    restart: RestartPolicy = RestartPolicy()
    health: HealthCheck | None = None
    finished_before: float = 0.0
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False

    @classmethod
    def of(cls, document: bytes) -> Config:
        """Of a runtime.json."""
        everything = json.loads(document)
        everything |= everything["process"]
        known = cls.__dataclass_fields__
        return codec.from_json(cls, {key: value for key, value in everything.items() if key in known})


class Shim:
    def __init__(self, document: bytes, starter: socket.socket) -> None:
        self._document = document
        self._config = config = Config.of(document)
        self._finishing = self._leaving = self._left = False
        self._loop = Loop()
        self._children = Children(self._loop)
        self._state = State(finished_at=config.finished_before)
        self._log = LogWriter(
            config.log_path,
            config.log,
            PatientDisk(self._loop),
            when_dropping=self._dropping,
            when_free=lambda: self._streams.drained(),
        )
        self._drops_told: Timer | None = None
        self._streams = self._new_streams()
        self._executions = Executions(
            self._loop,
            self._children,
            exited=self._exec_exited,
            detached=lambda exec_id: self._tell("exec_detached", exec=exec_id),
            when_quiet=self._maybe_leave,
        )
        self._backoff = Backoff()
        self._stumbles = Stumbles()
        self._began = self._ran_for = 0.0
        """By a clock that nobody sets, as all that waits here."""
        self._watchers: list[Lines] = []
        self._requests: list[Lines] = []
        self._socket_path = f"{config.run_dir}/shim.sock"
        self._starter_socket = starter
        self._starter = Lines(self._loop, starter, self._from_starter, self._starter_closed)
        self._listener: socket.socket | None = None
        self._maker: Maker | None = None
        self._may_run = False
        self._pid = 0
        self._pidfd = -1
        self._netns: int | None = None
        self._resources: Resources | None = None
        """Those that replace the configuration's."""
        self._oom = -1
        self._reserved: list[int] = []
        self._health: Health | None = None
        self._probing: Timer | None = None
        self._stopped = False
        self._interrupted = False
        self._deadline: Timer | None = None
        self._restarting: Timer | None = None

    def run(self) -> None:
        self._become_supervisor()
        try:
            self._listen()
            self._maker = self._make(self._started, self._fail, first=True)
        except (HawseError, OSError) as error:
            self._fail(error)
        while not self._left:
            try:
                self._loop.run_once()
            except Exception:  # a bug of ours must not end the container: it goes on, and the log has it
                self._stumbled()

    def _stumbled(self) -> None:
        """What failed may be due again at once, and for ever."""
        pause, said = self._stumbles.another(time.monotonic())
        if said:
            traceback.print_exc()
            name, count = self._config.id[:12], self._stumbles.count
            print(f"hawse-shim: {name} has failed {count} times; it goes on", file=sys.stderr, flush=True)
        self._loop.pause(pause)

    # birth

    def _become_supervisor(self) -> None:
        privilege.set_child_subreaper()
        privilege.set_title(f"hawse-shim: {self._config.id}")
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGTERM, lambda number, frame: os.write(woken, b"\0"))
        self._loop.add(wake, READ, lambda _: self._shut_down(wake))

    def _listen(self) -> None:
        reach("shim: listen")
        try:
            os.mkdir(self._config.run_dir, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            os.makedirs(self._config.run_dir, 0o700)
        path = self._socket_path
        if os.access(path, os.F_OK):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.setblocking(False)
        files.bind(listener, path)
        os.chmod(path, 0o600)
        listener.listen(64)
        self._listener = listener
        self._loop.add(listener.fileno(), READ, lambda _: self._accept(listener))

    def _make(
        self, running: Callable[[Running], None], failed: Callable[[HawseError], None], *, first: bool
    ) -> Maker:
        start = Start(
            document=self._document,
            stdio=self._streams.stdio,
            netns=self._netns,
            resources=self._resources,
            daemon=self._starter_socket if first else None,
            shim_socket=self._socket_path,
        )
        reach("shim: fork")
        return Maker(
            self._loop,
            self._children,
            start,
            spawned=self._spawned,
            running=running,
            failed=failed,
            ended=self._ended,
            keep=start.descriptors,
            go=not first,
        )

    def _spawned(self, made: Spawned) -> None:
        self._pid, self._pidfd = made.pid, made.pidfd
        if self._netns is None:
            self._netns = made.netns
        elif made.netns is not None:
            os.close(made.netns)

    def _from_starter(self, lines: Lines, message: dict[str, Any], fds: list[int]) -> None:
        self._reserved += fds
        if message["op"] == "run" and self._maker is not None:
            self._may_run = True
            self._maker.go()

    def _starter_closed(self, lines: Lines) -> None:
        if lines in self._watchers:
            self._watchers.remove(lines)
        elif self._maker is not None and not self._may_run:
            self._maker.give_up()  # the daemon died before the network was there: as if never started
        self._maybe_leave()

    def _started(self, running: Running) -> None:
        self._run(running)
        reach("shim: tell started")
        if not self._starter.closed:
            self._watchers.append(self._starter)
        self._tell("started", pid=self._state.pid, started_at=self._state.started_at)

    def _run(self, running: Running, **fields: Any) -> None:
        """PID 1 runs its program; from here on it is supervised."""
        self._maker = None
        self._watch_memory(running)
        self._streams.started(running.console)
        health = None if self._config.health is None else Health(self._config.health, time.monotonic())
        self._began = time.monotonic()
        reach("shim: write state")
        self._change(
            status="running",
            pid=self._pid,
            started_at=time.time(),
            exit_code=0,
            oom=False,
            error="",
            health=None if health is None else health.as_json(),
            **fields,
        )
        if health is not None:
            self._health = health
            self._plan_probe()

    def _fail(self, error: HawseError | OSError) -> None:
        """The first start did not work: tell, leave."""
        self._maker = None
        failed = error if isinstance(error, StartFailed) else StartFailed(str(error), step="start")
        self._undo_run()
        self._clean_up()
        self._streams.abandon()
        self._starter.send(
            {
                "event": "failed",
                "message": failed.message,
                "step": failed.step,
                "container_exit": failed.container_exit,
            }
        )
        self._leave()

    # events

    def _tell(self, event: str, *, optional: bool = False, **fields: Any) -> None:
        message = {"event": event, **fields}
        if event in ("started", "restarted"):
            message["start_time"] = _start_time(self._state.pid)
        for watcher in list(self._watchers):
            watcher.send(message, optional=optional)

    def _change(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self._state, name, value)
        self._write_state(f"{self._config.run_dir}/state.json", durable=False)

    def _write_state(self, path: str, *, durable: bool) -> None:
        """A disk that does not take it is the daemon's to report: the state is in every answer, too."""
        data = json.dumps(self._as_json()).encode()
        temporary = f"{path}.new"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                complete = os.write(fd, data) == len(data)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            if complete:
                os.rename(temporary, path)
        except OSError:
            pass

    def _as_json(self) -> dict[str, Any]:
        self._state.dropped_log_bytes = self._log.dropped
        return dict(vars(self._state))

    # the end of a run

    def _ended(self, exit_code: int) -> None:
        """PID 1 is gone, and with it what was in its PID namespace."""
        reach("shim: ended")
        if self._deadline is not None:
            self._deadline.cancel()
        self._stop_health()
        cgroup = self._cgroup()
        oom = cgroup.oom_kills() > 0
        if self._config.pid_namespace != "new":
            cgroup.kill()
        if self._interrupted and exit_code == 128 + signal.SIGKILL:
            exit_code = 128 + signal.SIGINT
        self._interrupted = False
        self._ran_for = time.monotonic() - self._began
        self._state = replace(self._state, pid=0, exit_code=exit_code, oom=oom, finished_at=time.time())
        self._close_pidfd()
        reach("shim: drain")
        self._streams.end(self._output_over)

    def _output_over(self) -> None:
        patience = self._loop.after(logwriter.PATIENCE, self._log.give_up)

        def written() -> None:
            patience.cancel()
            self._run_over()

        self._log.flush(written)

    def _run_over(self) -> None:
        """Its output is in the log."""
        self._stop_watching_memory()
        reach("shim: remove the cgroup")
        self._cgroup().remove()
        self._next_run_or_leave()

    def _next_run_or_leave(self) -> None:
        state = self._state
        again = restarts(self._config.restart, state.exit_code, state.restart_count, stopped=self._stopped)
        reach("shim: write what comes next")
        if again:
            self._change(status="restarting")
        else:  # what `exit.json` says now, and the run directory is gone in a moment
            self._state = replace(self._state, status="exited")
        reach("shim: write exit")
        self._write_state(self._config.exit_path, durable=True)
        reach("shim: tell exited")
        self._tell(
            "exited",
            exit_code=state.exit_code,
            oom=state.oom,
            finished_at=state.finished_at,
            error=state.error,
            restarting=again,
        )
        if again:
            delay = self._backoff.delay(self._ran_for)
            self._restarting = self._loop.after(delay, self._restart)
        else:
            self._finish()

    def _restart(self) -> None:
        self._restarting = None
        reach("shim: restart")
        if os.access(self._config.exit_path, os.F_OK):
            os.unlink(self._config.exit_path)
        self._streams = self._new_streams()
        try:
            self._maker = self._make(self._restarted, self._not_restarted, first=False)
        except OSError as error:
            self._not_restarted(error)

    def _restarted(self, running: Running) -> None:
        count = self._state.restart_count + 1
        self._run(running, restart_count=count)
        reach("shim: tell restarted")
        self._tell("restarted", pid=self._state.pid, started_at=self._state.started_at, restart_count=count)

    def _not_restarted(self, error: HawseError | OSError) -> None:
        self._maker = None
        self._streams.abandon()
        self._undo_run()
        code = error.container_exit if isinstance(error, StartFailed) else 128
        now, self._ran_for = time.time(), 0.0
        self._state = replace(
            self._state,
            pid=0,
            exit_code=code,
            error=str(error),
            started_at=now,
            finished_at=now,
            restart_count=self._state.restart_count + 1,
        )
        self._next_run_or_leave()

    def _finish(self) -> None:
        """Give back what the container had, say so, and leave when everybody has heard it: executions first,
        which have ended with it."""
        self._finishing = not self._executions.over
        if self._finishing:
            return
        self._clean_up()
        reach("shim: tell gone")
        self._tell("gone", state=self._as_json())
        self._leave()

    def _clean_up(self) -> None:
        if self._listener is not None:
            self._loop.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for fd in self._reserved:
            os.close(fd)
        self._reserved = []
        if self._netns is not None:
            os.close(self._netns)
            self._netns = None
        self._close_pidfd()
        self._log.close()
        reach("shim: clean up")
        shutil.rmtree(self._config.run_dir, ignore_errors=True)

    def _undo_run(self) -> None:
        """What is left of a start that failed, when the maker itself was killed."""
        with contextlib.suppress(NotFound):
            cgroup = self._cgroup()
            cgroup.kill()
            cgroup.remove()
        self._close_pidfd()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _cgroup(self) -> Cgroup:
        return Tree(codec.loads(Base, self._config.cgroup_base)).open(self._config.cgroup)

    def _leave(self) -> None:
        self._leaving = True
        self._loop.after(PATIENCE, self._give_up)
        for lines in [self._starter, *self._watchers, *self._requests]:
            lines.finish()
        self._maybe_leave()

    def _maybe_leave(self) -> None:
        """Looked at again whenever a connection closes, a client has left or an execution is over."""
        if self._finishing and self._executions.over:
            self._finish()
        if not self._leaving:
            return
        heard = all(lines.closed for lines in [self._starter, *self._watchers, *self._requests])
        if heard and self._streams.quiet and self._executions.quiet:
            self._left = True

    def _give_up(self) -> None:
        self._left = True

    def _new_streams(self) -> ProcessStreams:
        return ProcessStreams(
            self._loop,
            tty=self._config.tty,
            stdin=self._config.stdin,
            stdin_once=self._config.stdin_once,
            log=self._log,
            when_quiet=self._maybe_leave,
            detached=lambda: self._tell("detached"),
            interrupted=self._typed_interrupt,
        )

    # stop, signals, pause

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                namespace.pidfd_send_signal(self._pidfd, number)

    def _typed_interrupt(self, group: int) -> None:
        if group == self._state.pid:
            self._interrupt()

    def _interrupt(self) -> None:
        """Ctrl-C of somebody who is attached ends PID 1, as it would any other process.

        The kernel spares the first process of a PID namespace all signals that it does not handle, this one
        too; whoever handles or ignores it decides for himself.
        """
        alone = self._config.pid_namespace == "new" and self._state.status == "running"
        if alone and _takes_default(self._state.pid, signal.SIGINT):
            self._interrupted = True
            self._signal(signal.SIGKILL)

    def _stop(self, number: int, grace: float) -> None:
        """`grace` below 0 waits for ever."""
        self._stopped = True
        if self._restarting is not None:
            self._restarting.cancel()
            self._restarting = None
            self._change(status="exited")
            self._write_state(self._config.exit_path, durable=True)
            self._loop.after(0, self._finish)  # after the answer to who asked
            return
        if self._maker is not None:
            self._maker.give_up()
            return
        if grace == 0:
            self._kill()
            return
        reach("shim: stop")
        self._signal(number)
        self._tell("signalled", signal=number)
        self._thaw()
        if grace > 0:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self._loop.after(grace, self._kill)

    def _kill(self) -> None:
        reach("shim: kill")
        self._signal(signal.SIGKILL)
        self._tell("signalled", signal=int(signal.SIGKILL))
        self._let_die()

    def _shut_down(self, wake: int) -> None:
        """SIGTERM: the host goes down. The policy starts the container at the next boot."""
        os.read(wake, 64)
        self._stop(self._config.stop_signal, self._config.stop_timeout)

    def _pause(self) -> None:
        if self._state.status != "running":
            raise Conflict(f"Container {self._config.id} is not running")
        self._cgroup().freeze()
        self._change(status="paused")
        self._tell("paused")

    def _thaw(self) -> None:
        if self._state.status == "paused":
            self._cgroup().thaw()
            self._change(status="running")
            self._tell("unpaused")

    def _let_die(self) -> None:
        """On v1 SIGKILL does not reach who is frozen, whoever has frozen it."""
        self._thaw()
        if self._state.status == "running":
            with contextlib.suppress(OSError):  # it has gone already
                self._cgroup().thaw()

    # memory and health

    def _watch_memory(self, running: Running) -> None:
        if running.oom is not None:
            self._oom = running.oom
            self._loop.add(running.oom, running.oom_events, self._memory_event)

    def _memory_event(self, events: int) -> None:
        if events & PRIORITY:
            with contextlib.suppress(OSError):  # ENODEV: the cgroup is being removed
                os.pread(self._oom, 4096, 0)
        else:
            with contextlib.suppress(BlockingIOError):
                os.read(self._oom, 8)
        if self._cgroup().oom_kills() > 0 and not self._state.oom:
            self._change(oom=True)
            self._tell("oom")

    def _stop_watching_memory(self) -> None:
        if self._oom >= 0:
            self._loop.remove(self._oom)
            os.close(self._oom)
            self._oom = -1

    def _plan_probe(self) -> None:
        assert self._health is not None
        self._probing = self._loop.after(self._health.next_in(time.monotonic()), self._probe)

    def _probe(self) -> None:
        current = self._health
        if current is None:
            return
        if self._state.status != "running":  # nothing enters a frozen container
            self._plan_probe()
            return
        began = time.monotonic()
        probe(
            self._loop,
            self._children,
            self._host(),
            health.command(current.check),
            current.check.timeout,
            lambda result: self._probed(current, result, began),
        )

    def _probed(self, current: Health, result: Probe, began: float) -> None:
        if current is not self._health:
            return  # of a run that is over
        changed = current.result(result, began)
        self._change(health=current.as_json())
        self._tell("health", optional=not changed, status=current.status, state=self._as_json())
        self._plan_probe()

    def _stop_health(self) -> None:
        self._health = None
        if self._probing is not None:
            self._probing.cancel()

    # requests

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        self._requests.append(Lines(self._loop, connection, self._request, self._request_closed))

    def _request_closed(self, lines: Lines) -> None:
        for group in (self._requests, self._watchers):
            if lines in group:
                group.remove(lines)
        self._maybe_leave()

    def _request(self, lines: Lines, message: dict[str, Any], fds: list[int]) -> None:
        handler = self._handlers().get(message.get("op", ""))
        answer: dict[str, Any] | None
        try:
            if message.get("op") == "exec":
                self._on_exec(message, fds, lines)
                answer = None
            elif handler is None:
                raise NotSupported(f"a shim does not know {message.get('op')!r}")
            else:
                answer = handler(message, fds) or {}
        except HawseError as error:
            answer = error.to_wire()
        except (OSError, KeyError, TypeError, ValueError) as error:
            answer = InternalError(f"{message.get('op')}: {type(error).__name__}: {error}").to_wire()
        finally:
            for fd in fds:
                os.close(fd)
        if message.get("op") == "watch" and not self._leaving:
            self._requests.remove(lines)
            self._watchers.append(lines)
        if answer is not None:
            lines.send(answer)

    def _handlers(self) -> dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any] | None]]:
        """Each takes over the descriptors it removes from the list."""
        return {
            "state": lambda message, fds: {"state": self._as_json()},
            "watch": lambda message, fds: {"state": self._as_json()},
            "attach": self._on_attach,
            "resize": lambda message, fds: self._streams.resize(message["height"], message["width"]),
            "exec_resize": lambda message, fds: self._executions.resize(
                message["exec"], message["height"], message["width"]
            ),
            "signal": self._on_signal,
            "stop": lambda message, fds: self._stop(message["signal"], message["timeout"]),
            "pause": lambda message, fds: self._pause(),
            "unpause": self._on_unpause,
            "update": self._on_update,
        }

    def _on_attach(self, message: dict[str, Any], fds: list[int]) -> None:
        options = codec.from_json(AttachOptions, message["options"])
        keys = detach.parse(options.detach_keys)
        self._streams.attach(
            socket.socket(fileno=fds.pop()),
            stdin=options.stdin,
            streams=options.streams,
            detach=keys,
            replay=self._written_so_far() if options.logs else None,
            unwritten=self._log.unwritten if options.logs else list,
            live=options.stream,
            head=bytes.fromhex(message["head"]),
        )

    def _written_so_far(self) -> Iterator[LogRecord]:
        """Up to what is surely on the disk at the moment when the end is reached."""
        path = Path(self._config.log_path)
        return logs.read(path, follow=True, stop=lambda: True, limit=self._log.written)

    def _dropping(self) -> None:
        """Told at most once a second: it comes with every line that a slow disk does not take."""
        if self._drops_told is None or not self._drops_told.pending:
            self._drops_told = self._loop.after(1.0, lambda: self._tell("dropped", bytes=self._log.dropped))

    def _on_exec(self, message: dict[str, Any], fds: list[int], lines: Lines) -> None:
        """Answers when the program runs, or why it does not."""
        client = socket.socket(fileno=fds.pop()) if fds else None
        if self._state.status != "running":
            if client is not None:
                client.close()
            raise Conflict(f"container {self._config.id} is {self._state.status}")
        process = codec.from_json(ProcessConfig, message["process"])
        options = codec.from_json(AttachOptions, message["options"])
        self._executions.start(
            message["exec"],
            self._host(),
            process,
            client,
            bytes.fromhex(message["head"]),
            streams=options.streams,
            detach=detach.parse(options.detach_keys),
            framed=options.framed,
            done=lambda result: lines.send({"pid": result} if isinstance(result, int) else result.to_wire()),
        )

    def _on_signal(self, message: dict[str, Any], fds: list[int]) -> None:
        number = int(message["signal"])
        if number in (signal.SIGKILL, self._config.stop_signal):
            self._stopped = True  # somebody wants it to end: the policy has nothing to say
        self._signal(number)
        if number == signal.SIGINT and not self._streams.quiet:
            self._interrupt()
        self._tell("signalled", signal=number)
        if number == signal.SIGKILL:
            self._let_die()

    def _on_unpause(self, message: dict[str, Any], fds: list[int]) -> None:
        if self._state.status != "paused":
            raise Conflict(f"Container {self._config.id} is not paused")
        self._thaw()

    def _on_update(self, message: dict[str, Any], fds: list[int]) -> None:
        if "resources" in message:
            resources = codec.from_json(Resources, message["resources"])
            if self._state.status in ("running", "paused"):
                self._cgroup().apply(resources)
            self._resources = resources
        if "restart" in message:
            self._config = replace(self._config, restart=codec.from_json(RestartPolicy, message["restart"]))

    def _exec_exited(self, exec_id: str, exit_code: int) -> None:
        self._tell("exec_exited", exec=exec_id, exit_code=exit_code)

    def _host(self) -> Host:
        return Host(document=self._document, pid=self._state.pid, pidfd=self._pidfd)


def _takes_default(pid: int, number: int) -> bool:
    """Whether the process neither handles, ignores nor blocks a signal."""
    masks = {}
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("SigBlk", "SigIgn", "SigCgt"):
                    masks[name] = int(value, 16)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not any(mask >> (number - 1) & 1 for mask in masks.values())


def _start_time(pid: int) -> int:
    """Field 22 of proc_pid_stat(5); 0 when it has ended already."""
    try:
        return int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except FileNotFoundError:
        return 0


def _read(path: str) -> bytes:
    """All of a file, without the objects that `open` makes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, 1 << 16)]
        while parts[-1]:
            parts.append(os.read(fd, 1 << 16))
        return b"".join(parts)
    finally:
        os.close(fd)
