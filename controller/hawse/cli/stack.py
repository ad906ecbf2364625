"""`up` and `down`: one stack on hosts, without a playbook."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hawse.cli.context import Context
from hawse.cli.play import keep, make_runner, show_plans, show_run
from hawse.cli.verb import Verb
from hawse_agent.errors import InputError
from hawse_agent.spec.host import Item, StackSpec

if TYPE_CHECKING:
    from hawse.inventory import Host
    from hawse.stack import Build

Loaded = tuple[StackSpec, "tuple[Build, ...]"]


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="hosts; else -H, else all")
    parser.add_argument("--name", default="", help="the stack's name, else as in the file")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME")
    parser.add_argument("--check", "-C", action="store_true", help="only say what would change")


def _up_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("template", type=Path, metavar="TEMPLATE", help="a Compose file, or its template")
    _common(parser)


def _down_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("template", metavar="TEMPLATE|NAME", help="the file, or the stack's name")
    _common(parser)
    parser.add_argument("--volumes", action="store_true", help="remove the stack's named volumes as well")


def _up(context: Context, options: argparse.Namespace) -> int:
    def wanted(host: Host) -> Loaded:
        builds: list[Build] = []
        spec = _load(context, options, host, options.template, builds.append)
        return spec, tuple(builds)

    return _apply(context, options, wanted)


def _down(context: Context, options: argparse.Namespace) -> int:
    path = Path(options.template)

    def absent(host: Host) -> Loaded:
        if path.is_file():
            name = _load(context, options, host, path).name
        elif "/" in options.template or path.suffix in (".yaml", ".yml", ".j2"):
            raise InputError(f"no such file: {path}")
        else:
            name = options.template
        return StackSpec(name=name, state="absent", remove_volumes=options.volumes), ()

    return _apply(context, options, absent)


def _load(
    context: Context,
    options: argparse.Namespace,
    host: Host,
    path: Path,
    builds: Callable[[Build], None] = lambda build: None,
) -> StackSpec:
    from hawse import stack

    return stack.load(
        path,
        name=options.name or None,
        variables=context.scope(host),
        environment=context.environment,
        profiles=options.profile,
        images=context.image_source,
        host_matches=lambda pattern: context.inventory.matches(pattern, host.name),
        builds=builds,
    )


def _apply(context: Context, options: argparse.Namespace, load: Callable[[Host], Loaded]) -> int:
    from hawse.runner.builder import check_context
    from hawse.runner.fleet import StackSteps, Work

    hosts = context.hosts(options.pattern)
    steps = {}
    for host in hosts:  # all of them, before the first connection
        stack, builds = load(host)
        for build in builds:
            check_context(build)
        steps[host.name] = StackSteps(Item(id="stack", name=f"stack {stack.name}", stack=stack), builds)
    runner = make_runner(context, check=options.check, diff=False)
    work = Work(hosts=tuple(hosts), program=lambda host: steps[host.name])
    finished = keep(context, runner, lambda: runner.run([work]))
    if options.check:
        show_plans(context, finished, diff=False)
    else:
        show_run(context, finished)
    return finished.exit_code


_ALSO = ("inventory", "limit", "hosts", "extra_vars", "forks", "verbose", "json")

VERBS = (
    Verb(name="up", help="bring one stack up on hosts", arguments=_up_arguments, run=_up, also=_ALSO),
    Verb(name="down", help="take one stack down", arguments=_down_arguments, run=_down, also=_ALSO),
)
