"""What every verb works with: project, inventory, fleet, console. Each made when it is first asked for.

    context.hosts(pattern)    hosts of the inventory, after --limit
    context.agent(host)       a client of the host's agent, installed or upgraded where needed
    context.places()          where container verbs go: -H, HAWSE_HOST, else this machine's agent
    context.at(place)         a client of the agent there; nothing is installed

Nothing here knows a verb.
"""

from __future__ import annotations

import getpass
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from hawse.cli import project as projects
from hawse.cli.project import Project
from hawse.cli.verb import Globals
from hawse_agent.errors import HostRefused, InputError, Unreachable

if TYPE_CHECKING:
    from hawse.docker.credentials import DockerConfig
    from hawse.fleet.client import AgentClient
    from hawse.fleet.connect import Fleet
    from hawse.images.store import ImageStore
    from hawse.inventory import Connection, Host, Inventory
    from hawse.report.console import Console
    from hawse.report.history import History
    from hawse.ssh.target import Target
    from hawse.template import Scope
    from hawse.variables import Variable
    from hawse_agent.distribution.registry import Client as RegistryClient
    from hawse_agent.spec.host import ImageSource

LOCAL = "localhost"


@dataclass(frozen=True, kw_only=True)
class Place:
    """An agent to ask: a host's, or this machine's own (`host` is None)."""

    name: str
    host: Host | None = None


