"""`report`: the runs of the past, one of them, or how the fleet is now."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from hawse.cli.context import Context
from hawse.cli.verb import Verb


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default="", metavar="RUN", help="a run's id, or `last`")
    parser.add_argument("--runs", action="store_true", help="list the runs of the past")
    parser.add_argument("-n", "--number", type=int, default=20, metavar="N", help="so many runs (20)")
    parser.add_argument("--sizes", action="store_true", help="measure volumes as well: walks them")


def _report(context: Context, options: argparse.Namespace) -> int:
    if options.run:
        return _one(context, options.run)
    if options.runs:
        return _list(context, options.number)
    return _fleet(context, sizes=options.sizes)


def _one(context: Context, reference: str) -> int:
    from hawse.report.model import run_json

    with context.history() as history:
        run = history.run(reference)
    if context.options.json:
        context.print(json.dumps(run_json(run), indent=2))
    else:
        context.console.run(run)
    return 0


def _list(context: Context, number: int) -> int:
    with context.history() as history:
        runs = history.runs(number)
    if context.options.json:
        context.print(json.dumps([asdict(run) for run in runs], indent=2))
    else:
        context.console.runs(runs)
    return 0


def _fleet(context: Context, *, sizes: bool) -> int:
    """The last run of each host beside what is there now."""
    from hawse.cli.context import Place
    from hawse.cli.status import survey
    from hawse.report.model import fleet_json, run_json

    with context.history() as history:
        runs = history.runs(1)
        last = history.run(runs[0].id) if runs else None
    places = [Place(name=host.name, host=host) for host in context.hosts()]
    reports, code = survey(context, places, sizes=sizes)
    if context.options.json:
        document = {"last_run": run_json(last) if last else None, "hosts": fleet_json(reports)}
        context.print(json.dumps(document, indent=2))
        return code
    if last is not None:
        context.console.line(f"last run: hawse {last.command}", style="bold")
        context.console.recap(last)
    context.console.status(reports)
    return code


VERBS = (
    Verb(
        name="report",
        help="the fleet as it is and its last run; a run of the past",
        arguments=_arguments,
        run=_report,
    ),
)
