"""`build`: an image by a Dockerfile, here or on the hosts that -H names; --send brings it to others."""

from __future__ import annotations

import argparse
import contextlib
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from hawse.cli.context import Context, Place
from hawse.cli.copy import keep, write
from hawse.cli.hosts import HostOutput, Output, each, refused, worst
from hawse.cli.verb import Verb
from hawse.docker import context as contexts
from hawse.docker.build import BUILD, build_query, first_line
from hawse.docker.build import Output as Destination
from hawse.docker.flags import Given
from hawse.docker.images import operands
from hawse.fleet.client import LONG, AgentClient, StepFailed, image_path
from hawse.report.messages import plain
from hawse_agent.errors import Conflict, HawseError, HostRefused, InputError


def _build(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    [path] = operands(given, "build", "PATH|-")
    places = context.places()
    destination: Destination | None = given.options.get("output")
    _check(context, given, places, destination)
    work_on = contexts.context(path, given.options.get("file", ""), context.stdin)
    if work_on.once and len(places) > 1:
        raise InputError("a context from stdin is for one host", hint=f"-H matches {len(places)}")
    build = _Build(context, given, places, work_on)
    codes, code = each(context, places, build.on)
    code = worst(codes, code)
    if code or not build.ids:
        return code or 1
    identity = next(iter(build.ids.values()))
    if name := given.options.get("iidfile"):
        keep(Path(name), [identity.encode()])
    if pattern := given.options.get("send"):
        return _sent(context, places[0], given.options["tag"], pattern)
    return 0


def _check(context: Context, given: Given, places: list[Place], destination: Destination | None) -> None:
    many = len(places) > 1
    for flag in ("output", "iidfile", "send"):
        if many and flag in given.options:
            raise InputError(f"--{flag} is for a build on one host", hint=f"-H matches {len(places)}")
    if given.options.get("send") and not given.options.get("tag"):
        raise InputError("--send needs a name for the image: -t NAME")
    if destination is not None and destination.path == "-" and context.stdout.isatty():
        raise InputError("a tar is not written to a terminal", hint="redirect it, or name a file")


class _Build:
    def __init__(
        self, context: Context, given: Given, places: list[Place], work_on: contexts.Context
    ) -> None:
        self._context, self._given, self._work_on = context, given, work_on
        self._output = Output(context, [place.name for place in places])
        self._several = len(places) > 1
        self._destination: Destination | None = given.options.get("output")
        self.ids: dict[str, str] = {}
        """Of what was built, by place."""

    def on(self, place: Place) -> int:
        """Builds there; a step that fails gives its exit code, as with docker."""
        agent = self._context.at(place)
        try:
            with self._output.of(place.name) as writer:
                self.ids[place.name] = identity = self._built(agent, writer)
                if self._destination is not None:
                    self._export(agent, identity, self._destination)
        except StepFailed as error:
            refused(self._context, error, place if self._several else None)
            return error.code
        return 0

    def _built(self, agent: AgentClient, writer: HostOutput) -> str:
        given, identity = self._given, ""
        body = chain([first_line(given.options.get("secret", []))], self._work_on.pieces())
        messages = agent.messages(
            "POST",
            "/hawse/v1/build",
            query=build_query(given, self._work_on.dockerfile),
            headers={**self._context.registry_headers(), "Content-Type": "application/x-tar"},
            body=body,
        )
        unsaid: list[str] = []
        with ExitStack() as stack:
            how = self._how()
            board = stack.enter_context(self._context.console.building()) if how == "tty" else None
            # The image's files go to stdout: what is said does not.
            stream = 2 if self._destination is not None and self._destination.path == "-" else 1
            try:
                for message in messages:
                    identity = str((message.get("aux") or {}).get("ID") or identity)
                    if board is not None:
                        board.message(message)
                    elif how == "quiet":
                        unsaid.append(plain(message))
                    elif text := plain(message):
                        writer.write(stream, text.encode())
            except HawseError:
                writer.write(2, "".join(unsaid).encode())
                raise
        if how != "plain":
            text = identity if how == "quiet" else _ending(identity, given.options.get("tag", []))
            writer.write(stream, f"{text}\n".encode())
        return identity

    def _how(self) -> str:
        """plain, tty or quiet."""
        how = "quiet" if self._given.options.get("quiet") else self._given.options.get("progress", "auto")
        if how != "auto":
            if how == "tty" and (self._several or not self._context.stdout.isatty()):
                raise InputError("--progress=tty needs a terminal, and one host")
            return str(how)
        to_tar = self._destination is not None and self._destination.path == "-"
        return "tty" if self._context.stdout.isatty() and not self._several and not to_tar else "plain"

    def _export(self, agent: AgentClient, identity: str, destination: Destination) -> None:
        """The image's files; an image that has no name is not kept."""
        path = f"/hawse/v1/images/{urllib.parse.quote(identity, safe='')}/rootfs"
        with agent.open("GET", path, timeout=LONG) as response:
            if destination.path == "-":
                write(self._context, response.chunks())
            elif destination.kind == "tar":
                keep(Path(destination.path), response.chunks())
            else:
                _unpacked(response.chunks(), Path(destination.path))
        about = agent.json("GET", f"{image_path(identity)}/json")
        if not about.get("RepoTags") and not about.get("RepoDigests"):
            with contextlib.suppress(Conflict):  # somebody uses it already
                agent.request("DELETE", image_path(identity), timeout=LONG)


def _ending(identity: str, tags: list[str]) -> str:
    return "\n".join(
        [f"Successfully built {identity[7:19]}", *(f"Successfully tagged {tag}" for tag in tags)]
    )


def _unpacked(chunks: Iterator[bytes], directory: Path) -> None:
    from hawse.docker.archive import unpack
    from hawse.docker.copying import Placement

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostRefused(f"{directory}: {error.strerror}") from error
    unpack(chunks, Placement(directory=str(directory), base="."))
    for _ in chunks:  # behind the archive's end: until then the agent has the image in hand
        pass


def _sent(context: Context, place: Place, tags: list[str], pattern: str) -> int:
    """By way of here: every host gets what it lacks, and only the first way costs once."""
    from hawse.cli.image import send_to
    from hawse.images.fetch import fetch

    codes = [send_to(context, fetch(context.at(place), context.images, tag, tag), pattern) for tag in tags]
    return max(codes)


VERBS = (
    Verb(
        name="build",
        help="build an image by a Dockerfile",
        flags=BUILD,
        operands="PATH|-",
        interspersed=True,
        run=_build,
    ),
)
