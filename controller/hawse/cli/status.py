"""`status` and `facts`: how the hosts of the inventory are, and what they are."""

from __future__ import annotations

import argparse
import fnmatch
import json
from typing import TYPE_CHECKING, Any

from hawse.cli.context import Context, Place
from hawse.cli.hosts import ask
from hawse.cli.verb import Verb
from hawse_agent.errors import HawseError, InternalError

if TYPE_CHECKING:
    from hawse.report.model import HostReport


def _pattern(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="hosts (all)")


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    _pattern(parser)
    parser.add_argument("--sizes", action="store_true", help="measure volumes as well: walks them")


def _status(context: Context, options: argparse.Namespace) -> int:
    reports, code = survey(context, _places(context, options.pattern), sizes=options.sizes)
    if context.options.json:
        from hawse.report.model import fleet_json

        context.print(json.dumps(fleet_json(reports), indent=2))
    else:
        context.console.status(reports)
    return code


def survey(
    context: Context, places: list[Place], *, sizes: bool = False
) -> tuple[dict[str, HostReport | HawseError], int]:
    """Every host's report, or why there is none; the worst exit code."""
    from hawse.fleet import pool
    from hawse.report.model import host_report

    def question(place: Place) -> HostReport:
        return host_report(place.name, context.at(place).report(sizes=sizes))

    outcomes = pool.run(places, question, forks=context.forks, cancel=lambda place: context.cut(place.name))
    reports: dict[str, HostReport | HawseError] = {}
    for outcome in outcomes.hosts:
        if outcome.value is not None:
            reports[outcome.host.name] = outcome.value
        else:
            reports[outcome.host.name] = outcome.error or InternalError(outcome.status)
    return reports, outcomes.exit_code


def _facts_arguments(parser: argparse.ArgumentParser) -> None:
    _pattern(parser)
    parser.add_argument("--filter", default="*", metavar="GLOB", help="only facts with such names")


def _facts(context: Context, options: argparse.Namespace) -> int:
    found, code = ask(context, _places(context, options.pattern), lambda agent: agent.facts())
    chosen = {host: _matching(facts, options.filter) for host, facts in found.items()}
    if context.options.json:
        context.print(json.dumps(chosen, indent=2))
        return code
    for host, facts in chosen.items():
        context.print(f"{host}:")
        for name, value in sorted(facts.items()):
            context.print(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
    return code


def _matching(facts: dict[str, Any], glob: str) -> dict[str, Any]:
    return {
        name: value
        for name, value in facts.items()
        if fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(name.removeprefix("ansible_"), glob)
    }


def _places(context: Context, pattern: str) -> list[Place]:
    return [Place(name=host.name, host=host) for host in context.hosts(pattern)]


VERBS = (
    Verb(
        name="status",
        help="show hosts and containers: state, health, limits, ports, disk",
        arguments=_status_arguments,
        run=_status,
    ),
    Verb(
        name="facts",
        help="show what hosts are: system, addresses, disks",
        arguments=_facts_arguments,
        run=_facts,
    ),
)
