"""A container's streams joined with this terminal, from before its start or while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from hawse.cli.context import Context
from hawse.cli.hosts import HostOutput
from hawse.cli.session import Signals, attend, exit_code
from hawse.fleet.client import AgentClient


@dataclass(frozen=True, kw_only=True)
class Streams:
    """What of a container is joined; `tty` is whether it has a terminal."""

    tty: bool
    stdin: bool
    stdout: bool = True
    stderr: bool = True
    detach_keys: str = ""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """Between the container `identity` of `agent` and the terminal of `context`. `start` and `join` give its
    exit code, or 0 when it was left running."""

    context: Context
    agent: AgentClient
    identity: str
    streams: Streams
    writer: HostOutput
    signals: Signals

    def start(self, *, removes: bool) -> int:
        """Attached before it starts, so that no byte is lost. `removes`: it removes itself when it ends."""
        agent = self.agent

        def begin() -> None:
            self.signals.hold()
            agent.start_container(self.identity)

        with (
            agent.second() as channel,
            agent.waiting(self.identity, "removed" if removes else "next-exit") as ended,
        ):
            left = self._attend(channel, begin, self._resize)
            return 0 if left else exit_code(agent, self.identity, ended)

    def join(self) -> int:
        """One that runs."""
        agent = self.agent

        def resize(height: int, width: int) -> None:
            """Twice, since only a new size makes a program draw its screen again."""
            self._resize(height + 1, width + 1)
            self._resize(height, width)

        with agent.second() as channel, agent.waiting(self.identity, "not-running") as ended:
            left = self._attend(channel, lambda: None, resize)
            return 0 if left else exit_code(agent, self.identity, ended)

    def _attend(
        self, channel: AgentClient, begin: Callable[[], None], resize: Callable[[int, int], None]
    ) -> bool:
        """Whether it was left by the detach keys. `begin` is called once its streams are there."""
        wanted = self.streams
        opened = channel.attach_container(
            self.identity,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            detach_keys=wanted.detach_keys,
        )
        with closing(opened[0]):
            begin()
            self.signals.to(lambda name: self.agent.kill_container(self.identity, name))
            return attend(
                self.context,
                opened,
                self.writer,
                name=self.agent.name,
                tty=wanted.tty,
                stdin=wanted.stdin,
                detach_keys=wanted.detach_keys,
                resize=resize,
            )

    def _resize(self, height: int, width: int) -> None:
        self.agent.resize_container(self.identity, height=height, width=width)
