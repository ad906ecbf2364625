"""How plans, runs and reports look on a terminal, and as plain lines where there is none.

Colour and redrawing only on a terminal; elsewhere one line per thing, never wrapped, so that `grep` finds it.
Everything that comes from a host is shown without its control characters. Secrets do not reach this module:
plans hold `(hidden)`, and what a `no_log` task said stays on its host.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hawse.report.history import RunSummary
from hawse.report.layers import Board, board
from hawse.report.model import COUNTS, ContainerReport, HostReport, HostRun, Result, RunReport
from hawse.report.text import age, printable, short_size
from hawse_agent.errors import HawseError
from hawse_agent.plan.differences import size_text
from hawse_agent.plan.operations import Operation, Plan

if TYPE_CHECKING:
    from hawse.report.building import BuildBoard

_SIGNS = {
    "create": ("+", "green"),
    "send": ("+", "green"),
    "pull": ("+", "green"),
    "start": (">", "green"),
    "update": ("~", "yellow"),
    "repair": ("~", "yellow"),
    "recreate": ("±", "yellow"),
    "run": ("*", "yellow"),
    "remove": ("-", "red"),
}
_COLOURS = {
    "ok": "green",
    "changed": "yellow",
    "failed": "bold red",
    "unreachable": "bold red",
    "ignored": "magenta",
    "skipped": "cyan",
    "cut": "magenta",
}


class Console:
    """Writes to `stream`; safe to use from the threads of several hosts at once."""

    def __init__(
        self,
        stream: IO[str] | None = None,
        *,
        diff: bool = False,
        verbose: bool = False,
        colour: bool = True,
    ) -> None:
        self.diff, self.verbose = diff, verbose
        stream = stream or sys.stdout
        terminal = stream.isatty()
        self._out = Terminal(
            file=stream,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
            force_terminal=terminal,
            width=None if terminal else 10_000,
            legacy_windows=False,
            no_color=None if colour else True,  # None: as the variable NO_COLOR says
        )
        self._lock = threading.Lock()

    def line(self, text: str, style: str = "") -> None:
        self._print(Text(printable(text), style=style))

    def _print(self, *what: Any) -> None:
        with self._lock:
            for one in what:
                self._out.print(one)

    # plans

    def plans(self, plans: Mapping[str, Plan | HawseError]) -> None:
        """Host by host what would change and why; hosts with the same plan are shown together."""
        groups: dict[tuple[Operation, ...], list[str]] = {}
        for host, plan in plans.items():
            if isinstance(plan, Plan):
                groups.setdefault(plan.operations, []).append(host)
        for operations, hosts in groups.items():
            self._print(Text(", ".join(hosts), style="bold"))
            if not operations:
                self._print(Text("  nothing to change", style="dim"))
            for operation in operations:
                self.operation(operation)
        for host, plan in plans.items():
            if not isinstance(plan, Plan):
                self.error(plan, host)
        self._print(Text(_plan_total(plans)))

    def operation(self, operation: Operation, indent: str = "  ") -> None:
        sign, colour = _SIGNS[operation.action]
        head = Text(f"{indent}{sign} {operation.action} {operation.kind} ", style=colour)
        head.append(printable(operation.name), style="bold")
        if operation.reason:
            head.append(f"  ({printable(operation.reason)})", style="dim")
        if operation.unknown:
            head.append("  (known only when it runs)", style="dim")
        lines = [head]
        for change in operation.changes:
            text = Text(f"{indent}    {printable(change.field)}  ")
            text.append(printable(change.old), style="red")
            text.append(" → ")
            text.append(printable(change.new), style="green")
            lines.append(text)
        if self.diff and operation.diff:
            lines += [_diff_line(line, f"{indent}    ") for line in operation.diff.splitlines()]
        self._print(*lines)

    # a run while it happens

    @contextmanager
    def progress(self, hosts: Sequence[str]) -> Iterator[Progress]:
        """Shows the hosts at work until the block is left."""
        progress = Progress(self, hosts)
        if not self._out.is_terminal:
            yield progress
            return
        with Live(
            get_renderable=progress.render,
            console=self._out,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield progress

    @contextmanager
    def layers(self, hosts: Sequence[str]) -> Iterator[Board | None]:
        """Shows images under way on a terminal; None elsewhere."""
        with board(self._out, hosts) as shown:
            yield shown

    @contextmanager
    def building(self) -> Iterator[BuildBoard]:
        """Shows a build on this terminal."""
        from hawse.report.building import board as build_board

        with build_board(self._out) as shown:
            yield shown

    # a run that is over

    def recap(self, run: RunReport) -> None:
        """One row per host, then what failed, then the total and how long it took."""
        table = _table("host", *COUNTS, "seconds", right=(*COUNTS, "seconds"))
        for host in run.hosts:
            counts = [_count(getattr(host, name), name) for name in COUNTS]
            table.add_row(Text(host.host, style=_COLOURS[host.outcome]), *counts, f"{host.seconds:.1f}")
        if len(run.hosts) > 1:
            table.add_section()
            totals = [_count(run.totals[name], name) for name in COUNTS]
            table.add_row(Text("total", style="bold"), *totals, f"{run.seconds:.1f}")
        self._print(table)
        for host in run.hosts:
            if host.error is not None:
                self._failure(host)
        self._print(Text(run_total(run)))

    def run(self, run: RunReport) -> None:
        """A run of the history in full."""
        self.line(f"run {run.id}  {_moment(run.started)}  {run.user}")
        self.line(f"hawse {run.command}")
        for host in run.hosts:
            for result in host.results:
                self._print(_result_line(host.host, result))
        self.recap(run)

    def runs(self, runs: Iterable[RunSummary]) -> None:
        table = _table("run", "started", "seconds", "hosts", "exit", "command", right=("seconds", "exit"))
        for run in runs:
            outcomes = ", ".join(f"{count} {name}" for name, count in sorted(run.outcomes.items()))
            colour = "green" if run.exit_code == 0 else "bold red"
            table.add_row(
                run.id,
                _moment(run.started),
                f"{run.seconds:.1f}",
                outcomes,
                Text(str(run.exit_code), style=colour),
                printable(run.command),
            )
        self._print(table if table.row_count else Text("no runs so far"))

    # how the fleet is

    def status(self, reports: Mapping[str, HostReport | HawseError]) -> None:
        """Containers of all hosts with limits as the kernel has them, then a row per host, then errors."""
        containers = _table(
            "host", "container", "status", "health", "ports", "memory", "cpus", "pids", "restarts", "image"
        )
        hosts = _table("host", "containers", "volumes", "images", "disk free", "agent", right=("disk free",))
        for host, report in reports.items():
            if isinstance(report, HawseError):
                hosts.add_row(Text(host, style="bold red"), _error_kind(report), "", "", "", "")
                continue
            for container in report.containers:
                containers.add_row(host, *_container_row(container, report.time))
            states = ", ".join(f"{count} {name}" for name, count in sorted(report.states.items()))
            hosts.add_row(
                host,
                states or "none",
                _volumes(report),
                f"{len(report.images)} ({short_size(sum(image.size for image in report.images))})",
                f"{short_size(report.disk_free)} of {short_size(report.disk_total)}",
                report.agent_version,
            )
        if containers.row_count:
            self._print(containers)
        self._print(hosts)
        if len(reports) > 1:
            self._print(Text(_fleet_total(reports)))
        for host, report in reports.items():
            if isinstance(report, HawseError):
                self.error(report, host)

    # errors

    def error(self, error: HawseError, host: str = "") -> None:
        self._message(error.message, error.hint, host)

    def _failure(self, host: HostRun) -> None:
        self._message(host.message, host.hint, host.host)

    def _message(self, message: str, hint: str, host: str) -> None:
        text = Text(f"{host}: " if host else "", style="bold red")
        text.append(printable(message.removeprefix(f"{host}: ")), style="red")
        lines = [text]
        lines += [Text(f"  {printable(line)}", style="dim") for line in hint.splitlines()]
        self._print(*lines)


class Progress:
    """Where each host is: a table that is redrawn on a terminal, and a line for each finished operation."""

    def __init__(self, console: Console, hosts: Sequence[str]) -> None:
        self._console = console
        self._started = time.monotonic()
        self._now: dict[str, str] = dict.fromkeys(hosts, "waiting")
        self._since: dict[str, float] = {}
        self._over: dict[str, HostRun] = {}
        self._width = max((len(host) for host in hosts), default=0)

    @property
    def verbose(self) -> bool:
        return self._console.verbose

    def note(self, host: str, text: str) -> None:
        """What the host is at: `connecting`, `sending image … 40 %`. Shown on a terminal only."""
        self._since.setdefault(host, time.monotonic())
        self._now[host] = printable(text)

    def event(self, host: str, event: Mapping[str, Any]) -> None:
        """One line of the agent's event stream."""
        kind, status = event.get("event"), event.get("status")
        if kind == "progress" or (kind == "operation" and status == "progress"):
            self.note(host, str(event.get("detail", "")))
        elif kind == "operation" and status == "start":
            operation = event["operation"]
            self.note(host, f"{operation['action']} {operation['kind']} {operation['name']}")
        elif kind == "operation":
            self._operation(host, event)
        elif kind == "item" and self._console.verbose and not event.get("no_log"):
            result = event.get("result") or {}
            for name in ("stdout", "stderr", "msg"):
                for line in str(result.get(name) or "").splitlines():
                    self._console.line(f"{host:{self._width}}  {name}: {line}", style="dim")

    def result(self, host: str, result: Result) -> None:
        """A task that the controller answered itself."""
        self._console._print(_result_line(f"{host:{self._width}}", result))

    def done(self, run: HostRun) -> None:
        self._now.pop(run.host, None)
        self._over[run.host] = run
        text = f"{run.host:{self._width}}  {run.outcome}"
        if run.outcome in ("failed", "unreachable"):
            self._console.line(f"{text}: {run.message}", style=_COLOURS[run.outcome])
        elif not run.changed:
            self._console.line(f"{text}  0 changed  {run.seconds:.1f} s", style=_COLOURS["ok"])
        else:
            self._console.line(
                f"{text}  {run.changed} changed  {run.seconds:.1f} s", style=_COLOURS["changed"]
            )

    def render(self) -> Group:
        """The table of hosts at work, for `rich.live`."""
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        working = [(host, what) for host, what in list(self._now.items()) if host in self._since]
        for host, what in working[:_LIVE_ROWS]:
            table.add_row(Text(host, style="bold"), Text(what), Text(f"{now - self._since[host]:.0f} s"))
        waiting = len(self._now) - len(working)
        parts = [f"{len(self._over)} done", f"{len(working)} at work", f"{waiting} waiting"]
        foot = Text("  ".join((*parts, f"{now - self._started:.0f} s")), style="dim")
        return Group(table, Spinner("line", foot))

    def _operation(self, host: str, event: Mapping[str, Any]) -> None:
        operation = event["operation"]
        failed = event.get("status") == "failed"
        outcome = "failed" if failed else "changed" if event.get("changed", True) else "ok"
        text = Text(f"{host:{self._width}}  {outcome:8}", style=_COLOURS[outcome])
        text.append(
            f" {operation['action']} {operation['kind']} {printable(str(operation['name']))}", style=""
        )
        if detail := _change_text(operation.get("changes") or ()):
            text.append(f"  {detail}", style="dim")
        text.append(f"  {event.get('seconds', 0.0):.2f} s", style="dim")
        if failed:
            text.append(f"  {printable(str((event.get('error') or {}).get('message', '')))}", style="red")
        self._console._print(text)


