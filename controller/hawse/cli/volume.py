"""`volume ls`, `backup`, `restore`: volumes of this machine, or of the hosts that -H names."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from hawse.cli import lists
from hawse.cli.context import Context, Place
from hawse.cli.hosts import ask, each
from hawse.cli.verb import Verb
from hawse.fleet import volumes
from hawse.fleet.client import DOCKER
from hawse.format.listing import natural
from hawse.format.volumes import VOLUMES, volume_row
from hawse.report.text import age, columns, short_size
from hawse_agent.errors import InputError


def _ls_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", action="store_true", help="measure them: walks each volume")
    lists.arguments(parser, quiet="names only", no_trunc=False, filters="name, label, driver, dangling")


def _ls(context: Context, options: argparse.Namespace) -> int:
    places = context.places()
    if options.format or options.quiet or options.filter:
        return _docker_ls(context, options, places)
    found, code = ask(context, places, lambda agent: agent.volumes(sizes=options.sizes))
    if context.options.json:
        context.print(json.dumps(found, indent=2))
        return code
    rows = [
        (
            host,
            volume["name"],
            short_size(volume["size"]) if volume.get("size") is not None else "",
            f"{age(time.time() - volume['created'])} ago",
            ", ".join(volume.get("users", ())),
        )
        for host, listed in found.items()
        for volume in listed
    ]
    headings = ("host", "volume", "size", "created", "used by")
    left_out = {0} if len(places) == 1 else set()
    if not options.sizes:
        left_out.add(2)
    shown = [column for column in range(len(headings)) if column not in left_out]
    context.print(columns([headings[c] for c in shown], [[row[c] for c in shown] for row in rows]))
    return code


def _docker_ls(context: Context, options: argparse.Namespace, places: list[Place]) -> int:
    """As docker lists them."""
    if options.sizes:
        raise InputError("--sizes goes with no other option")
    VOLUMES.template(options.format)
    query = lists.encoded(lists.filters(options))
    found, code = ask(
        context, places, lambda agent: agent.json("GET", f"{DOCKER}/volumes", query=query)["Volumes"] or []
    )
    if context.options.json:
        lists.show_json(context, found)
        return code
    rows = {
        name: [volume_row(volume) for volume in sorted(volumes, key=lambda volume: natural(volume["Name"]))]
        for name, volumes in found.items()
    }
    lists.show(context, VOLUMES, rows, options, several=len(places) > 1)
    return code


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume", metavar="NAME")
    parser.add_argument(
        "-o", "--output", metavar="FILE|DIR", help="where to (this folder); of several hosts a folder"
    )
    parser.add_argument(
        "--compression", choices=tuple(volumes.ENDINGS), help="else by the name of FILE, else zstd"
    )


def _backup(context: Context, options: argparse.Namespace) -> int:
    places = context.places()
    output = Path(options.output or ".")
    folder = output.is_dir() or len(places) > 1 or (options.output or "").endswith("/")
    if len(places) > 1 and output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file, and there are {len(places)} hosts to back up")
    compression: volumes.Compression = options.compression or _by_name(
        output if not folder else Path("x.tar.zst")
    )
    now = time.time()

    def path(place: Place) -> Path:
        if not folder:
            return output
        host = place.name if place.host is not None else ""
        return output / volumes.file_name(options.volume, compression, host=host, now=now)

    with context.console.progress([place.name for place in places]) as progress:

        def work(place: Place) -> tuple[Path, dict[str, object]]:
            progress.note(place.name, "connecting")
            client = context.at(place)
            manifest = volumes.backup(
                client,
                options.volume,
                path(place),
                compression=compression,
                progress=lambda done, total: progress.note(place.name, f"{short_size(done)} received"),
            )
            return path(place), manifest

        made, code = each(context, places, work)
    if context.options.json:
        shown = {
            name: {"file": str(file), **{key: value for key, value in manifest.items() if key != "files"}}
            for name, (file, manifest) in made.items()
        }
        context.print(json.dumps(shown, indent=2))
        return code
    for name, (file, manifest) in made.items():
        context.print(f"{name}: {file}  {_count(manifest)}, {short_size(file.stat().st_size)}")
        warnings = manifest.get("warnings")
        for warning in warnings if isinstance(warnings, list) else ():
            context.warn(f"{name}: {warning}")
    return code


def _count(manifest: dict[str, object]) -> str:
    files = manifest.get("files")
    count = len(files) if isinstance(files, list) else 0
    return f"{count} file{'s' if count != 1 else ''}"


def _by_name(path: Path) -> volumes.Compression:
    for compression, ending in volumes.ENDINGS.items():
        if path.name.endswith(ending):
            return compression
    if path.name.endswith(".tgz"):
        return "gzip"
    return "zstd"


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume", metavar="NAME")
    parser.add_argument("file", type=Path, metavar="FILE", help="a backup, its manifest beside it")


def _restore(context: Context, options: argparse.Namespace) -> int:
    volumes.read_manifest(options.file)
    places = context.places()
    with context.console.progress([place.name for place in places]) as progress:

        def work(place: Place) -> dict[str, object]:
            progress.note(place.name, "connecting")
            client = context.at(place)
            return volumes.restore(
                client,
                options.volume,
                options.file,
                progress=lambda done, total: progress.note(
                    place.name, f"{short_size(done)} of {short_size(total)} sent"
                ),
            )

        done, code = each(context, places, work)
    if context.options.json:
        context.print(json.dumps(done, indent=2))
        return code
    for name, result in done.items():
        restarted = result.get("restarted")
        names = ", ".join(map(str, restarted)) if isinstance(restarted, list) else ""
        again = f"; restarted {names}" if names else ""
        context.print(f"{name}: {options.volume} restored, {result.get('files')} files{again}")
    return code


VERBS = (
    Verb(name="volume ls", help="list volumes", arguments=_ls_arguments, run=_ls),
    Verb(
        name="volume backup",
        help="write a volume to a tarball here",
        arguments=_backup_arguments,
        run=_backup,
    ),
    Verb(
        name="volume restore",
        help="put a backup in place of a volume's data",
        arguments=_restore_arguments,
        run=_restore,
    ),
)
