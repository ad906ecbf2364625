"""`images`, `history`, `tag`, `rmi`: images of this machine's agent, or of the hosts that -H names.

`image ls` and the like have those that are held here.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from hawse.cli import lists
from hawse.cli.context import Context
from hawse.cli.hosts import ask, every
from hawse.cli.verb import Verb
from hawse.docker.flags import Given
from hawse.docker.images import HISTORY, RMI, operands, split
from hawse.fleet.client import DOCKER, LONG, AgentClient, image_path
from hawse.format.history import FOR_MACHINES, HISTORY_LIST, history_rows
from hawse.format.images import IMAGES, WITH_DIGESTS, image_rows, removed_line
from hawse.format.listing import uses
from hawse_agent.errors import NotFound


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


def _history(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    [name] = operands(given, "history", "IMAGE")
    form, human = given.options.get("format", ""), given.options.get("human", True)
    whole = given.options.get("no-trunc", False)
    listing = HISTORY_LIST if human else replace(HISTORY_LIST, table=FOR_MACHINES)
    listing.template(form)
    platform = given.options.get("platform", "")
    query = {"platform": platform} if platform else {}
    path = f"{image_path(name)}/history"
    places = context.places()
    found, code = ask(context, places, lambda agent: agent.json("GET", path, query=query))
    if context.options.json:
        lists.show_json(context, found)
        return code
    rows = {host: history_rows(steps, cut=not whole, human=human) for host, steps in found.items()}
    text = listing.render(
        rows,
        form,
        quiet=given.options.get("quiet", False),
        several=len(places) > 1,
        width=None if whole else lists.terminal_width(context),
    )
    lists.write(context, text)
    return code


def _tag(context: Context, options: argparse.Namespace) -> int:
    repository, tag = split(options.target)
    query = {"repo": repository, "tag": tag}

    def tagged(agent: AgentClient, name: str) -> None:
        agent.request("POST", f"{image_path(name)}/tag", query=query)

    return every(context, [options.source], tagged)


def _tag_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE[:TAG]")
    parser.add_argument("target", metavar="TARGET[:TAG]")


def _rmi(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    names = operands(given, "rmi", "IMAGE …", 1, None)
    force, keep_parents = given.options.get("force", False), given.options.get("no-prune", False)
    return remove(context, names, force=force, keep_parents=keep_parents)


def remove(context: Context, names: list[str], *, force: bool, keep_parents: bool = False) -> int:
    """Takes names from images, and removes images that have none left."""
    query = {"force": force, "noprune": keep_parents}

    def act(agent: AgentClient, name: str) -> str | None:
        try:
            removed = agent.json("DELETE", image_path(name), query=query, timeout=LONG)
        except NotFound as error:
            if not force:
                raise
            context.warn(f"hawse: {error.message}")
            return None
        return "\n".join(removed_line(entry).capitalize() for entry in removed) or None

    return every(context, names, act)


VERBS = (
    Verb(name="images", help="list images of hosts", arguments=_arguments, run=_images),
    Verb(
        name="history",
        help="show the steps that an image was made in",
        flags=HISTORY,
        operands="IMAGE",
        interspersed=True,
        run=_history,
    ),
    Verb(name="tag", help="give an image a further name", arguments=_tag_arguments, run=_tag),
    Verb(
        name="rmi",
        help="remove images, or names of theirs",
        flags=RMI,
        operands="IMAGE …",
        interspersed=True,
        run=_rmi,
    ),
)
