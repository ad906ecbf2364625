"""`cp` and `export`: files of containers out of them and into them, as Docker's verbs do it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hawse.cli.context import Context, Place
from hawse.cli.hosts import each
from hawse.cli.verb import Verb
from hawse.docker import archive, copying
from hawse.docker.copying import Destination, Source
from hawse.fleet import files
from hawse.fleet.client import AgentClient
from hawse.format.units import human_size
from hawse_agent.errors import HostRefused, InputError

_PIECE = 256 * 1024


def _cp_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--archive", action="store_true", help="owners become those of the container")
    parser.add_argument("-L", "--follow-link", action="store_true", help="follow a link at the end of SRC")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say how much was copied")
    parser.add_argument("source", metavar="SRC", help="CONTAINER:PATH, or a PATH here, or - for a tar")
    parser.add_argument("destination", metavar="DST", help="a PATH here, or - for a tar, or CONTAINER:PATH")


def _cp(context: Context, options: argparse.Namespace) -> int:
    container, path = copying.split(options.source)
    other, target = copying.split(options.destination)
    if not options.source or not options.destination:
        raise InputError("cp: a path is empty")
    if container and other:
        raise InputError("copying between containers is not supported")
    if not container and not other:
        raise InputError("cp needs a container on one side", hint="CONTAINER:PATH")
    places = context.places()
    several = len(places) > 1
    if several and (container or path == "-"):
        raise InputError("copied out of one host at a time", hint=f"-H matches {len(places)}")

    def work(place: Place) -> None:
        agent = context.at(place)
        if not container:
            count = _into(context, agent, other, path, target, options)
        elif target == "-":
            _to_stdout(context, agent, container, path, options)
            return
        else:
            count = _out(agent, container, path, target, options)
        if not options.quiet and context.stdout.isatty():
            head = f"{place.name}: " if several else ""
            size = human_size(count.bytes, 3)
            context.warn(f"{head}Successfully copied {size} to {options.destination}")

    return each(context, places, work)[1]


class _Counted:
    """Pieces as they pass."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.bytes += len(piece)
            yield piece


def _out(agent: AgentClient, container: str, path: str, target: str, options: argparse.Namespace) -> _Counted:
    destination = archive.destination(target)
    path, name = _followed(agent, container, path, follow=options.follow_link)
    with files.read(agent, container, path) as (found, chunks):
        count = _Counted(chunks)
        source = Source(path=path, is_directory=found.is_directory, name=name)
        archive.unpack(count, copying.placed(source, destination))
        return count


def _to_stdout(
    context: Context, agent: AgentClient, container: str, path: str, options: argparse.Namespace
) -> None:
    path, _ = _followed(agent, container, path, follow=options.follow_link)
    with files.read(agent, container, path) as (_, chunks):
        write(context, chunks)


def _followed(agent: AgentClient, container: str, path: str, *, follow: bool) -> tuple[str, str]:
    """What to ask for, and the name that it keeps when a link was followed."""
    found = files.look(agent, container, path) if follow else None
    if found is None or not found.is_link:
        return path, ""
    return copying.followed(path, copying.beside(path, found.link_target))


def _into(
    context: Context,
    agent: AgentClient,
    container: str,
    path: str,
    target: str,
    options: argparse.Namespace,
) -> _Counted:
    destination = _destination(agent, container, target)
    pieces: Iterable[bytes]
    if path == "-":
        if not destination.is_directory:
            raise InputError(f'destination "{container}:{target}" must be a directory')
        directory = destination.path
        pieces = iter(lambda: context.stdin.read(_PIECE), b"")
    else:
        source = archive.source(path, follow=options.follow_link)
        placement = copying.placed(source, destination)
        directory, pieces = placement.directory, archive.packed(source, placement)
    count = _Counted(pieces)
    files.write(agent, container, directory, count, owners=options.archive)
    return count


def _destination(agent: AgentClient, container: str, path: str) -> Destination:
    """A link is followed once; that there is nothing may be right, and is the agent's to judge."""
    found, real = files.look(agent, container, path), path
    if found is not None and found.is_link:
        real = copying.beside(path, found.link_target)
        found = files.look(agent, container, real)
    if found is None:
        return Destination(path=real)
    if found.is_special:
        raise InputError(f'destination "{container}:{path}" must be a directory or a regular file')
    return Destination(path=real, exists=True, is_directory=found.is_directory)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to, instead of stdout")
    parser.add_argument("container", metavar="CONTAINER")


def _export(context: Context, options: argparse.Namespace) -> int:
    places = context.places()
    if len(places) > 1:
        raise InputError("export is of one host", hint=f"-H matches {len(places)}")
    if options.output is not None and not options.output.absolute().parent.is_dir():
        raise InputError(f"invalid output path: directory {str(options.output.parent)!r} does not exist")

    def work(place: Place) -> None:
        with files.export(context.at(place), options.container) as chunks:
            if options.output is None:
                write(context, chunks)
            else:
                keep(options.output, chunks)

    return each(context, places, work)[1]


def keep(path: Path, chunks: Iterable[bytes]) -> None:
    """Appears under its name when it is whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(part, path)
    except OSError as error:
        raise HostRefused(f"{path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def write(context: Context, chunks: Iterable[bytes]) -> None:
    if context.stdout.isatty():
        raise InputError("a tar is not written to a terminal", hint="redirect it, or name a file")
    context.stdout.flush()
    for chunk in chunks:
        context.stdout.buffer.write(chunk)
    context.stdout.buffer.flush()


VERBS = (
    Verb(name="cp", help="copy files out of a container, or into it", arguments=_cp_arguments, run=_cp),
    Verb(
        name="export",
        help="write a container's files as a tar",
        arguments=_export_arguments,
        run=_export,
    ),
)
