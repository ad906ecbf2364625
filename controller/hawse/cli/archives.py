"""`save`, `load`, `import`, `commit`: images out of archives and containers, and into archives."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from hawse.cli.context import Context, Place
from hawse.cli.copy import keep, write
from hawse.cli.hosts import Output, each
from hawse.cli.verb import Verb
from hawse.docker.flags import Given
from hawse.docker.images import COMMIT, IMPORT, LOAD, SAVE, commit_query, operands, split
from hawse.fleet.client import DOCKER, LONG, AgentClient
from hawse.report.messages import plain
from hawse_agent.errors import InputError, NotSupported

_PIECE = 1 << 18


def _save(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    names = operands(given, "save", "IMAGE …", 1, None)
    places = context.places()
    if len(places) > 1:
        raise InputError("save is of one host", hint=f"-H matches {len(places)}")
    target = given.options.get("output", "")
    path = Path(target) if target else None
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"invalid output path: directory {str(path.parent)!r} does not exist")
    query: dict[str, Any] = {"names": names}
    if given.options.get("platform"):
        query["platform"] = given.options["platform"]

    def work(place: Place) -> None:
        with context.at(place).open("GET", f"{DOCKER}/images/get", query=query, timeout=LONG) as response:
            if path is None:
                write(context, response.chunks())
            else:
                keep(path, response.chunks())

    return each(context, places, work)[1]


def _load(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    operands(given, "load", "", 0, 0)
    quiet = given.options.get("quiet", False)
    query: dict[str, Any] = {"quiet": quiet}
    if given.options.get("platform"):
        query["platform"] = given.options["platform"]

    def load(agent: AgentClient, file: IO[bytes]) -> Iterator[str]:
        headers = {"Content-Type": "application/x-tar"}
        path = f"{DOCKER}/images/load"
        for message in agent.messages("POST", path, query=query, body=_pieces(file), headers=headers):
            yield plain(message)

    return _sent(context, given.options.get("input", "") or "-", "load", load)


def _import(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    source, *rest = operands(given, "import", "FILE|- [REPOSITORY[:TAG]]", 1, 2)
    if "://" in source:
        raise NotSupported(
            f"importing from a URL is not supported by hawse: {source}", hint="curl URL | hawse import - NAME"
        )
    repository, tag = split(rest[0]) if rest else ("", "")
    query: dict[str, Any] = {
        "fromSrc": "-",
        "repo": repository,
        "tag": tag,
        "message": given.options.get("message", ""),
        "changes": given.options.get("change", []),
    }
    if given.options.get("platform"):
        query["platform"] = given.options["platform"]

    def take(agent: AgentClient, file: IO[bytes]) -> Iterator[str]:
        for message in agent.messages("POST", f"{DOCKER}/images/create", query=query, body=_pieces(file)):
            yield plain(message)

    return _sent(context, source, "import", take)


def _sent(context: Context, source: str, verb: str, take: Any) -> int:
    """A file, or stdin, to each place; shows what comes back."""
    places = context.places()
    if source == "-":
        if len(places) > 1:
            raise InputError(
                f"{verb} from stdin is for one host", hint=f"-H matches {len(places)}; name a file"
            )
        if context.stdin.isatty():
            raise InputError(f"{verb}: an archive is expected on stdin", hint="redirect it, or name a file")
    elif not Path(source).is_file():
        raise InputError(f"no such file: {source}")
    output = Output(context, [place.name for place in places])

    def work(place: Place) -> None:
        with ExitStack() as stack:
            writer = stack.enter_context(output.of(place.name))
            file = context.stdin if source == "-" else stack.enter_context(Path(source).open("rb"))
            for text in take(context.at(place), file):
                writer.write(1, text.encode())

    return each(context, places, work)[1]


def _commit(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    container, *rest = operands(given, "commit", "CONTAINER [REPOSITORY[:TAG]]", 1, 2)
    query = commit_query(given, container, rest[0] if rest else "")
    places = context.places()
    output = Output(context, [place.name for place in places])

    def work(place: Place) -> None:
        with output.of(place.name) as writer:
            answer = context.at(place).json("POST", f"{DOCKER}/commit", query=query, data={}, timeout=LONG)
            writer.write(1, f"{answer['Id']}\n".encode())

    return each(context, places, work)[1]


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(_PIECE), b"")


VERBS = (
    Verb(
        name="save",
        help="write images as an archive",
        flags=SAVE,
        operands="IMAGE …",
        interspersed=True,
        run=_save,
    ),
    Verb(
        name="load",
        help="read images out of an archive",
        flags=LOAD,
        operands="",
        interspersed=True,
        run=_load,
    ),
    Verb(
        name="import",
        help="make an image of a root directory's tar",
        flags=IMPORT,
        operands="FILE|- [REPOSITORY[:TAG]]",
        interspersed=True,
        run=_import,
    ),
    Verb(
        name="commit",
        help="make an image of what a container has changed",
        flags=COMMIT,
        operands="CONTAINER [REPOSITORY[:TAG]]",
        interspersed=True,
        run=_commit,
    ),
)
