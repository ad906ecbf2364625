"""`images`: images of this machine's agent, or of the hosts that -H names; `image ls` has those held here."""

from __future__ import annotations

import argparse
from dataclasses import replace

from hawse.cli import lists
from hawse.cli.context import Context
from hawse.cli.hosts import ask
from hawse.cli.verb import Verb
from hawse.fleet.client import DOCKER
from hawse.format.images import IMAGES, WITH_DIGESTS, image_rows
from hawse.format.listing import uses


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="intermediate ones, too")
    parser.add_argument("--digests", action="store_true", help="digests, too")
    lists.arguments(parser, filters="reference, dangling, label, before, since, until")
    parser.add_argument("name", nargs="?", default="", metavar="NAME[:TAG]", help="only these, or a pattern")


def _images(context: Context, options: argparse.Namespace) -> int:
    digests = options.digests or uses(options.format, "Digest")
    listing = replace(IMAGES, table=WITH_DIGESTS) if options.digests else IMAGES
    listing.template(options.format)
    filters = lists.filters(options)
    if options.name:
        filters.setdefault("reference", []).append(options.name)
    query = {"all": options.all, **lists.encoded(filters)}
    places = context.places()
    found, code = ask(context, places, lambda agent: agent.json("GET", f"{DOCKER}/images/json", query=query))
    if context.options.json:
        lists.show_json(context, found)
        return code
    rows = {
        name: [
            row for image in images for row in image_rows(image, cut=not options.no_trunc, digests=digests)
        ]
        for name, images in found.items()
    }
    lists.show(context, listing, rows, options, several=len(places) > 1)
    return code


VERBS = (Verb(name="images", help="list images of hosts", arguments=_arguments, run=_images),)
