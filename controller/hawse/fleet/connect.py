"""Opens the way to a host, whichever it is; the one place that chooses between SSH and this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hawse.fleet import bootstrap
from hawse.fleet.bundle import Bundle, bundle
from hawse.fleet.client import AgentClient, Identity
from hawse.fleet.stream import SocketStream
from hawse.ssh.connection import Connection
from hawse.ssh.local import LocalConnection
from hawse.ssh.target import Target

if TYPE_CHECKING:
    from hawse.ssh.client import SshClient


class Fleet:
    """Connections to hosts, one for each, opened when first asked for and shared until `close`.

    `ask_passphrase` is called for a protected key, once for each file; `warn` hears of new and unchecked host
    keys.
    """

    def __init__(
        self,
        *,
        run: str = "",
        user: str = "",
        ask_passphrase: Callable[[Path], str] | None = None,
        warn: Callable[[str], None] = lambda text: None,
        downgrade: bool = False,
    ) -> None:
        self._run = run
        self._user = user
        self._ask = ask_passphrase
        self._warn = warn
        self._downgrade = downgrade
        self._lock = threading.Lock()
        self._ssh: SshClient | None = None
        self._bundle: Bundle | None = None
        self._connections: dict[str, Connection] = {}

    def connection(self, target: Target) -> Connection:
        """The host's connection. Different hosts may be asked for at once, one host by one thread."""
        known = self._connections.get(target.name)
        if known is not None:
            return known
        opened = self._open(target)
        with self._lock:
            self._connections[target.name] = opened
        return opened

    def agent(self, target: Target, *, say: Callable[[str], None] = lambda text: None) -> AgentClient:
        """A client of the host's agent, installed or upgraded where needed; its connection outlives it."""
        connection = self.connection(target)
        return bootstrap.connect_agent(
            connection,
            self.bundle,
            python=target.python,
            identity=self.identity(connection),
            timeout=target.timeouts.agent,
            say=say,
            downgrade=self._downgrade,
        )

    def identity(self, connection: Connection) -> Identity:
        return Identity(run=self._run, user=self._user or connection.user, key=connection.key_fingerprint)

    def bundle(self) -> Bundle:
        """Our bundle, built at most once."""
        with self._lock:
            if self._bundle is None:
                self._bundle = bundle()
            return self._bundle

    def cut(self, target: Target) -> None:
        """Closes a host's connection under whoever uses it; the agent ends its current operation."""
        with self._lock:
            connection = self._connections.pop(target.name, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        with self._lock:
            connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            connection.close()
        if self._ssh is not None:
            self._ssh.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, target: Target) -> Connection:
        if target.connection == "local":
            return LocalConnection(target)
        return self._client().connect(target)

    def _client(self) -> SshClient:
        # Imported when it is needed: paramiko takes 0.15 s, which local commands need not wait for.
        from hawse.ssh.auth import KeyRing
        from hawse.ssh.client import SshClient

        with self._lock:
            if self._ssh is None:
                self._ssh = SshClient(keys=KeyRing(self._ask), warn=self._warn)
            return self._ssh


def socket_agent(path: Path, *, name: str = "localhost", identity: Identity | None = None) -> AgentClient:
    """A client of an agent of this machine by its socket; nothing is installed or started."""
    return AgentClient(lambda: SocketStream(path), name=name, identity=identity, stream=SocketStream(path))
