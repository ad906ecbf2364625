"""Plays over many hosts: batches, the failure budget, Ctrl-C, and the report of it all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hawse.fleet import pool
from hawse.images.store import ImageStore
from hawse.inventory import Connection, Host
from hawse.playbook import Apply, GatherFacts, Memory, Play, Program, Run, batches, over_budget, play_hosts
from hawse.playbook.requests import Outcome, Step, planned_result, planned_results
from hawse.report.console import Console, Progress
from hawse.report.model import HostRecorder, RunReport
from hawse.runner.builder import Builder, check_context
from hawse.runner.session import Planned, Reach, Session, Steps
from hawse.stack.build import Build
from hawse_agent.errors import HawseError
from hawse_agent.plan.operations import Operation, Plan, make_plan
from hawse_agent.spec.host import Item

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Work:
    """One program for each of these hosts, so many at a time."""

    hosts: tuple[Host, ...]
    program: Callable[[Host], Steps]
    spent: Callable[[int, int], bool] = lambda size, lost: False
    """Whether a batch of `size` hosts that has lost `lost` of them ends the run."""
    title: str = ""


@dataclass(kw_only=True)
class Finished:
    """`plans` and `planned` are of check mode."""

    report: RunReport
    plans: Mapping[str, Plan | HawseError] = field(default_factory=dict)
    planned: Mapping[str, tuple[Planned, ...]] = field(default_factory=dict)
    unplanned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stopped: str = ""
    """Why the run ended before all hosts were done, when it did."""
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        return INTERRUPTED if self.interrupted else self.report.exit_code


class Runner:
    """One run. `report` is right at any moment, also after an exception."""

    def __init__(
        self,
        *,
        run_id: str,
        command: str,
        user: str,
        reach: Reach,
        images: ImageStore,
        builder: Builder,
        registries: Callable[[Collection[str]], Mapping[str, str]],
        console: Console,
        forks: int,
        check: bool = False,
    ) -> None:
        self._id, self._command, self._user = run_id, command, user
        self._reach, self._images, self._console = reach, images, console
        self._builder, self._registries = builder, registries
        self._forks, self._check = forks, check
        self._started = time.time()
        self._sessions: dict[str, Session] = {}
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._peers: frozenset[str] = frozenset()
        self._stopped = ""
        self._interrupted = False

    def run(self, works: Sequence[Work]) -> Finished:
        """All of them, in order; hosts that are lost are left out of the later ones."""
        self._peers = frozenset(host.name for work in works for host in work.hosts)
        for work in works:
            hosts = [host for host in work.hosts if not self._lost(host)]
            if work.title and hosts and not self._check:
                self._console.line(work.title, style="bold")
            with self._console.progress([host.name for host in hosts]) as progress:
                self._work(work, hosts, progress)
            if self._stopped:
                break
        idle = dict.fromkeys(h.name for work in works for h in work.hosts if h.name not in self._sessions)
        if self._stopped and idle:
            self._stopped += f"; nothing was done on {', '.join(idle)}"
        return self.finished()

    def apply_kept(self, planned: Mapping[str, Sequence[Planned]], hosts: Sequence[Host]) -> Finished:
        """Plans of a file, each exactly as it is."""
        with self._console.progress([host.name for host in hosts]) as progress:

            def one(host: Host) -> None:
                session = self._session(host, progress)
                for request in planned[host.name]:
                    if not session.lost:
                        session.apply_kept(request)

            self._over(hosts, one, progress)
        return self.finished()

    def finished(self) -> Finished:
        hosts = list(self._sessions.values())
        runs = tuple(session.recorder.finish() for session in hosts)
        report = RunReport(
            id=self._id,
            command=self._command,
            started=self._started,
            seconds=round(time.time() - self._started, 3),
            check=self._check,
            user=self._user,
            hosts=runs,
        )
        plans: dict[str, Plan | HawseError] = {}
        for session in hosts:
            error = session.recorder.error
            plans[session.name] = error if error is not None else make_plan(session.operations)
        return Finished(
            report=report,
            plans=plans,
            planned={session.name: tuple(session.planned) for session in hosts},
            unplanned={session.name: tuple(session.unplanned) for session in hosts},
            stopped=self._stopped,
            interrupted=self._interrupted,
        )

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()

    def _work(self, work: Work, hosts: Sequence[Host], progress: Progress) -> None:
        self._builder.hosts = tuple(host.name for host in hosts)

        def one(host: Host) -> None:
            self._session(host, progress).run(work.program(host))

        self._over(hosts, one, progress)
        if not self._stopped:
            lost = sum(self._lost(host) for host in hosts)
            if hosts and work.spent(len(hosts), lost):
                self._stopped = f"{lost} of {len(hosts)} hosts of the batch are lost"

    def _over(self, hosts: Sequence[Host], one: Callable[[Host], None], progress: Progress) -> None:
        def cancel(host: Host) -> None:
            self._cancelled.add(host.name)
            self._reach.cut(host.name)

        def done(outcome: pool.Outcome[Host, None]) -> None:
            session = self._session(outcome.host, progress)
            if outcome.host.name in self._cancelled:
                session.recorder.overrule(_interrupted(session))
            elif outcome.error is not None:
                session.fail(outcome.error)
            session.recorder.stop()
            if not self._check:
                progress.done(session.recorder.finish())

        outcomes = pool.run(hosts, one, forks=self._forks, cancel=cancel, done=done)
        if outcomes.interrupted:
            self._stopped, self._interrupted = "interrupted", True
            for outcome in outcomes.hosts:
                if outcome.status == "interrupted":
                    session = self._session(outcome.host, progress)
                    session.recorder.overrule(_interrupted(session))

    def _session(self, host: Host, progress: Progress) -> Session:
        with self._lock:
            session = self._sessions.get(host.name)
            if session is None:
                session = Session(
                    name=host.name,
                    reach=self._reach,
                    run_id=self._id,
                    images=self._images,
                    builder=self._builder,
                    registries=self._registries,
                    progress=progress,
                    recorder=HostRecorder(host=host.name),
                    check=self._check,
                    peers=self._peers,
                    show_plan=self._show_plan,
                )
                self._sessions[host.name] = session
            session.progress = progress
            return session

    def _show_plan(self, host: str, operations: tuple[Operation, ...]) -> None:
        """With --diff the texts that will change, before they do."""
        if self._console.diff:
            for operation in operations:
                if operation.diff:
                    self._console.operation(operation, indent=f"{host}  ")

    def _lost(self, host: Host) -> bool:
        session = self._sessions.get(host.name)
        return session is not None and session.lost


def _interrupted(session: Session) -> HawseError:
    return HawseError(
        f"interrupted at: {session.doing or 'nothing yet'}",
        hint="the agent ends what it was at and starts nothing further; run again to go on",
    )


def play_works(plays: Sequence[Play], run: Run, connection: Callable[[Host], Connection]) -> list[Work]:
    """The batches of all plays. Raises InputError for what is wrong with patterns and `serial`."""
    works = []
    for play in plays:
        hosts = play_hosts(play, run)
        names = [host.name for host in hosts]
        for batch in batches(play, run, hosts):
            works.append(_play_work(play, run, connection, batch, names))
    return works


def _play_work(
    play: Play, run: Run, connection: Callable[[Host], Connection], batch: list[Host], names: list[str]
) -> Work:
    here = [host.name for host in batch]

    def program(host: Host) -> Steps:
        return Program(play, host, run, connection=connection(host), batch=here, hosts=names)

    return Work(
        hosts=tuple(batch),
        program=program,
        spent=lambda size, lost: over_budget(play, run, size=size, lost=lost),
        title=f"play: {play.name}" + (f" ({', '.join(here)})" if len(here) < len(names) else ""),
    )


def validate(plays: Sequence[Play], run: Run, connection: Callable[[Host], Connection]) -> None:
    """Go through every program as far as that is possible without any host. Raises the first InputError.

    What depends on facts or on results is looked at when they are there.
    """
    dry = replace(run, check=True, memory=Memory())
    for work in play_works(plays, dry, connection):
        work.spent(2, 1)  # is the budget a number?
        for host in work.hosts:
            steps = work.program(host)
            for step in steps:
                if isinstance(step, Outcome):
                    continue
                if isinstance(step, GatherFacts):
                    break
                if isinstance(step, Apply):
                    for build in (one for builds in step.builds.values() for one in builds):
                        check_context(build)
                    steps.feed(planned_results(step.items, _unknowns(step.items)))
                else:
                    steps.feed({step.id: planned_result(changed=True, unknown=True)})


def _unknowns(items: Sequence[Item]) -> list[Operation]:
    return [
        Operation(item=item.id, action="run", kind="task", name=item.name, unknown=True) for item in items
    ]


class StackSteps:
    """A program of one stack, for `up` and `down`."""

    def __init__(self, item: Item, builds: tuple[Build, ...] = ()) -> None:
        self._item, self._builds = item, builds

    def __iter__(self) -> Iterator[Step]:
        yield Apply(items=(self._item,), builds={self._item.id: self._builds} if self._builds else {})

    def feed(self, answer: Mapping[str, Any]) -> None:
        """There is no later step that could use it; the events have told all."""
