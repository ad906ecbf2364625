"""`info`, `df`, `prune`, `builder prune`: an agent and its host as a whole."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from hawse.cli import lists
from hawse.cli.context import Context, Place
from hawse.cli.hosts import Output, ask
from hawse.cli.verb import Verb
from hawse.docker.values import size
from hawse.fleet.client import DOCKER, LONG, AgentClient
from hawse.format.images import removed_line
from hawse.format.template import Template
from hawse.format.units import bytes_size, human_size
from hawse.format.usage import USAGE, details, usage_rows
from hawse.format.values import inspected
from hawse_agent.errors import HostRefused, InputError

DANGLING_IMAGES = "all dangling images"
ALL_IMAGES = "all images without at least one container associated to them"
_OF_BUILDS = ("until", "id", "type", "description", "inuse", "shared")
"""What the cache of builds can be filtered by."""
_KINDS = {
    "containers": ("ContainersDeleted", "Deleted Containers:"),
    "networks": ("NetworksDeleted", "Deleted Networks:"),
    "volumes": ("VolumesDeleted", "Deleted Volumes:"),
    "images": ("ImagesDeleted", "Deleted Images:"),
    "build": ("CachesDeleted", "Deleted build cache objects:"),
}
"""What can be pruned, in the order in which one may be in the way of the next: field of the answer, title."""


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    lists.format_argument(parser, "-f", "--format", tables=False)


def _info(context: Context, options: argparse.Namespace) -> int:
    template = Template(options.format) if options.format not in ("", "json") else None
    places = context.places()
    found, code = ask(context, places, lambda agent: agent.json("GET", f"{DOCKER}/info"))
    if context.options.json:
        lists.show_json(context, found)
        return code
    output = Output(context, [place.name for place in places])
    for name, info in found.items():
        with output.of(name) as writer:
            if template is not None:
                text = template.execute(inspected(info))
            else:
                text = json.dumps(info) if options.format else "\n".join(_described(info))
            writer.write(1, f"{text}\n".encode())
            for warning in info.get("Warnings") or ():
                writer.write(2, f"{warning}\n".encode())
    return code


def _described(info: dict[str, Any]) -> Iterator[str]:
    """As docker's `info` describes a server."""
    yield f"Containers: {info['Containers']}"
    yield f" Running: {info['ContainersRunning']}"
    yield f" Paused: {info['ContainersPaused']}"
    yield f" Stopped: {info['ContainersStopped']}"
    yield f"Images: {info['Images']}"
    yield f"Server Version: {info['ServerVersion']}"
    yield f"Storage Driver: {info['Driver']}"
    yield from (f" {key}: {value}" for key, value in info.get("DriverStatus") or ())
    yield f"Logging Driver: {info['LoggingDriver']}"
    yield f"Cgroup Driver: {info['CgroupDriver']}"
    yield f"Cgroup Version: {info['CgroupVersion']}"
    yield "Plugins:"
    yield from (f" {kind}: {' '.join(names)}" for kind, names in info["Plugins"].items() if names)
    yield f"Runtimes: {' '.join(info['Runtimes'])}"
    yield f"Default Runtime: {info['DefaultRuntime']}"
    if info.get("SecurityOptions"):
        yield "Security Options:"
    for option in info.get("SecurityOptions") or ():
        named = dict(part.partition("=")[::2] for part in option.split(","))
        yield f" {named['name']}"
        if "profile" in named:
            yield f"  Profile: {named['profile']}"
    yield f"Kernel Version: {info['KernelVersion']}"
    yield f"Operating System: {info['OperatingSystem']}"
    yield f"OSType: {info['OSType']}"
    yield f"Architecture: {info['Architecture']}"
    yield f"CPUs: {info['NCPU']}"
    yield f"Total Memory: {bytes_size(info['MemTotal'])}"
    yield f"Name: {info['Name']}"
    yield f"ID: {info['ID']}"
    yield f"Root Dir: {info['DockerRootDir']}"
    yield f"Live Restore Enabled: {str(info['LiveRestoreEnabled']).lower()}"


def _df_arguments(parser: argparse.ArgumentParser) -> None:
    lists.format_argument(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="one by one")


def _df(context: Context, options: argparse.Namespace) -> int:
    if not options.verbose:
        USAGE.template(options.format)
    places = context.places()
    found, code = ask(context, places, lambda agent: agent.json("GET", f"{DOCKER}/system/df", timeout=LONG))
    if context.options.json:
        lists.show_json(context, found)
        return code
    width = lists.terminal_width(context)
    if not options.verbose:
        rows = {name: usage_rows(answer) for name, answer in found.items()}
        lists.write(context, USAGE.render(rows, options.format, several=len(places) > 1, width=width))
        return code
    output = Output(context, [place.name for place in places])
    for name, answer in found.items():
        with output.of(name) as writer:
            writer.write(1, details(answer, options.format, width=width).encode())
    return code


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all unused images, not only nameless ones")
    parser.add_argument("--volumes", action="store_true", help="unused anonymous volumes, too")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    lists.filter_argument(parser, "label, label!, until", "--filter")


