"""`stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rename`, `rm`: what happens to containers.

Each takes any number of names; one that is refused is said, and the others go on.
"""

from __future__ import annotations

import argparse
import json

from hawse.cli.context import Context
from hawse.cli.hosts import every
from hawse.cli.verb import Verb
from hawse.fleet.client import LONG, AgentClient, Query, container_path
from hawse_agent.errors import NotFound

_AT_ONCE = 4
"""Containers of one host that are waited for side by side; sshd allows ten channels for a connection."""


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def _post(agent: AgentClient, name: str, verb: str, query: Query | None = None) -> str:
    agent.request("POST", f"{container_path(name)}/{verb}", query=query, timeout=LONG)
    return name


def _stop_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--signal", default="", metavar="SIGNAL", help="instead of its own stop signal")
    parser.add_argument(
        "-t", "--timeout", "--time", type=int, metavar="S", help="seconds until it is killed; -1: never"
    )
    _names(parser)


def _stopper(verb: str) -> Verb:
    def run(context: Context, options: argparse.Namespace) -> int:
        query: dict[str, str | int | bool] = {}
        if options.timeout is not None:
            query["t"] = options.timeout
        if options.signal:
            query["signal"] = options.signal
        return every(
            context, options.containers, lambda agent, name: _post(agent, name, verb, query), at_once=_AT_ONCE
        )

    return Verb(name=verb, help=f"{verb} containers", arguments=_stop_arguments, run=run)


def _kill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--signal", default="", metavar="SIGNAL", help="by name or number (KILL)")
    _names(parser)


def _kill(context: Context, options: argparse.Namespace) -> int:
    query = {"signal": options.signal} if options.signal else {}
    return every(
        context, options.containers, lambda agent, name: _post(agent, name, "kill", query), at_once=_AT_ONCE
    )


def _plain(verb: str, text: str) -> Verb:
    def run(context: Context, options: argparse.Namespace) -> int:
        return every(context, options.containers, lambda agent, name: _post(agent, name, verb))

    return Verb(name=verb, help=text, arguments=_names, run=run)


def _wait(context: Context, options: argparse.Namespace) -> int:
    def wait(agent: AgentClient, name: str) -> str | None:
        with agent.open("POST", f"{container_path(name)}/wait") as response:
            response.timeout = None  # as long as it takes
            code = response.json()["StatusCode"]
        if context.options.json:
            context.print(json.dumps({"host": agent.name, "container": name, "exit_code": code}))
            return None
        return str(code)

    return every(context, options.containers, wait)


def _rename_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("name", metavar="NEW_NAME")


def _rename(context: Context, options: argparse.Namespace) -> int:
    def rename(agent: AgentClient, name: str) -> None:
        _post(agent, name, "rename", {"name": options.name})

    return every(context, [options.container], rename)


def _rm_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="kill it first when it runs")
    parser.add_argument("-l", "--link", action="store_true", help="remove a link")
    parser.add_argument("-v", "--volumes", action="store_true", help="its anonymous volumes, too")
    _names(parser)


def _rm(context: Context, options: argparse.Namespace) -> int:
    query = {"force": options.force, "link": options.link, "v": options.volumes}

    def remove(agent: AgentClient, name: str) -> str | None:
        try:
            agent.request("DELETE", container_path(name), query=query, timeout=LONG)
        except NotFound as error:
            if not options.force:
                raise
            context.warn(f"hawse: {error.message}")
            return None
        return name

    return every(context, options.containers, remove, at_once=_AT_ONCE)


VERBS = (
    _stopper("stop"),
    _stopper("restart"),
    Verb(name="kill", help="kill containers, or send them a signal", arguments=_kill_arguments, run=_kill),
    _plain("pause", "freeze all processes of containers"),
    _plain("unpause", "let paused containers go on"),
    Verb(name="wait", help="wait until containers end; print exit codes", arguments=_names, run=_wait),
    Verb(name="rename", help="give a container another name", arguments=_rename_arguments, run=_rename),
    Verb(name="rm", help="remove containers", arguments=_rm_arguments, run=_rm),
)
