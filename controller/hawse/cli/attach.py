"""`start` and `attach`: to containers that exist, with this terminal or without."""

from __future__ import annotations

import argparse

from hawse.cli.attached import Attachment, Streams
from hawse.cli.context import Context, Place
from hawse.cli.hosts import Output, alone, each, worst
from hawse.cli.session import Signals, check_terminal
from hawse.cli.verb import Verb
from hawse.docker.createflags import DETACH_KEYS, INTERACTIVE, SIG_PROXY
from hawse.docker.flags import Flag, Given
from hawse_agent.errors import Conflict, HawseError, InputError
from hawse_agent.spec import detach

START = (
    Flag(name="attach", short="a", help="show its output, pass signals on, end with its exit code"),
    INTERACTIVE,
    DETACH_KEYS,
)
ATTACH = (Flag(name="no-stdin", help="leave our stdin alone"), SIG_PROXY, DETACH_KEYS)

_STILL = {
    "paused": "You cannot attach to a paused container, unpause it first",
    "restarting": "You cannot attach to a restarting container, wait until it is running",
}


def _start(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    names = given.operands
    if not names:
        raise InputError("start: which container?", hint="hawse start [OPTIONS] CONTAINER …")
    detach.parse(given.options.get("detach-keys", ""))
    places = context.places()
    if given.options.get("attach") or given.options.get("interactive"):
        if len(names) > 1:
            raise InputError("you cannot start and attach multiple containers at once")
        return alone(_one(places), lambda place: _start_attached(context, place, names[0], given))
    output = Output(context, [place.name for place in places])

    def start(place: Place) -> int:
        agent, code = context.at(place), 0
        with output.of(place.name) as writer:
            for name in names:
                try:
                    agent.start_container(name)
                except HawseError as error:
                    if len(names) == 1:
                        raise
                    writer.write(2, f"{error.message}\n".encode())
                    code = max(code, error.exit_code)
                else:
                    writer.write(1, f"{name}\n".encode())
        return code

    return worst(*each(context, places, start))


def _start_attached(context: Context, place: Place, name: str, given: Given) -> int:
    agent = context.at(place)
    container = agent.container(name)
    identity, tty = container["Id"], bool(container["Config"]["Tty"])
    stdin = bool(given.options.get("interactive") and container["Config"]["OpenStdin"])
    check_terminal(context, tty=tty, stdin=stdin)
    with Output(context, [place.name]).of(place.name) as writer, Signals(proxied=True) as signals:
        attachment = Attachment(
            context=context,
            agent=agent,
            identity=identity,
            streams=Streams(tty=tty, stdin=stdin, detach_keys=given.options.get("detach-keys", "")),
            writer=writer,
            signals=signals,
        )
        return attachment.start(removes=container["HostConfig"].get("AutoRemove", False))


def _attach(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    if len(given.operands) != 1:
        raise InputError("attach: which container?", hint="hawse attach [OPTIONS] CONTAINER")
    detach.parse(given.options.get("detach-keys", ""))
    return alone(_one(context.places()), lambda place: _join(context, place, given))


def _join(context: Context, place: Place, given: Given) -> int:
    agent = context.at(place)
    container = agent.container(given.operands[0])
    state, identity = container["State"], container["Id"]
    if state["Status"] in _STILL:
        raise Conflict(_STILL[state["Status"]])
    if not state["Running"]:
        raise Conflict("You cannot attach to a stopped container, start it first")
    tty = bool(container["Config"]["Tty"])
    stdin = bool(container["Config"]["OpenStdin"] and not given.options.get("no-stdin"))
    check_terminal(context, tty=tty, stdin=stdin)
    with (
        Output(context, [place.name]).of(place.name) as writer,
        Signals(proxied=given.options.get("sig-proxy", True)) as signals,
    ):
        attachment = Attachment(
            context=context,
            agent=agent,
            identity=identity,
            streams=Streams(tty=tty, stdin=stdin, detach_keys=given.options.get("detach-keys", "")),
            writer=writer,
            signals=signals,
        )
        return attachment.join()


def _one(places: list[Place]) -> Place:
    if len(places) > 1:
        raise InputError("a terminal is for one host", hint=f"-H matches {len(places)}")
    return places[0]


VERBS = (
    Verb(
        name="start",
        help="start containers",
        flags=START,
        operands="CONTAINER …",
        interspersed=True,
        run=_start,
    ),
    Verb(
        name="attach",
        help="join a running container with this terminal",
        flags=ATTACH,
        operands="CONTAINER",
        interspersed=True,
        run=_attach,
    ),
)
