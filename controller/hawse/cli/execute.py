"""`exec`: a command in a running container, of this machine or of the hosts that -H names."""

from __future__ import annotations

import argparse
from contextlib import closing

from hawse.cli import terminal
from hawse.cli.context import Context, Place
from hawse.cli.hosts import HostOutput, Output, alone, each, worst
from hawse.cli.session import attend, check_terminal
from hawse.cli.verb import Verb
from hawse.docker.execute import EXEC, exec_body
from hawse.docker.flags import Given
from hawse.fleet.client import AgentClient, Json
from hawse_agent.errors import InputError, ProtocolError
from hawse_agent.spec import detach


def _exec(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    if not given.operands:
        raise InputError("exec: which CONTAINER?", hint="hawse exec [OPTIONS] CONTAINER COMMAND …")
    body = exec_body(given)
    detach.parse(given.options.get("detach-keys", ""))
    tty, stdin = body.get("Tty", False), body["AttachStdin"]
    detached = bool(given.options.get("detach"))
    places = context.places()
    if len(places) > 1 and not detached and (stdin or tty):
        raise InputError("-i and -t are for one host", hint=f"-H matches {len(places)}")
    check_terminal(context, tty=tty, stdin=stdin)
    if tty and not detached:
        body["ConsoleSize"] = terminal.size()
    output = Output(context, [place.name for place in places])

    def run(place: Place) -> int:
        agent = context.at(place)
        identity = agent.exec_create(given.operands[0], body)
        if detached:
            agent.exec_detached(identity)
            return 0
        with output.of(place.name) as writer:
            return _attended(context, agent, identity, body, writer)

    if len(places) == 1 and (stdin or tty):
        return alone(places[0], run)
    return worst(*each(context, places, run))


def _attended(context: Context, agent: AgentClient, identity: str, body: Json, writer: HostOutput) -> int:
    """Its exit code, or 0 when it was left running."""
    tty = body.get("Tty", False)
    with agent.second() as channel:
        streams = channel.exec_start(identity, tty=tty)
        with closing(streams[0]):
            left = attend(
                context,
                streams,
                writer,
                name=agent.name,
                tty=tty,
                stdin=body["AttachStdin"],
                detach_keys=body.get("DetachKeys", ""),
                resize=lambda height, width: agent.exec_resize(identity, height=height, width=width),
            )
    if left:
        return 0
    code = agent.exec_inspect(identity)["ExitCode"]
    if code is None:
        raise ProtocolError(f"{agent.name}: the command's output ended, the command did not")
    return int(code)


VERBS = (
    Verb(
        name="exec",
        help="run a command in a container",
        flags=EXEC,
        operands="CONTAINER COMMAND …",
        run=_exec,
    ),
)