class Context:
    """Use it in a `with` block: it closes the connections."""

    def __init__(
        self,
        options: Globals,
        *,
        command: str = "",
        environment: Mapping[str, str] | None = None,
        stdin: BinaryIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        """`command` is the command line as the history keeps it, without secrets."""
        self.options = options
        self.command = command
        self.environment: Mapping[str, str] = os.environ if environment is None else environment
        self.stdin = stdin or sys.stdin.buffer
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.downgrade = False
        """Whether an agent that is newer than ours is replaced; set before the fleet is used."""
        self._lock = threading.RLock()
        self._fleet: Fleet | None = None
        self._targets: dict[str, Connection] = {}
        self._clients: dict[str, AgentClient] = {}
        self._given_up: set[str] = set()

    # the project

    @cached_property
    def project(self) -> Project:
        return projects.find(self.options.project, Path.cwd())

    @cached_property
    def inventory(self) -> Inventory:
        """Of -i, else of hawse.toml; without either only this machine is known."""
        from hawse.inventory import load

        return load(self.options.inventory or self.project.inventory)

    @cached_property
    def extra_vars(self) -> Mapping[str, Variable]:
        from hawse.inventory import extra_variables

        return extra_variables(self.options.extra_vars)

    @property
    def forks(self) -> int:
        return self.options.forks or self.project.forks

    def hosts(self, pattern: str = "", *, default: str = "all") -> list[Host]:
        """The hosts of a pattern (else of -H, else `default`) that --limit leaves; at least one."""
        pattern = pattern or self.options.hosts or default
        found = self.inventory.match(pattern, self.options.limit)
        if not found:
            limit = f" with --limit {','.join(self.options.limit)}" if self.options.limit else ""
            named = self.options.inventory or self.project.inventory
            hint = "" if named else "name an inventory: -i, or `inventory` in hawse.toml"
            raise InputError(f"no host matches {pattern!r}{limit}", hint=hint)
        return found

    # the way to a host

    def scope(self, host: Host, playbook_dir: Path | None = None) -> Scope:
        """What is known about a host without asking it: inventory and -e, no facts."""
        from hawse.playbook.run import HostVars, Run
        from hawse.template import Scope
        from hawse.variables import data

        run = Run(inventory=self.inventory, project=self.project.directory, extra=self.extra_vars)
        hostvars = HostVars(run, playbook_dir or self.project.directory, own=host.name, gather=False)
        variables = self.inventory.variables(host, playbook_dir)
        magic = {**self.inventory.magic(host), "hostvars": data(hostvars)}
        return Scope({**variables, **self.extra_vars, **magic})

    def connection(self, host: Host) -> Connection:
        """How the host is reached, and as whom its tasks run."""
        from hawse.inventory import connection

        with self._lock:
            if host.name not in self._targets:
                self._targets[host.name] = connection(
                    host.name, self.scope(host), defaults=self._defaults(host.name)
                )
            return self._targets[host.name]

    def target(self, host: Host) -> Target:
        return self.connection(host).target

    def _defaults(self, name: str) -> Target:
        from hawse.ssh.target import Target

        options, project = self.options, self.project
        target = Target(
            name=name,
            user=options.user or project.remote_user,
            private_key=options.private_key or project.private_key,
            password=self._login_password,
            become_password=self._become_password,
            host_key_policy=project.host_key_checking or "strict",
            known_hosts=project.known_hosts,
        )
        timeout = options.timeout or project.timeout
        if timeout is None:
            return target
        return replace(target, timeouts=replace(target.timeouts, connect=timeout))

    @cached_property
    def _login_password(self) -> str:
        return self.ask("SSH password: ", piped=True) if self.options.ask_pass else ""

    @cached_property
    def _become_password(self) -> str:
        if not self.options.ask_become_pass:
            return ""
        also = " (Enter: the SSH password)" if self.options.ask_pass else ""
        return self.ask(f"sudo password{also}: ", piped=True) or self._login_password

    # the fleet

    @property
    def fleet(self) -> Fleet:
        """Connections of this command, closed when the context is left."""
        from hawse.fleet.connect import Fleet

        with self._lock:
            if self._fleet is None:
                self._fleet = Fleet(
                    run=self.run_id,
                    user=self.user,
                    ask_passphrase=lambda path: self.ask(f"Passphrase of {path}: "),
                    warn=self.warn,
                    downgrade=self.downgrade,
                )
            return self._fleet

    def agent(self, host: Host, *, say: Callable[[str], None] = lambda text: None) -> AgentClient:
        """A client of the host's agent, which is installed or upgraded first where needed."""
        self._check_wanted(host.name)
        return self._keep(host.name, self.fleet.agent(self.target(host), say=say))

    def places(self) -> list[Place]:
        """Whose agents a container verb asks."""
        pattern = self.options.hosts or self.environment.get("HAWSE_HOST", "")
        if not pattern:
            return [Place(name=LOCAL)]
        return [Place(name=host.name, host=host) for host in self.hosts(pattern)]

    def at(self, place: Place) -> AgentClient:
        """A client of the agent there as it is: nothing is installed or upgraded."""
        self._check_wanted(place.name)
        if place.host is None:
            return self._keep(place.name, self._own_agent())
        target = self.target(place.host)
        return self._keep(place.name, self._existing(target))

    def cut(self, name: str, *, again: bool = False) -> None:
        """Ends a host's connection under whoever uses it; nobody gets another, unless it may be made
        `again`."""
        if not again:
            self._given_up.add(name)
        client = self._clients.pop(name, None)
        if client is not None:
            client.close()
        if self._fleet is not None and name in self._targets:
            self._fleet.cut(self._targets[name].target)

    def gave_up(self, name: str) -> bool:
        """Whether its connection was cut for good."""
        return name in self._given_up

    def _check_wanted(self, name: str) -> None:
        if self.gave_up(name):
            raise Unreachable(f"{name}: the connection was given up", stage="agent")

    def holds(self, client: AgentClient) -> bool:
        """Whether nobody has cut its connection."""
        return client in self._clients.values()

    def _keep(self, name: str, client: AgentClient) -> AgentClient:
        self._clients[name] = client
        return client

    def listening_agent(self) -> AgentClient | None:
        """A client of this machine's agent, if it runs and lets us in; nothing is started for it."""
        from hawse_agent.locations import SOCKET
        from hawse_agent.paths import SOCKET_ENV

        try:
            return self._listening(Path(self.environment.get(SOCKET_ENV, "") or SOCKET))
        except Unreachable:
            return None

    def _listening(self, path: Path) -> AgentClient:
        from hawse.fleet.client import Identity
        from hawse.fleet.connect import socket_agent

        return socket_agent(path, name=LOCAL, identity=Identity(run=self.run_id, user=self.user))

    def _own_agent(self) -> AgentClient:
        """By its socket; where nobody answers, by `dial`, which starts the daemon."""
        from hawse.ssh.target import Target
        from hawse_agent.locations import SOCKET
        from hawse_agent.paths import SOCKET_ENV

        named = self.environment.get(SOCKET_ENV, "")
        try:
            return self._listening(Path(named or SOCKET))
        except Unreachable:
            if named:
                raise
        return self._existing(Target(name=LOCAL, connection="local", become_password=self._become_password))

    def _existing(self, target: Target) -> AgentClient:
        from hawse.fleet.bootstrap import existing_agent
        from hawse.fleet.bundle import PROTOCOL

        connection = self.fleet.connection(target)
        client = existing_agent(
            connection, identity=self.fleet.identity(connection), timeout=target.timeouts.agent
        )
        if client is None:
            raise HostRefused(
                f"{target.name}: no agent is installed", hint=f"hawse host bootstrap {target.name}"
            )
        if client.preamble is not None and client.preamble.protocol != PROTOCOL:
            client.close()
            raise HostRefused(
                f"{target.name}: the agent (version {client.preamble.version}) speaks protocol"
                f" {client.preamble.protocol}, this hawse protocol {PROTOCOL}",
                hint=f"hawse host upgrade {target.name}",
            )
        return client

    # the person

    @cached_property
    def console(self) -> Console:
        return self.new_console()

    def new_console(self, *, diff: bool = False) -> Console:
        from hawse.report.console import Console

        return Console(
            self.stdout,
            diff=diff,
            verbose=self.options.verbose > 0,
            colour=not self.options.no_color,
        )

    def print(self, text: str = "") -> None:
        with self._lock:
            print(text, file=self.stdout)

    def warn(self, text: str) -> None:
        with self._lock:
            self.stdout.flush()
            print(text, file=self.stderr, flush=True)

    def ask(self, prompt: str, *, piped: bool = False) -> str:
        """A secret from the terminal; without one a line of stdin when `piped`, else ""."""
        with self._lock:
            try:
                os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
            except OSError:
                return self.stdin.readline().decode().rstrip("\r\n") if piped else ""
            try:
                return getpass.getpass(prompt)
            except EOFError:
                return ""

    def ask_line(self, prompt: str) -> str:
        """A line that is no secret."""
        with self._lock:
            self.stdout.write(prompt)
            self.stdout.flush()
            return self.stdin.readline().decode().strip()

    @cached_property
    def user(self) -> str:
        """Who runs this command, for audit log and history."""
        try:
            return getpass.getuser()
        except (KeyError, OSError):  # a uid without a name
            return str(os.getuid())

    @cached_property
    def run_id(self) -> str:
        from hawse.report.run import new_run_id

        return new_run_id()

    # what is kept

    def history(self) -> History:
        """The project's runs; use it in a `with` block."""
        from hawse.report.history import History, history_path

        directory = self.project.directory if self.project.file is not None else None
        return History(history_path(directory, self.environment))

    @cached_property
    def images(self) -> ImageStore:
        """Images that the controller holds to send."""
        from hawse.images.store import ImageStore

        return ImageStore()

    @cached_property
    def registries(self) -> DockerConfig:
        """What Docker's config.json here knows of registries."""
        from hawse.docker.credentials import DockerConfig

        return DockerConfig.of(self.environment)

    def registry_headers(self, registries: Iterable[str] | None = None) -> dict[str, str]:
        """Headers of a request that say who we are at these registries; at all, when None."""
        from hawse.docker.credentials import registry_config

        if registries is None:
            return registry_config(self.registries.all())
        found = map(self.registries.get, registries)
        return registry_config([known for known in found if known is not None])

    @cached_property
    def registry_client(self) -> RegistryClient:
        """Asks registries from here."""
        from hawse_agent.distribution.registry import Client
        from hawse_agent.distribution.settings import RegistrySettings

        return Client(self.project.registries or RegistrySettings(), self.environment)

    def image_source(self, reference: str) -> ImageSource | None:
        """What a stack says about its image when the controller holds it."""
        image = self.images.find(reference)
        return image.source() if image is not None else None

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()
        if self._fleet is not None:
            self._fleet.close()
