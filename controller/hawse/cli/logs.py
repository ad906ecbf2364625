"""`logs`: what a container has said, on this machine or on the hosts that -H names."""

from __future__ import annotations

import argparse
import time

from hawse.cli.context import Context, Place
from hawse.cli.hosts import Output, each
from hawse.cli.times import moment
from hawse.cli.verb import Verb
from hawse_agent.errors import InputError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the container ends, or Ctrl-C"
    )
    parser.add_argument("-n", "--tail", default="all", metavar="N", help="only the last N lines")
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    parser.add_argument("--since", default="", metavar="TIME", help="a time, or how long ago: 10m, 1h30m")
    parser.add_argument("--until", default="", metavar="TIME", help="likewise")
    parser.add_argument("--details", action="store_true", help="what the log driver knows beside each line")


def _logs(context: Context, options: argparse.Namespace) -> int:
    if options.tail.startswith("-") and options.tail[1:].isdecimal():
        options.tail = "all"
    if options.tail != "all" and not options.tail.isdecimal():
        raise InputError(f"--tail {options.tail}: expected a number of lines, or all")
    since, until = (moment(text, time.time()) if text else "" for text in (options.since, options.until))
    places = context.places()
    output = Output(context, [place.name for place in places])

    def show(place: Place) -> None:
        agent = context.at(place)
        with output.of(place.name) as writer:
            for stream, data in agent.logs(
                options.container,
                follow=options.follow,
                tail=options.tail,
                since=since,
                until=until,
                timestamps=options.timestamps,
                details=options.details,
            ):
                writer.write(stream, data)

    return each(context, places, show)[1]


VERBS = (Verb(name="logs", help="show what a container has said", arguments=_arguments, run=_logs),)
