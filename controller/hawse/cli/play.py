"""`play` and `plan`: run a playbook on the hosts of the inventory, or say what that would change."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawse.cli.context import Context
from hawse.cli.verb import Verb
from hawse_agent.errors import HawseError, InputError, Unreachable
from hawse_agent.spec import codec

if TYPE_CHECKING:
    from hawse.fleet.client import AgentClient
    from hawse.playbook import Run
    from hawse.runner.fleet import Finished, Runner
    from hawse.runner.session import Reach


class ContextReach:
    """The fleet of a context, by names of hosts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._known: dict[str, AgentClient | None] = {}
        self._lost: dict[str, HawseError] = {}
        """Hosts that could not be reached: nobody tries again in the same run."""
        self._cut: set[str] = set()

    def agent(self, host: str, say: Callable[[str], None]) -> AgentClient:
        with self._trying(host):
            known = self._known.get(host)
            if known is None:
                known = self._context.agent(self._context.inventory.host(host), say=say)
                self._known[host] = known
            return known

    def again(self, host: str, say: Callable[[str], None]) -> AgentClient:
        with self._trying(host):
            if host in self._cut:
                raise Unreachable(f"{host}: the connection was given up", stage="agent")
            known = self._known.pop(host, None)
            if known is not None:
                known.close()
            inventory_host = self._context.inventory.host(host)
            self._context.fleet.cut(self._context.target(inventory_host))
            self._known[host] = client = self._context.agent(inventory_host, say=say)
            return client

    def existing(self, host: str) -> AgentClient | None:
        from hawse.fleet.bootstrap import existing_agent

        with self._trying(host):
            if host not in self._known:
                target = self._context.target(self._context.inventory.host(host))
                fleet = self._context.fleet
                connection = fleet.connection(target)
                self._known[host] = existing_agent(
                    connection, identity=fleet.identity(connection), timeout=target.timeouts.agent
                )
            return self._known[host]

    def login_user(self, host: str) -> str:
        target = self._context.target(self._context.inventory.host(host))
        return self._context.fleet.connection(target).user

    def cut(self, host: str) -> None:
        self._cut.add(host)
        target = self._context.target(self._context.inventory.host(host))
        self._context.fleet.cut(target)

    @contextmanager
    def _trying(self, host: str) -> Iterator[None]:
        with self._guard:
            lock = self._locks.setdefault(host, threading.Lock())
        with lock:
            if host in self._lost:
                raise self._lost[host]
            try:
                yield
            except HawseError as error:
                self._lost[host] = error
                raise


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-t", "--tags", action="append", default=[], metavar="TAGS", help="only such tasks")
    parser.add_argument("--skip-tags", action="append", default=[], metavar="TAGS", help="no such tasks")
    parser.add_argument("--diff", "-D", action="store_true", help="show how texts would change")


def _play_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("playbook", nargs="?", type=Path, metavar="PLAYBOOK")
    parser.add_argument("--check", "-C", action="store_true", help="only say what would change")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="apply what `hawse plan -o FILE` has kept")
    _common(parser)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("playbook", type=Path, metavar="PLAYBOOK")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="keep the plan, to apply exactly it"
    )
    _common(parser)


def _play(context: Context, options: argparse.Namespace) -> int:
    if (options.playbook is None) == (options.plan is None):
        raise InputError("expected a playbook, or --plan FILE", hint="hawse play playbooks/site.yml")
    if options.plan is not None:
        if options.check or options.tags or options.skip_tags:
            raise InputError(
                "--plan applies what was planned: --check, --tags and --skip-tags do not go with it"
            )
        return _play_kept(context, options)
    return _run(context, options, check=options.check, output=None)


def _plan(context: Context, options: argparse.Namespace) -> int:
    return _run(context, options, check=True, output=options.output)