def _prune(context: Context, options: argparse.Namespace) -> int:
    filters = lists.filters(options)
    if unknown := sorted(set(filters) - {"label", "label!", "until"}):
        raise InputError(f"invalid filter '{unknown[0]}'")
    if options.volumes and "until" in filters:
        raise InputError('the "until" filter is not supported with "--volumes"')
    places = context.places()
    left = set() if options.volumes else {"volumes"}
    if filters.keys() & {"label", "label!"}:
        left.add("build")  # it has no labels by which it could be chosen
    if not options.force and not confirmed(context, _warnings(options, left), filters, places):
        raise HostRefused("the prune has been cancelled")
    kinds = [kind for kind in _KINDS if kind not in left]
    return prune(context, places, kinds, filters, every=options.all)


def _warnings(options: argparse.Namespace, left: set[str]) -> list[str]:
    return [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if options.volumes else []),
        ALL_IMAGES if options.all else DANGLING_IMAGES,
        *([] if "build" in left else ["all build cache" if options.all else "unused build cache"]),
    ]


def _builder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all of it, not only what no image uses")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    lists.filter_argument(parser, "until, id, type, description, inuse, shared", "--filter")
    parser.add_argument(
        "--keep-storage", type=size, default=0, metavar="SIZE", help="as much of it may stay: 10GB"
    )


def _builder(context: Context, options: argparse.Namespace) -> int:
    filters = lists.filters(options)
    if unknown := sorted(set(filters) - set(_OF_BUILDS)):
        raise InputError(f"invalid filter '{unknown[0]}'")
    places = context.places()
    warning = "all build cache" if options.all else "all dangling build cache"
    if not options.force and not confirmed(context, [warning], filters, places):
        raise HostRefused("the prune has been cancelled")
    return prune(context, places, ["build"], filters, every=options.all, keep=options.keep_storage)


def confirmed(
    context: Context, warnings: list[str], filters: dict[str, list[str]], places: list[Place]
) -> bool:
    """Whether the person agrees that this goes."""
    where = f" on {', '.join(place.name for place in places)}" if places[0].host is not None else ""
    lines = [f"WARNING! This will remove{where}:", *(f"  - {warning}" for warning in warnings)]
    if filters:
        lines += ["", "  Items to be pruned will be filtered with:"]
        lines += [f"  - {key}={value}" for key, values in sorted(filters.items()) for value in values]
    context.stdout.write("\n".join([*lines, "", "Are you sure you want to continue? [y/N] "]))
    context.stdout.flush()
    return context.stdin.readline().decode().strip().lower() == "y"


def prune(
    context: Context,
    places: list[Place],
    kinds: list[str],
    filters: dict[str, list[str]],
    *,
    every: bool,
    keep: int = 0,
) -> int:
    """Removes what nothing uses, kind by kind; says what went. `keep`: so many bytes of builds may stay."""
    found, code = ask(
        context, places, lambda agent: {kind: _pruned(agent, kind, filters, every, keep) for kind in kinds}
    )
    if context.options.json:
        lists.show_json(context, found)
        return code
    output = Output(context, [place.name for place in places])
    for name, answers in found.items():
        with output.of(name) as writer:
            writer.write(1, _removed(answers).encode())
    return code


def _pruned(agent: AgentClient, kind: str, filters: dict[str, list[str]], every: bool, keep: int) -> Any:
    query: dict[str, str | int | bool] = {}
    if kind == "images":
        filters = {**filters, "dangling": ["false" if every else "true"]}
    if kind == "build":
        filters = {key: values for key, values in filters.items() if key in _OF_BUILDS}
        query |= {"all": every, "keep-storage": keep}
    query |= lists.encoded(filters)
    return agent.json("POST", f"{DOCKER}/{kind}/prune", query=query, timeout=LONG)


def _removed(answers: dict[str, Any]) -> str:
    lines, reclaimed = [], 0
    for kind, (field, title) in _KINDS.items():
        answer = answers.get(kind) or {}
        reclaimed += answer.get("SpaceReclaimed") or 0
        if gone := answer.get(field):
            shown = [removed_line(entry) if kind == "images" else str(entry) for entry in gone]
            lines += [title, *shown, ""]
    return "".join(f"{line}\n" for line in [*lines, f"Total reclaimed space: {human_size(reclaimed)}"])


VERBS = (
    Verb(name="info", help="show an agent and its host", arguments=_info_arguments, run=_info),
    Verb(name="df", help="show what images, containers and volumes take", arguments=_df_arguments, run=_df),
    Verb(name="prune", help="remove what nothing uses", arguments=_prune_arguments, run=_prune),
    Verb(
        name="builder prune",
        help="remove the cache of builds",
        arguments=_builder_arguments,
        run=_builder,
    ),
)
