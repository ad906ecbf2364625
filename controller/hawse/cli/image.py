"""`image ls pull push import load save inspect send rm prune`: images that the controller holds.

Hosts that cannot reach a registry get them from here: `send` and stacks send what a host lacks. With -H,
`ls`, `inspect`, `rm`, `prune` are about images of hosts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawse.cli import images as of_hosts
from hawse.cli import inspect as of_anything
from hawse.cli import lists, system
from hawse.cli.context import Context, Place
from hawse.cli.copy import keep, write
from hawse.cli.hosts import ask, each
from hawse.cli.verb import Verb
from hawse.format.units import human_size
from hawse.report.text import age, columns, short_size
from hawse_agent.distribution.reference import familiar
from hawse_agent.errors import HostRefused, InputError, Unreachable

if TYPE_CHECKING:
    from hawse.fleet.client import AgentClient
    from hawse.images.store import StoredImage, Variant


def _ls(context: Context, options: argparse.Namespace) -> int:
    if context.options.hosts:
        return _ls_hosts(context)
    held = context.images.images()
    if context.options.json:
        context.print(json.dumps([asdict(image) for image in held], indent=2))
        return 0
    rows = [
        (
            familiar(image.reference),
            variant.id[7:19],
            variant.platform,
            variant.created[:10],
            short_size(variant.size),
        )
        for image in held
        for variant in image.variants
    ]
    context.print(columns(("image", "id", "platform", "created", "to send"), rows))
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


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH",
        help="for hosts of this kind; may be repeated (this machine's)",
    )
    parser.add_argument("--all-platforms", action="store_true", help="for all that the registry has")
    parser.add_argument("-q", "--quiet", action="store_true", help="say only how it ended")
    parser.add_argument("names", nargs="+", metavar="NAME[:TAG|@DIGEST]")


@contextlib.contextmanager
def _telling(context: Context, *, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows what is told of a transfer between a registry and here, unless it shall be quiet."""
    from hawse.report.messages import plain

    with context.console.layers(["here"]) as board:

        def show(message: dict[str, Any]) -> None:
            if quiet:
                return
            if board is not None:
                board.message("here", message)
            else:
                context.stdout.write(plain(message))

        yield show


def _of_here(
    run: Callable[[Context, argparse.Namespace], int], instead: str
) -> Callable[[Context, argparse.Namespace], int]:
    """A verb that is about images held here: -H would be ignored, and so is refused."""

    def checked(context: Context, options: argparse.Namespace) -> int:
        if context.options.hosts:
            raise InputError("this is about images held here, not on hosts", hint=instead)
        return run(context, options)

    return checked


def _pull(context: Context, options: argparse.Namespace) -> int:
    from hawse.images.pull import pull
    from hawse_agent.distribution import manifest, reference
    from hawse_agent.distribution.credentials import NOBODY

    if options.platform and options.all_platforms:
        raise InputError("--platform and --all-platforms exclude each other")
    wanted = [manifest.parse_platform(text) for text in options.platform]
    platforms = None if options.all_platforms else wanted or [manifest.host_platform()]
    for text in options.names:
        name = reference.parse(text)
        credentials = context.registries.get(name.registry) or NOBODY
        with _telling(context, quiet=options.quiet) as show:
            pull(
                context.registry_client,
                context.images,
                name,
                credentials,
                platforms=platforms,
                progress=show,
            )
        context.print(name.canonical)
    return 0


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="say only how it ended")
    parser.add_argument("names", nargs="+", metavar="NAME[:TAG]")


def _push(context: Context, options: argparse.Namespace) -> int:
    from hawse.images.push import push
    from hawse_agent.distribution import reference
    from hawse_agent.distribution.credentials import NOBODY

    for text in options.names:
        name = reference.parse(text)
        credentials = context.registries.get(name.registry) or NOBODY
        with _telling(context, quiet=options.quiet) as show:
            digest = push(context.registry_client, context.images, name, credentials, progress=show)
        context.print(f"{name.name}@{digest}")
    return 0


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
    _said(context, made)
    return 0


def _load_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", type=Path, metavar="FILE", help="from where, instead of stdin")


def _load(context: Context, options: argparse.Namespace) -> int:
    from hawse.images.importer import import_archive

    if options.input is not None:
        _said(context, import_archive(context.images, options.input))
        return 0
    if context.stdin.isatty():
        raise InputError("an archive is expected on stdin", hint="redirect it, or name a file with -i")
    with tempfile.NamedTemporaryFile(prefix="hawse-load-") as spooled:  # an archive's list stands at its end
        shutil.copyfileobj(context.stdin, spooled, 1 << 20)
        spooled.flush()
        _said(context, import_archive(context.images, Path(spooled.name)))
    return 0


def _said(context: Context, made: list[StoredImage]) -> None:
    for image in made:
        for variant in image.variants:
            context.print(f"{familiar(image.reference)}  {variant.id[:19]}  {short_size(variant.size)}")


def _save_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to, instead of stdout")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="of several; else this machine's")
    parser.add_argument("names", nargs="+", metavar="NAME")


def _save(context: Context, options: argparse.Namespace) -> int:
    from hawse.images.archive import save

    chosen = [
        (image.reference, _for_platform(image, options.platform))
        for image in map(context.images.named, options.names)
    ]
    pieces = save(context.images, chosen)
    if options.output is None:
        write(context, pieces)
    else:
        keep(options.output, pieces)
    return 0


