"""`events`: what happens to containers, images, networks and volumes, as it happens."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from hawse.cli import lists
from hawse.cli.context import Context, Place
from hawse.cli.hosts import Output, each
from hawse.cli.times import moment
from hawse.cli.verb import Verb
from hawse.fleet.client import DOCKER
from hawse.format.template import Template
from hawse.format.values import Map, Struct

_NANO = 1_000_000_000
_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("status", "id", "from", "Type", "Action", "Actor", "scope"), ""),
    **dict.fromkeys(("time", "timeNano"), 0),
}
"""An event with all fields that there are."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    lists.filter_argument(
        parser, "type, event, container, image, network, volume, label, scope", "-f", "--filter"
    )
    lists.format_argument(parser, tables=False)
    parser.add_argument("--since", default="", metavar="TIME", help="begin with what happened then")
    parser.add_argument("--until", default="", metavar="TIME", help="end with what happens then")


def _events(context: Context, options: argparse.Namespace) -> int:
    now = time.time()
    query = {
        key: moment(text, now) for key, text in (("since", options.since), ("until", options.until)) if text
    }
    query |= lists.encoded(lists.filters(options))
    shown = _shower("json" if context.options.json else options.format)
    places = context.places()
    output = Output(context, [place.name for place in places])

    def watch(place: Place) -> None:
        stream = context.at(place).stream_lines("GET", f"{DOCKER}/events", query=query, silence=None)
        with output.of(place.name) as writer:
            for event in stream:
                writer.write(1, f"{shown(event)}\n".encode())

    def watch_json(place: Place) -> None:
        stream = context.at(place).stream_lines("GET", f"{DOCKER}/events", query=query, silence=None)
        for event in stream:
            context.print(json.dumps({"host": place.name, **event}))
            context.stdout.flush()

    return each(context, places, watch_json if context.options.json else watch)[1]


def _shower(form: str) -> Callable[[dict[str, Any]], str]:
    if not form:
        return _plain
    template = Template("{{json .}}" if form == "json" else form)
    template.execute(_typed(_NOTHING))  # a field that there is not is refused before anything is waited for
    return lambda event: template.execute(_typed(event))


def _typed(event: dict[str, Any]) -> Struct:
    known = {key: event.get(key, empty) for key, empty in _NOTHING.items()}
    left_out = {key for key in ("status", "id", "from", "scope") if not event.get(key)}
    actor = event.get("Actor") or {}
    known["Actor"] = Struct(ID=actor.get("ID", ""), Attributes=Map(actor.get("Attributes") or {}, ""))
    return _Event(known, left_out)


class _Event(Struct):
    """Fields without a value can be asked for, and are not in its JSON."""

    def __init__(self, fields: dict[str, Any], left_out: set[str]) -> None:
        super().__init__({key: value for key, value in fields.items() if key not in left_out})
        self._left_out = left_out

    def field(self, name: str) -> Any:
        return "" if name.lower() in self._left_out else super().field(name)


def _plain(event: dict[str, Any]) -> str:
    nano = event.get("timeNano") or event.get("time", 0) * _NANO
    when = datetime.fromtimestamp(nano // _NANO).astimezone()
    zone = when.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    actor = event.get("Actor") or {}
    attributes = sorted((actor.get("Attributes") or {}).items())
    stamp = f"{when:%Y-%m-%dT%H:%M:%S}.{nano % _NANO:09d}{zone}"
    text = f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{text} ({', '.join(f'{key}={value}' for key, value in attributes)})" if attributes else text


VERBS = (Verb(name="events", help="show what happens, as it happens", arguments=_arguments, run=_events),)