_LIVE_ROWS = 15
"""Hosts that are shown at once while they work; the foot line counts the rest."""


def run_total(run: RunReport) -> str:
    """The last line of a run: `3 hosts, 5 changed, 0 failed, 0 unreachable in 1.2 s (run …)`."""
    totals = run.totals
    count = len(run.hosts)
    said = ", ".join(f"{totals[name]} {name}" for name in ("changed", "failed", "unreachable"))
    return f"{count} host{'s' if count != 1 else ''}: {said}, {run.seconds:.1f} s (run {run.id})"


def _plan_total(plans: Mapping[str, Plan | HawseError]) -> str:
    """`3 to change on 1 of 2 hosts, 1 known only when it runs`."""
    made = [plan for plan in plans.values() if isinstance(plan, Plan)]
    known = [sum(not operation.unknown for operation in plan.operations) for plan in made]
    unknown = sum(operation.unknown for plan in made for operation in plan.operations)
    changing = sum(1 for count in known if count)
    text = f"{sum(known)} to change on {changing} of {len(plans)} host{'s' if len(plans) != 1 else ''}"
    if unknown:
        text += f", {unknown} known only when run"
    failed = len(plans) - len(made)
    return text + (f", {failed} without a plan" if failed else "")


def _fleet_total(reports: Mapping[str, HostReport | HawseError]) -> str:
    """`3 hosts (1 without an answer): 4 running, 1 exited; 1 container is not well`."""
    answers = [report for report in reports.values() if isinstance(report, HostReport)]
    missing = len(reports) - len(answers)
    states = sum((Counter(report.states) for report in answers), Counter[str]())
    unwell = sum(not container.well for report in answers for container in report.containers)
    text = f"{len(reports)} hosts" + (f" ({missing} without an answer)" if missing else "")
    text += ": " + (", ".join(f"{n} {name}" for name, n in sorted(states.items())) or "no containers")
    return text + (f"; {unwell} container{'s are' if unwell > 1 else ' is'} not well" if unwell else "")