def _for_platform(image: StoredImage, platform: str) -> Variant:
    from hawse_agent.distribution import manifest
    from hawse_agent.distribution.platforms import choose

    if not platform and len(image.variants) == 1:
        return image.variants[0]
    wanted = manifest.parse_platform(platform) if platform else manifest.host_platform()
    chosen = choose(image.source(), wanted).manifest
    return next(variant for variant in image.variants if variant.manifest == chosen)


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    lists.format_argument(parser, "-f", "--format", tables=False)
    parser.add_argument("names", nargs="+", metavar="NAME|ID")


def _inspect(context: Context, options: argparse.Namespace) -> int:
    if context.options.hosts:
        return of_anything.inspect(context, options, kind="image")
    found = [
        {
            "Name": familiar(image.reference),
            "Platform": variant.platform,
            "Id": variant.id,
            "Manifest": variant.manifest,
            "Size": variant.size,
            "Blobs": list(variant.blobs),
            "Image": context.images.read_json(variant.id),
        }
        for image in map(context.images.named, options.names)
        for variant in image.variants
    ]
    of_anything.show(context, found, options.format)
    return 0


def _send_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="hosts; else -H")


def _send(context: Context, options: argparse.Namespace) -> int:
    image = context.images.find(options.name) or _fetched(context, options.name)
    return send_to(context, image, options.pattern)


def _fetched(context: Context, name: str) -> StoredImage:
    """From this machine's agent, if it has an image of this name; else `NotFound`."""
    from hawse.images.fetch import fetch

    agent = context.listening_agent()
    if agent is not None:
        with agent:
            if agent.has_name(name):
                context.warn(f"{familiar(name)} is fetched from this machine's agent, and held here")
                return fetch(agent, context.images, name, name)
    return context.images.named(name)


def send_to(context: Context, image: StoredImage, pattern: str = "") -> int:
    """Sends an image that is held here to the hosts of a pattern, else of -H."""
    from hawse.images.send import Sent, send

    source = image.source()
    if pattern:
        places = [Place(name=host.name, host=host) for host in context.hosts(pattern)]
    else:
        places = context.places()
    with context.console.progress([place.name for place in places]) as progress:

        def work(place: Place) -> Sent:
            name = place.name

            def sent(done: int, total: int) -> None:
                progress.note(name, f"{short_size(done)} of {short_size(total)} sent")

            def connect() -> AgentClient:
                progress.note(name, "connecting")
                if place.host is None:
                    return context.at(place)
                return context.agent(place.host, say=lambda text: progress.note(name, text))

            def lost(error: Unreachable) -> None:
                if context.gave_up(name):  # Ctrl-C
                    raise error
                context.cut(name, again=True)
                progress.note(name, f"{error.message}; once more")

            return send(connect, context.images, source, progress=sent, lost=lost)

        done, code = each(context, places, work)
    for host, one in done.items():
        context.print(f"{host}: {familiar(source.reference)} is {one.id[:19]}, {short_size(one.bytes)} sent")
    return code


def _rm_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="with -H: also when containers have it")
    parser.add_argument("names", nargs="+", metavar="NAME")


def _rm(context: Context, options: argparse.Namespace) -> int:
    if context.options.hosts:
        return of_hosts.remove(context, options.names, force=options.force)
    for name in options.names:
        context.images.remove(name)
    return 0


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="with -H: all that no container uses")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    lists.filter_argument(parser, "with -H: label, label!, until", "--filter")


def _prune(context: Context, options: argparse.Namespace) -> int:
    if not context.options.hosts:
        if options.all or options.filter:
            raise InputError(
                "--all and --filter are for images of hosts", hint="hawse -H PATTERN image prune"
            )
        context.print(f"Total reclaimed space: {human_size(context.images.prune())}")
        return 0
    filters = lists.filters(options)
    if unknown := sorted(set(filters) - {"label", "label!", "until"}):
        raise InputError(f"invalid filter {unknown[0]!r}")
    what = system.ALL_IMAGES if options.all else system.DANGLING_IMAGES
    places = context.places()
    if not options.force and not system.confirmed(context, [what], filters, places):
        raise HostRefused("the prune has been cancelled")
    return system.prune(context, places, ["images"], filters, every=options.all)


VERBS = (
    Verb(name="image ls", help="list images held here to send; with -H, images of hosts", run=_ls),
    Verb(
        name="image pull",
        help="fetch an image from a registry, to be held here",
        arguments=_pull_arguments,
        run=_of_here(_pull, "hawse -H PATTERN pull"),
    ),
    Verb(
        name="image push",
        help="bring an image held here to its registry",
        arguments=_push_arguments,
        run=_of_here(_push, "hawse -H PATTERN push"),
    ),
    Verb(
        name="image import",
        help="make an image out of an archive or a root tar",
        arguments=_import_arguments,
        run=_of_here(_import, "hawse -H PATTERN import"),
    ),
    Verb(
        name="image load",
        help="hold the images of an archive",
        arguments=_load_arguments,
        run=_of_here(_load, "hawse -H PATTERN load"),
    ),
    Verb(
        name="image save",
        help="write images held here as an archive",
        arguments=_save_arguments,
        run=_of_here(_save, "hawse -H PATTERN save"),
    ),
    Verb(
        name="image inspect",
        help="show all of an image held here; with -H, of hosts",
        arguments=_inspect_arguments,
        run=_inspect,
    ),
    Verb(
        name="image send",
        help="send an image: only what a host lacks",
        arguments=_send_arguments,
        also=("forks",),
        run=_send,
    ),
    Verb(
        name="image rm",
        help="forget images held here; with -H, remove them from hosts",
        arguments=_rm_arguments,
        run=_rm,
    ),
    Verb(
        name="image prune",
        help="remove what no name needs; with -H, from hosts",
        arguments=_prune_arguments,
        run=_prune,
    ),
)
