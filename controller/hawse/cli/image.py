"""`image ls`, `import`, `send`, `rm`: images that the controller holds for hosts that cannot pull them.

`ls` lists what is held here; with -H, what the hosts have.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawse.cli.context import Context, Place
from hawse.cli.hosts import ask, each
from hawse.cli.verb import Verb
from hawse.report.text import age, columns, short_size
from hawse_agent.distribution.reference import familiar
from hawse_agent.errors import Unreachable

if TYPE_CHECKING:
    from hawse.fleet.client import AgentClient


def _ls(context: Context, options: argparse.Namespace) -> int:
    if context.options.hosts:
        return _ls_hosts(context)
    held = context.images.images()
    if context.options.json:
        from dataclasses import asdict

        context.print(json.dumps([asdict(image) for image in held], indent=2))
        return 0
    rows = [
        (
            familiar(image.reference),
            image.id[7:19],
            image.architecture,
            image.created[:10],
            short_size(image.size),
        )
        for image in held
    ]
    context.print(columns(("image", "id", "architecture", "created", "to send"), rows))
    return 0


def _ls_hosts(context: Context) -> int:
    found, code = ask(context, context.places(), lambda agent: agent.images())
    if context.options.json:
        context.print(json.dumps(found, indent=2))
        return code
    rows = [
        (
            host,
            name,
            image["Id"][7:19],
            f"{age(time.time() - image['Created'])} ago",
            short_size(image["Size"]),
        )
        for host, images in found.items()
        for image in images
        for name in _names(image)
    ]
    context.print(columns(("host", "image", "id", "created", "size"), rows))
    return code


def _names(image: dict[str, Any]) -> list[str]:
    return list(image.get("RepoTags") or ()) or ["<none>"]


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="archive of docker save or of OCI tools, or a root tar"
    )
    parser.add_argument("name", nargs="?", default="", metavar="NAME[:TAG]", help="needed for a root tar")
    parser.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="for a root tar: 'CMD [\"nginx\"]', …",
    )
    parser.add_argument("--architecture", default="", metavar="ARCH", help="amd64, arm64, … (this machine's)")


def _import(context: Context, options: argparse.Namespace) -> int:
    from hawse.images.importer import import_file

    made = import_file(
        context.images,
        options.file,
        reference=options.name,
        changes=options.change,
        architecture=options.architecture,
    )
    for image in made:
        context.print(f"{familiar(image.reference)}  {image.id[:19]}  {short_size(image.size)}")
    return 0


def _send_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="hosts; else -H")


def _send(context: Context, options: argparse.Namespace) -> int:
    from hawse.images.send import send

    source = context.images.get(options.name)
    if options.pattern:
        places = [Place(name=host.name, host=host) for host in context.hosts(options.pattern)]
    else:
        places = context.places()
    with context.console.progress([place.name for place in places]) as progress:

        def work(place: Place) -> str:
            name = place.name

            def sent(done: int, total: int) -> None:
                progress.note(name, f"{short_size(done)} of {short_size(total)} sent")

            def connect() -> AgentClient:
                progress.note(name, "connecting")
                if place.host is None:
                    return context.at(place)
                return context.agent(place.host, say=lambda text: progress.note(name, text))

            def lost(error: Unreachable) -> None:
                context.cut(name)
                progress.note(name, f"{error.message}; once more")

            return send(connect, context.images, source, progress=sent, lost=lost)

        ids, code = each(context, places, work)
    for host, identity in ids.items():
        context.print(f"{host}: {familiar(source.reference)} is {identity[:19]}")
    return code


def _rm_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME")


def _rm(context: Context, options: argparse.Namespace) -> int:
    for name in options.names:
        context.images.remove(name)
    return 0


VERBS = (
    Verb(name="image ls", help="list images held here to send; with -H, images of hosts", run=_ls),
    Verb(
        name="image import",
        help="make an image out of an archive or a root tar",
        arguments=_import_arguments,
        run=_import,
    ),
    Verb(
        name="image send",
        help="send an image: only what a host lacks",
        arguments=_send_arguments,
        run=_send,
    ),
    Verb(name="image rm", help="forget images held here", arguments=_rm_arguments, run=_rm),
)
