"""`port`, `top`, `diff`: what a container has published, runs and has changed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from hawse.cli import lists
from hawse.cli.context import Context
from hawse.cli.hosts import Output, ask
from hawse.cli.verb import Verb
from hawse.fleet.client import AgentClient, container_path
from hawse.format.containers import joined
from hawse.format.listing import natural
from hawse.format.table import aligned
from hawse_agent.errors import NotFound

_KINDS = "CAD"


def _look(context: Context, question: Callable[[AgentClient], Any], shown: Callable[[Any], str]) -> int:
    """Asks at each place, and shows each answer as text, or all of them as JSON."""
    places = context.places()
    found, code = ask(context, places, question)
    if context.options.json:
        lists.show_json(context, found)
        return code
    output = Output(context, [place.name for place in places])
    for name, answer in found.items():
        with output.of(name) as writer:
            writer.write(1, shown(answer).encode())
    return code


def _port_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("port", nargs="?", default="", metavar="PORT[/PROTOCOL]")


def _port(context: Context, options: argparse.Namespace) -> int:
    wanted = options.port if "/" in options.port or not options.port else f"{options.port}/tcp"

    def question(agent: AgentClient) -> Any:
        ports = agent.container(options.container)["NetworkSettings"]["Ports"]
        published = {port: to for port, to in ports.items() if to}
        if wanted and wanted not in published:
            raise NotFound(f"no public port '{options.port}' published for {options.container}")
        return {wanted: published[wanted]} if wanted else published

    def shown(ports: dict[str, list[dict[str, str]]]) -> str:
        lines = [
            f"{'' if wanted else f'{port} -> '}{joined(to['HostIp'], to['HostPort'])}"
            for port, published in ports.items()
            for to in published
        ]
        return "".join(f"{line}\n" for line in (lines if wanted else sorted(lines, key=natural)))

    return _look(context, question, shown)


def _top_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("ps", nargs=argparse.REMAINDER, metavar="PS_OPTION", help="of ps itself: -o pid,cmd")


def _top(context: Context, options: argparse.Namespace) -> int:
    query = {"ps_args": " ".join(options.ps)} if options.ps else None

    def shown(answer: dict[str, Any]) -> str:
        lines = [answer["Titles"], *(answer["Processes"] or ())]
        return aligned("".join("\t".join(line) + "\n" for line in lines), least=20)

    return _look(
        context,
        lambda agent: agent.json("GET", f"{container_path(options.container)}/top", query=query),
        shown,
    )


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER")


def _diff(context: Context, options: argparse.Namespace) -> int:
    return _look(
        context,
        lambda agent: agent.json("GET", f"{container_path(options.container)}/changes", timeout=600.0) or [],
        lambda changes: "".join(f"{_KINDS[change['Kind']]} {change['Path']}\n" for change in changes),
    )


VERBS = (
    Verb(
        name="port",
        help="show published ports of a container",
        arguments=_port_arguments,
        run=_port,
    ),
    Verb(name="top", help="show the processes of a container", arguments=_top_arguments, run=_top),
    Verb(name="diff", help="show which files a container has changed", arguments=_diff_arguments, run=_diff),
)
