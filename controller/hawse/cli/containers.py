"""`exec`: a command in a container of this machine, or of the hosts that -H names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from hawse.cli import terminal
from hawse.cli.context import Context, Place
from hawse.cli.hosts import HostOutput, Output, each, worst
from hawse.cli.verb import Verb
from hawse.fleet.client import demultiplex
from hawse.fleet.stream import Stream
from hawse_agent.errors import InputError, ProtocolError, Unreachable


def _exec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--interactive", action="store_true", help="give it our stdin")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("-u", "--user", default="", metavar="USER[:GROUP]")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER)


def _exec(context: Context, options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise InputError("exec: no command", hint="hawse exec CONTAINER COMMAND …")
    environment = dict(_variable(text, context) for text in options.env)
    places = context.places()
    if len(places) > 1 and (options.interactive or options.tty):
        raise InputError("-i and -t are for one host", hint=f"-H matches {len(places)}")
    if options.tty and options.interactive and not context.stdin.isatty():
        raise InputError("-t: stdin is no terminal", hint="use -i alone")

    def create(place: Place) -> _Execution:
        agent = context.at(place)
        created = agent.exec_create(
            options.container,
            command,
            stdin=options.interactive,
            tty=options.tty,
            user=options.user,
            environment=environment,
            working_dir=options.workdir,
            console=terminal.size() if options.tty else None,
        )
        return _Execution(agent, created, tty=options.tty)

    output = Output(context, [place.name for place in places])
    if len(places) == 1 and options.interactive:
        with output.of(places[0].name) as writer:
            return create(places[0]).attended(context, writer)

    def run(place: Place) -> int:
        with output.of(place.name) as writer:
            return create(place).run(writer)

    return worst(*each(context, places, run))


class _Execution:
    """A command in a container, made and not yet started."""

    def __init__(self, agent: Any, created: str, *, tty: bool) -> None:
        self._agent = agent
        self._id = created
        self._tty = tty

    def run(self, writer: HostOutput) -> int:
        with self._agent.second() as channel:
            stream, first = channel.exec_start(self._id, tty=self._tty)
            with closing(stream):
                return self._finish(stream, first, writer)

    def attended(self, context: Context, writer: HostOutput) -> int:
        """With our stdin, and our terminal when it has one."""
        with self._agent.second() as channel:
            stream, first = channel.exec_start(self._id, tty=self._tty)
            with closing(stream):
                if not self._tty:
                    terminal.forward(context.stdin, stream.send, stream.close_write)
                    return self._finish(stream, first, writer)
                with terminal.raw(context.stdin), terminal.resized(self._resize):
                    terminal.forward(context.stdin, stream.send, stream.close_write)
                    return self._finish(stream, first, writer)

    def _finish(self, stream: Stream, first: bytes, writer: HostOutput) -> int:
        chunks = _received(stream, first, self._agent.name)
        for number, data in ((1, piece) for piece in chunks) if self._tty else demultiplex(chunks):
            writer.write(number, data)
        code = self._agent.exec_inspect(self._id)["ExitCode"]
        if code is None:
            raise ProtocolError(f"{self._agent.name}: the command's output ended, the command did not")
        return int(code)

    def _resize(self, height: int, width: int) -> None:
        self._agent.exec_resize(self._id, height=height, width=width)


def _received(stream: Stream, first: bytes, name: str) -> Iterator[bytes]:
    if first:
        yield first
    try:
        while data := stream.recv(None):
            yield data
    except OSError as error:
        raise Unreachable(f"{name}: the connection was cut: {error}", stage="tcp") from error


def _variable(text: str, context: Context) -> tuple[str, str]:
    """`NAME=VALUE`; `NAME` alone takes over our own value."""
    name, equals, value = text.partition("=")
    if not name or (not equals and name not in context.environment):
        raise InputError(f"-e {text}: expected NAME=VALUE")
    return name, value if equals else context.environment[name]


VERBS = (Verb(name="exec", help="run a command in a container", arguments=_exec_arguments, run=_exec),)
