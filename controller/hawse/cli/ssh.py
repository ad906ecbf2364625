"""`ssh`: a shell command on hosts, as their login user; needs no agent there and leaves nothing."""

from __future__ import annotations

import argparse
import shlex
import threading

from hawse.cli import terminal
from hawse.cli.context import Context, Place
from hawse.cli.hosts import HostOutput, Output, each, worst
from hawse.cli.verb import Verb
from hawse.ssh.connection import PIECE, Process
from hawse_agent.errors import InputError, Unreachable


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "hawse [OPTIONS] ssh PATTERN -- COMMAND …"
    parser.add_argument("pattern", metavar="PATTERN", help="hosts")
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="one word is a shell command line; several are a command and its arguments",
    )


def _run(context: Context, options: argparse.Namespace) -> int:
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        raise InputError("ssh: no command", hint="hawse ssh PATTERN -- COMMAND …")
    command = words[0] if len(words) == 1 else shlex.join(words)
    places = [Place(name=host.name, host=host) for host in context.hosts(options.pattern)]
    output = Output(context, [place.name for place in places])
    feed = len(places) == 1 and not context.stdin.isatty()

    def run(place: Place) -> int:
        assert place.host is not None
        reached = context.connection(place.host)
        connection = context.fleet.connection(reached.target)
        root = context.options.become if reached.become is None else reached.become
        with connection.start(command, root=root) as process, output.of(place.name) as writer:
            if feed:
                terminal.forward(context.stdin, process.send, process.close_stdin)
            else:
                process.close_stdin()
            return _finish(process, writer, place.name)

    return worst(*each(context, places, run))


def _finish(process: Process, writer: HostOutput, name: str) -> int:
    def errors() -> None:
        try:
            while data := process.recv_stderr(PIECE):
                writer.write(2, data)
        except OSError:
            pass  # stdout ends by the same cause, and says so

    reader = threading.Thread(target=errors, name=f"{name} stderr", daemon=True)
    reader.start()
    try:
        while data := process.recv(PIECE):
            writer.write(1, data)
        reader.join()
        return process.wait()
    except ConnectionResetError as error:
        raise Unreachable(f"{name}: {error}", stage="tcp") from error


VERBS = (
    Verb(name="ssh", help="run a shell command on hosts; no agent needed", arguments=_arguments, run=_run),
)
