"""`inspect`: all that is known of containers, images, networks and volumes."""

from __future__ import annotations

import argparse
import json
import urllib.parse
from typing import Any

from hawse.cli import lists
from hawse.cli.context import Context, Place
from hawse.cli.hosts import Output, each, refused, worst
from hawse.cli.verb import Verb
from hawse.fleet.client import DOCKER, LONG, AgentClient
from hawse.format.template import Template
from hawse.format.values import inspected, names_of_json
from hawse_agent.errors import InputError, NotFound

_TYPES = {
    "container": "containers/{}/json",
    "image": "images/{}/json",
    "network": "networks/{}",
    "volume": "volumes/{}",
}
"""In the order in which a name is looked for."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    lists.format_argument(parser, "-f", "--format", tables=False)
    parser.add_argument("--type", choices=tuple(_TYPES), help="look for this kind only")
    parser.add_argument("-s", "--size", action="store_true", help="how much containers have written")
    parser.add_argument("names", nargs="+", metavar="NAME|ID")


def _inspect(context: Context, options: argparse.Namespace) -> int:
    return inspect(context, options, options.type, size=options.size)


def inspect(context: Context, options: argparse.Namespace, kind: str | None, *, size: bool = False) -> int:
    """What agents know of `options.names`, of one kind or of any, in `options.format`."""
    template = Template(options.format) if options.format not in ("", "json") else None
    places = context.places()
    output = Output(context, [place.name for place in places])
    found: dict[str, list[Any]] = {place.name: [] for place in places}

    def work(place: Place) -> int:
        agent, code, several = context.at(place), 0, place if len(places) > 1 else None
        with output.of(place.name) as writer:
            for name in options.names:
                try:
                    answer, found_kind = _look(agent, name, kind, size=size)
                except (InputError, NotFound) as error:
                    refused(context, error, several)
                    code = 1
                    continue
                if size and found_kind != "container":
                    context.warn(f"hawse: --size is ignored for {name}: it is not a container")
                found[place.name].append(answer)
                if template is not None and not context.options.json:
                    raw = bool(template.fields & names_of_json)
                    writer.write(1, f"{template.execute(inspected(answer, raw=raw))}\n".encode())
            if template is None and not context.options.json:
                writer.write(1, _shown(found[place.name], options.format).encode())
        return code

    code = worst(*each(context, places, work))
    if context.options.json:
        lists.show_json(context, found)
    return code


def _look(agent: AgentClient, name: str, kind: str | None, *, size: bool) -> tuple[Any, str]:
    """What has this name, and its kind."""
    if not name.strip("/"):
        raise InputError("a name is empty")
    quoted = urllib.parse.quote(name, safe="")
    for known, path in _TYPES.items():
        if kind not in (None, known):
            continue
        query = {"size": True} if size and known == "container" else None
        try:
            return agent.json("GET", f"{DOCKER}/{path.format(quoted)}", query=query, timeout=LONG), known
        except (NotFound, InputError):  # InputError: not the name of an image
            if kind is not None:
                raise
    raise NotFound(f"no such object: {name}")


def show(context: Context, found: list[Any], form: str) -> None:
    """The same, of what is known here."""
    if context.options.json or form in ("", "json"):
        context.stdout.write(_shown(found, "" if context.options.json else form))
        return
    template = Template(form)
    for one in found:
        context.print(template.execute(inspected(one, raw=bool(template.fields & names_of_json))))


def _shown(found: list[Any], form: str) -> str:
    if form == "json":
        return json.dumps(found, separators=(",", ":"), ensure_ascii=False) + "\n"
    return json.dumps(found, indent=4, ensure_ascii=False) + "\n"


VERBS = (
    Verb(
        name="inspect",
        help="show all that is known of containers, images, networks, volumes",
        arguments=_arguments,
        run=_inspect,
    ),
)
