"""`host bootstrap`, `upgrade`, `doctor`, `remove`: the agent on hosts. The hosts are always named."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hawse.cli.context import Context, Place
from hawse.cli.hosts import each
from hawse.cli.verb import Verb
from hawse.report.text import columns


def _pattern(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", help="hosts; localhost is this machine")


def _places(context: Context, options: argparse.Namespace) -> list[Place]:
    return [Place(name=host.name, host=host) for host in context.hosts(options.pattern)]


def _bootstrap(context: Context, options: argparse.Namespace) -> int:
    def work(place: Place) -> dict[str, Any]:
        assert place.host is not None
        agent = context.agent(place.host, say=lambda text: context.warn(f"{place.name}: {text}"))
        return agent.version()

    versions, code = each(context, _places(context, options), work)
    if context.options.json:
        context.print(json.dumps(versions, indent=2))
        return code
    for host, version in versions.items():
        bundle = f", bundle {version['bundle'][:12]}" if version.get("bundle") else ""
        context.print(f"{host}: hawse-agent {version['version']} (API {version['api_version']}{bundle})")
    return code


def _upgrade_arguments(parser: argparse.ArgumentParser) -> None:
    _pattern(parser)
    parser.add_argument(
        "--downgrade", action="store_true", help="replace an agent that is newer than ours, too"
    )


def _upgrade(context: Context, options: argparse.Namespace) -> int:
    context.downgrade = options.downgrade
    return _bootstrap(context, options)


def _doctor(context: Context, options: argparse.Namespace) -> int:
    from hawse.fleet import bootstrap

    def work(place: Place) -> dict[str, Any]:
        assert place.host is not None
        return bootstrap.doctor(context.fleet.connection(context.target(place.host)))

    found, code = each(context, _places(context, options), work)
    if context.options.json:
        context.print(json.dumps(found, indent=2))
    else:
        rows = [
            (host, check["status"], check["name"], check["detail"], check.get("hint", ""))
            for host, answer in found.items()
            for check in answer["checks"]
        ]
        context.print(columns(("host", "status", "check", "found", "what to do"), rows))
    return max(code, *(0 if answer["ok"] else 1 for answer in found.values()), 0)


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    _pattern(parser)
    parser.add_argument("--volumes", action="store_true", help="volumes and backups on the hosts, too")


def _remove(context: Context, options: argparse.Namespace) -> int:
    from hawse.fleet import bootstrap

    def work(place: Place) -> tuple[str, ...]:
        assert place.host is not None
        target = context.target(place.host)
        return bootstrap.remove(
            context.fleet.connection(target), volumes=options.volumes, python=target.python
        )

    left, code = each(context, _places(context, options), work)
    if context.options.json:
        context.print(json.dumps(left, indent=2))
        return code
    for host, paths in left.items():
        context.print(f"{host}: removed" + (f"; left: {', '.join(paths)}" if paths else ""))
    return code


VERBS = (
    Verb(
        name="host bootstrap",
        help="install the agent, or bring it up to date",
        arguments=_pattern,
        run=_bootstrap,
    ),
    Verb(
        name="host upgrade",
        help="bring the agent up to date; containers go on",
        arguments=_upgrade_arguments,
        run=_upgrade,
    ),
    Verb(name="host doctor", help="check what hosts have and lack", arguments=_pattern, run=_doctor),
    Verb(
        name="host remove",
        help="take containers and agent away, volumes only when asked",
        arguments=_remove_arguments,
        run=_remove,
    ),
)
