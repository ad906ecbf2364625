"""`ps`: containers of this machine, or of the hosts that -H names."""

from __future__ import annotations

import argparse
from dataclasses import replace

from hawse.cli import lists
from hawse.cli.context import Context
from hawse.cli.hosts import ask
from hawse.cli.verb import Verb
from hawse.fleet.client import DOCKER, LONG, AgentClient
from hawse.format.containers import CONTAINERS, SIZE, container_row
from hawse.format.listing import uses

_FILTERS = (
    "id, name, label, status, exited, health, ancestor, network, volume, publish, expose, before, since"
)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="those that do not run, too")
    parser.add_argument("-n", "--last", type=int, default=-1, metavar="N", help="the N that were made last")
    parser.add_argument("-l", "--latest", action="store_true", help="the one that was made last")
    parser.add_argument("-s", "--size", action="store_true", help="how much they have written")
    lists.arguments(parser, filters=_FILTERS)


def _ps(context: Context, options: argparse.Namespace) -> int:
    size = options.size or uses(options.format, "Size")
    query: dict[str, str | int | bool] = {"all": options.all, "size": size}
    limit = 1 if options.latest and options.last == -1 else options.last
    if limit > 0:
        query["limit"] = limit
    query |= lists.encoded(lists.filters(options))
    listing = CONTAINERS
    if options.size:
        raw = f"{listing.raw}size: {{{{.Size}}}}\n"
        listing = replace(listing, table=f"{listing.table}{SIZE}", raw=raw)
    if options.format and options.quiet:
        context.warn("hawse: --format is ignored, because there is --quiet as well")
        options.format = ""
    listing.template(options.format)

    def containers(agent: AgentClient) -> list[dict[str, object]]:
        return list(agent.json("GET", f"{DOCKER}/containers/json", query=query, timeout=LONG))

    places = context.places()
    found, code = ask(context, places, containers)
    if context.options.json:
        lists.show_json(context, found)
        return code
    cut = not options.no_trunc
    rows = {name: [container_row(entry, cut=cut) for entry in entries] for name, entries in found.items()}
    lists.show(context, listing, rows, options, several=len(places) > 1)
    return code


VERBS = (Verb(name="ps", help="list containers", arguments=_arguments, run=_ps),)
