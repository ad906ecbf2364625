"""What makers do: a container's first process, and a further one in it. Runs in the maker alone."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hawse_agent.failpoints import reach
from hawse_agent.linux import namespace
from hawse_agent.runtime import create
from hawse_agent.runtime.create import Cloned
from hawse_agent.runtime.enter import enter
from hawse_agent.runtime.process import Stdio
from hawse_agent.spec import codec
from hawse_agent.spec.container import Resources
from hawse_agent.spec.runtime import ProcessConfig, RuntimeConfig
from hawse_agent.supervise.maker import MakerEnd


@dataclass(frozen=True, kw_only=True)
class Start:
    """Of the container whose runtime.json is `document`."""

    document: bytes
    stdio: Stdio
    netns: int | None = None
    """Of an earlier run."""
    resources: Resources | None = None
    """What has been changed since."""
    daemon: socket.socket | None = None
    """Hears of the new namespaces."""
    shim_socket: str = ""

    @property
    def descriptors(self) -> Sequence[int]:
        daemon = None if self.daemon is None else self.daemon.fileno()
        return _there(*_fds(self.stdio), self.netns, daemon)

    def __call__(self, end: MakerEnd) -> None:
        config = codec.loads(RuntimeConfig, self.document)
        if self.resources is not None:
            config = replace(config, resources=self.resources)
        config = replace(config, process=_with_files(config.process))
        reach("shim: clone")
        spawned = create.spawn(config, self.stdio, self.netns, lifeline=end.lifeline)
        try:
            reach("shim: tell the shim")
            end.spawned(spawned.pid, _there(spawned.pidfd, spawned.netns_fd))
            if self.daemon is not None:
                reach("shim: tell namespaces")
                self._tell(self.daemon, spawned)
            spawned.prepare()
            end.wait_for_go()
            reach("shim: go")
            spawned.go()
            _close(self.stdio)
            reach("shim: tell running")
            end.running(spawned.console, spawned.cgroup.oom_notifier())
        except BaseException:
            spawned.abort()
            raise

    def _tell(self, daemon: socket.socket, spawned: create.Spawned) -> None:
        event = {
            "event": "namespaces",
            "pid": spawned.pid,
            "socket": self.shim_socket,
            "netns": spawned.netns_fd is not None,
        }
        fds = _there(spawned.netns_fd, spawned.pidfd)
        socket.send_fds(daemon, [json.dumps(event).encode() + b"\n"], fds)


@dataclass(frozen=True, kw_only=True)
class Enter:
    """Of a container whose PID 1 is `pid` here."""

    document: bytes
    pid: int
    pidfd: int
    stdio: Stdio
    process: ProcessConfig | None = None
    argv: tuple[str, ...] = ()
    """Of a process that is else like the container's own, without a terminal and stdin."""

    @property
    def descriptors(self) -> Sequence[int]:
        return _there(*_fds(self.stdio), self.pidfd)

    def __call__(self, end: MakerEnd) -> None:
        config = codec.loads(RuntimeConfig, self.document)
        own = replace(config.process, argv=self.argv, tty=False, stdin=False)

        def cloned(child: Cloned) -> None:
            end.spawned(child.pid, [child.pidfd])
            end.wait_for_go()

        entered = enter(
            config,
            self.pid,
            self.pidfd,
            self.process or own,
            self.stdio,
            lifeline=end.lifeline,
            cloned=cloned,
        )
        _close(self.stdio)
        try:
            end.running(entered.console)
        except BaseException:
            namespace.pidfd_send_signal(entered.pidfd, signal.SIGKILL)
            raise


def _with_files(process: ProcessConfig) -> ProcessConfig:
    """With the variables whose values are in files: nothing that is written down has them."""
    read = tuple(f"{name}={Path(path).read_text()}" for name, path in process.env_files.items())
    return replace(process, env=(*process.env, *read))


def _fds(stdio: Stdio) -> tuple[int | None, ...]:
    return stdio.stdin, stdio.stdout, stdio.stderr


def _close(stdio: Stdio) -> None:
    """From now on its streams end when the process does."""
    for fd in set(_there(*_fds(stdio))):
        os.close(fd)


def _there(*fds: int | None) -> list[int]:
    return [fd for fd in fds if fd is not None]
