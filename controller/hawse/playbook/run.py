"""One run of playbooks: what the command line set, and what the run has learned about each host so far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hawse.inventory import Inventory
from hawse.playbook.requests import UnknownResult
from hawse.template import NotYet, Promise, Scope, View
from hawse.variables import Variable, data
from hawse_agent.errors import InputError
from hawse_agent.spec.host import ImageSource


@dataclass(kw_only=True)
class HostMemory:
    """Facts, and what tasks registered or set. Written by the host's own thread; others only read."""

    facts: Mapping[str, Variable] = field(default_factory=dict)
    """Each fact by its name, `ansible_hostname`, and all of them without the prefix in `ansible_facts`."""
    asked: bool = False
    """Whether the host was asked for its facts."""
    silent: bool = False
    """It could not answer: in check mode, a host without an agent."""
    names: Mapping[str, Variable] = field(default_factory=dict)

    def gathered(self, facts: Mapping[str, Any]) -> None:
        short = {name.removeprefix("ansible_"): value for name, value in facts.items()}
        self.facts = {**{name: data(value) for name, value in facts.items()}, "ansible_facts": data(short)}
        self.asked, self.silent = True, not facts

    def learn(self, names: Mapping[str, Variable]) -> None:
        self.names = {**self.names, **names}


class Memory:
    """The memory of every host, kept over the plays of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, HostMemory] = {}

    def of(self, host: str) -> HostMemory:
        with self._lock:
            return self._hosts.setdefault(host, HostMemory())


@dataclass(frozen=True, kw_only=True)
class Run:
    inventory: Inventory
    project: Path
    """Where files are searched that are not beside the playbook: the directory of hawse.toml."""
    extra: Mapping[str, Variable] = field(default_factory=dict)
    """Variables of the command line; they win over all others."""
    become: bool = False
    """Whether tasks are run as root where neither playbook nor inventory says (`-b`)."""
    check: bool = False
    diff: bool = False
    limit: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("all",)
    skip_tags: tuple[str, ...] = ()
    verbosity: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    """What `${VAR}` in stacks refers to."""
    images: Callable[[str], ImageSource | None] = lambda reference: None
    """The images that the controller holds."""
    memory: Memory = field(default_factory=Memory)


class FactsNeeded(NotYet):
    """A template uses a fact of a host whose facts are not gathered yet."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


class HostVars(Mapping[str, View]):
    """`hostvars`: the variables of any host of the inventory, as far as the run knows them."""

    def __init__(self, run: Run, playbook_dir: Path, *, own: str, gather: bool) -> None:
        self._run = run
        self._playbook_dir = playbook_dir
        self._own = own
        self._gather = gather

    def __getitem__(self, name: str) -> View:
        try:
            host = self._run.inventory.host(name)
        except InputError:
            raise KeyError(name) from None
        memory = self._run.memory.of(name)
        names = memory.names
        if name != self._own:  # what another host's thread still waits for is not there
            names = {key: found for key, found in names.items() if not isinstance(found.value, Promise)}
        variables = {
            **self._run.inventory.variables(host, self._playbook_dir),
            **memory.facts,
            **names,
            **self._run.extra,
            **self._run.inventory.magic(host),
            "hostvars": data(self),
        }
        return View(Scope(variables, missing=self.fact_hook(name)))

    def __iter__(self) -> Iterator[str]:
        return (host.name for host in self._run.inventory.hosts)

    def __len__(self) -> int:
        return len(self._run.inventory.hosts)

    def fact_hook(self, host: str) -> Callable[[str], None]:
        """Asks for the facts of a host when an undefined name may be one."""

        def missing(name: str) -> None:
            memory = self._run.memory.of(host)
            if not self._gather or not name.startswith("ansible_"):
                return
            if not memory.asked:
                raise FactsNeeded(host)
            if memory.silent and self._run.check:
                raise UnknownResult(name)

        return missing