def _run(context: Context, options: argparse.Namespace, *, check: bool, output: Path | None) -> int:
    from hawse import playbook
    from hawse.runner import kept
    from hawse.runner.fleet import play_works, validate

    plays = playbook.load(options.playbook)
    run = _settings(context, options, check=check)
    validate(plays, run, context.connection)
    works = play_works(plays, run, context.connection)
    if not works:
        raise InputError(
            "no host matches any play", hint="name an inventory: -i, or `inventory` in hawse.toml"
        )
    runner = make_runner(context, check=check, diff=options.diff)
    finished = keep(context, runner, lambda: runner.run(works))
    if check:
        show_plans(context, finished, diff=options.diff)
    else:
        show_run(context, finished)
    if output is not None:
        kept.write(output, finished)
        context.warn(f"the plan is in {output}; it holds whatever the play holds, secrets included")
    return finished.exit_code


def _play_kept(context: Context, options: argparse.Namespace) -> int:
    from hawse.runner import kept

    plan = kept.read(options.plan)
    hosts = [context.inventory.host(name) for name in plan.hosts]
    runner = make_runner(context, check=False, diff=options.diff)
    finished = keep(context, runner, lambda: runner.apply_kept(plan.hosts, hosts))
    show_run(context, finished)
    return finished.exit_code


def _settings(context: Context, options: argparse.Namespace, *, check: bool) -> Run:
    from hawse.playbook import Run

    def words(given: list[str]) -> tuple[str, ...]:
        return tuple(word.strip() for text in given for word in text.split(",") if word.strip())

    return Run(
        inventory=context.inventory,
        project=context.project.directory,
        extra=context.extra_vars,
        become=context.options.become,
        check=check,
        diff=options.diff,
        limit=tuple(context.options.limit),
        tags=words(options.tags) or ("all",),
        skip_tags=words(options.skip_tags),
        verbosity=context.options.verbose,
        environment=context.environment,
        images=context.image_source,
    )


def make_runner(context: Context, *, check: bool, diff: bool) -> Runner:
    import io

    from hawse.report.console import Console
    from hawse.runner.builder import Builder
    from hawse.runner.fleet import Runner

    reach: Reach = ContextReach(context)
    # With --json only the result is printed, once.
    console = Console(io.StringIO()) if context.options.json else context.new_console(diff=diff)
    return Runner(
        run_id=context.run_id,
        command=context.command,
        user=context.user,
        reach=reach,
        images=context.images,
        builder=Builder(
            images=context.images,
            local=context.listening_agent,
            remote=reach.agent,
            headers=context.registry_headers,
        ),
        registries=context.registry_headers,
        console=console,
        forks=context.forks,
        check=check,
    )


def keep(context: Context, runner: Runner, work: Callable[[], Finished]) -> Finished:
    """Run it; whatever happens, the history says how far it came."""
    try:
        return work()
    finally:
        runner.close()
        with context.history() as history:
            history.save(runner.finished().report)


def show_plans(context: Context, finished: Finished, *, diff: bool) -> None:
    if not context.options.json:
        context.new_console(diff=diff).plans(finished.plans)
        return
    hosts: dict[str, Any] = {
        host: {"error": plan.to_wire()}
        if isinstance(plan, HawseError)
        else {"operations": codec.to_json(plan.operations)}
        for host, plan in finished.plans.items()
    }
    context.print(json.dumps({"run": finished.report.id, "hosts": hosts}, indent=2))


def show_run(context: Context, finished: Finished) -> None:
    from hawse.report.model import run_json

    if context.options.json:
        context.print(json.dumps(run_json(finished.report), indent=2))
    else:
        context.console.recap(finished.report)
    if finished.stopped:
        context.warn(f"hawse: stopped: {finished.stopped}")


_ALSO = ("inventory", "limit", "extra_vars", "forks", "verbose", "json")

VERBS = (
    Verb(
        name="play",
        help="run a playbook: plan, apply and report, host by host",
        arguments=_play_arguments,
        run=_play,
        also=_ALSO,
    ),
    Verb(
        name="plan",
        help="say what a playbook would change; keep it in a file",
        arguments=_plan_arguments,
        run=_plan,
        also=_ALSO,
    ),
)
