"""`exec`: further processes in a running container. They belong to its shim; this remembers their ids."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers import Containers
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.names import new_id
from hawse_agent.engine.views import ExecView
from hawse_agent.errors import Conflict, HawseError, InputError, NotFound
from hawse_agent.paths import Paths
from hawse_agent.runtime.defaults import combine_capabilities
from hawse_agent.spec import codec, detach
from hawse_agent.spec.runtime import ProcessConfig, RuntimeConfig
from hawse_agent.supervise.client import AttachOptions

_OUTPUT = AttachOptions(stdout=True, stderr=True)
KEPT = 1000
"""Finished executions that `inspect` still finds; the oldest go first."""


@dataclass(kw_only=True)
class _Execution:
    id: str
    container: str
    process: ProcessConfig
    attach: AttachOptions
    user: str
    privileged: bool
    started: bool = False
    pid: int = 0
    exit_code: int | None = None


class Executions:
    def __init__(self, *, paths: Paths, containers: Containers, events: EventBus) -> None:
        self._paths = paths
        self._containers = containers
        self._announce = Announcer(events)
        self._lock = threading.Lock()
        self._known: dict[str, _Execution] = {}
        containers.when_exec_ends(self._ended)

    def create(
        self,
        reference: str,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str] | None = None,
        unset: tuple[str, ...] = (),
        user: str = "",
        cwd: str = "",
        tty: bool = False,
        attach: AttachOptions = _OUTPUT,
        privileged: bool = False,
        console: tuple[int, int] = (0, 0),
    ) -> str:
        """The new execution's id. Raises Conflict when the container does not run."""
        if not argv:
            raise InputError("No exec command specified")
        detach.parse(attach.detach_keys)
        record = self._containers.record(reference)
        self._containers.check_executable(record.id)
        config = codec.loads(RuntimeConfig, (self._paths.container(record.id) / "runtime.json").read_bytes())
        merged = dict(entry.partition("=")[::2] for entry in config.process.env)
        if tty:
            merged.setdefault("TERM", "xterm")
        for name in unset:
            merged.pop(name, None)
        merged.update(env or {})
        process = replace(
            config.process,
            argv=argv,
            env=tuple(f"{key}={value}" for key, value in merged.items()),
            cwd=cwd or config.process.cwd,
            user=user or config.process.user,
            tty=tty,
            stdin=attach.stdin,
            capabilities=combine_capabilities(("ALL",), (), True)
            if privileged
            else config.process.capabilities,
            console_height=console[0],
            console_width=console[1],
        )
        execution = _Execution(
            id=new_id(),
            container=record.id,
            process=process,
            attach=attach,
            user=user,
            privileged=privileged,
        )
        with self._lock:
            self._known[execution.id] = execution
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        self._publish("exec_create", execution)
        return execution.id

    def check_startable(self, exec_id: str) -> None:
        """Raises Conflict when it has run already, or its container does not run."""
        execution = self._get(exec_id)
        if execution.started:
            raise Conflict(f"Error: Exec command {exec_id} has already run")
        self._containers.check_executable(execution.container)

    def start(
        self, exec_id: str, client: socket.socket | None, head: bytes = b"", *, framed: bool | None = None
    ) -> None:
        """Run it; its streams go to `client`, or nowhere (detached), in Docker's frames or not (None: unless
        it has a terminal). Raises StartFailed, Conflict."""
        execution = self._get(exec_id)
        self._containers.check_executable(execution.container)
        with self._lock:
            if execution.started:
                raise Conflict(f"Error: Exec command {exec_id} has already run")
            execution.started = True
        process = execution.process
        self._publish("exec_start", execution)
        try:
            with self._containers.asking(execution.container) as shim:
                execution.pid = shim.exec_start(
                    exec_id, process, client, head, replace(execution.attach, framed=framed)
                )
        except HawseError as error:
            execution.exit_code = max(126, getattr(error, "container_exit", 126))
            raise

    def _ended(self, exec_id: str, exit_code: int) -> None:
        with self._lock:
            if (execution := self._known.get(exec_id)) is not None:
                execution.exit_code = exit_code

    def inspect(self, exec_id: str) -> ExecView:
        """Also right after its client has seen it end. Waits for no shim."""
        execution = self._get(exec_id)
        self._containers.catch_up()
        running = self._runs(execution)
        process = execution.process
        return ExecView(
            id=exec_id,
            container=execution.container,
            argv=process.argv,
            tty=process.tty,
            stdin=process.stdin,
            stdout=execution.attach.stdout,
            stderr=execution.attach.stderr,
            user=execution.user,
            privileged=execution.privileged,
            detach_keys=execution.attach.detach_keys,
            running=running,
            pid=execution.pid if running else 0,
            exit_code=execution.exit_code,
        )

    def running(self, container_id: str) -> list[str]:
        """Ids of the executions that run in a container."""
        with self._lock:
            known = [e for e in self._known.values() if e.container == container_id]
        if not any(self._runs(execution) for execution in known):
            return []
        self._containers.catch_up()
        return [execution.id for execution in known if self._runs(execution)]

    def _runs(self, execution: _Execution) -> bool:
        if not execution.started or execution.exit_code is not None:
            return False
        if self._containers.has_stopped(execution.container):  # it went with its container
            execution.exit_code = 137
            return False
        return True

    def resize(self, exec_id: str, height: int, width: int) -> None:
        execution = self._get(exec_id)
        with self._containers.asking(execution.container) as shim:
            shim.exec_resize(exec_id, height, width)

    def _get(self, exec_id: str) -> _Execution:
        with self._lock:
            try:
                return self._known[exec_id]
            except KeyError:
                raise NotFound(f"No such exec instance: {exec_id}") from None

    def _publish(self, action: str, execution: _Execution) -> None:
        record = self._containers.record(execution.container)
        program, *arguments = execution.process.argv
        command = f"{program} {' '.join(arguments)}"  # with the space that Docker leaves after a lone program
        self._announce.container(f"{action}: {command}", record, execID=execution.id)