def _diff_line(line: str, indent: str) -> Text:
    colour = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
    return Text(indent + printable(line), style=colour)


def _change_text(changes: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(printable(f"{c['field']} {c['old']} → {c['new']}") for c in changes)


def _result_line(host: str, result: Result) -> Text:
    word = "changed" if result.changed and result.status == "ok" else result.status
    text = Text(f"{host}  {word:8}", style=_COLOURS[word])
    described = result.operation.describe() if result.operation is not None else result.name
    text.append(f" {printable(described)}", style="")
    if result.seconds:
        text.append(f"  {result.seconds:.2f} s", style="dim")
    if result.message:
        text.append(f"  {printable(result.message)}", style="red" if result.status == "failed" else "")
    return text


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _count(number: int, name: str) -> Text:
    return Text(str(number), style=_COLOURS[name] if number else "dim")


def _container_row(container: ContainerReport, now: float) -> list[Text]:
    limits = container.limits
    running = container.status == "running"
    state = container.status
    if running and container.started_at:
        state += f" {age(now - container.started_at)}"
    elif container.status in ("exited", "restarting", "dead"):
        state += f" ({container.exit_code}{', out of memory' if container.oom_killed else ''})"
    health = container.health if container.health != "none" else ""
    memory = short_size(container.memory) if running else ""
    if limits.memory is not None:
        memory = f"{memory or '-'} / {size_text(limits.memory)}"
    pids = str(container.pids) if running else ""
    if limits.pids is not None:
        pids = f"{pids or '-'} / {limits.pids}"
    cells = [
        container.name,
        state,
        health,
        " ".join(container.ports),
        memory,
        f"{limits.cpus:g}" if limits.cpus is not None else "",
        pids,
        str(container.restarts),
        container.image,
    ]
    texts = [Text(printable(cell)) for cell in cells]
    texts[1].stylize("green" if container.well else "bold red")
    if health:
        texts[2].stylize({"healthy": "green", "unhealthy": "bold red"}.get(health, "yellow"))
    return texts


def _volumes(report: HostReport) -> str:
    sizes = [volume.size for volume in report.volumes if volume.size is not None]
    return f"{len(report.volumes)}" + (f" ({short_size(sum(sizes))})" if sizes else "")


def _error_kind(error: HawseError) -> Text:
    stage = getattr(error, "stage", "")
    return Text(f"unreachable ({stage})" if stage else "failed", style="bold red")


def _moment(stamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp))
