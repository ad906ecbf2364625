"""`create` and `run`: containers by Docker's flags, on this machine or on the hosts that -H names."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hawse.cli import terminal
from hawse.cli.attached import Attachment, Streams
from hawse.cli.context import Context, Place
from hawse.cli.hosts import Output, alone, each, worst
from hawse.cli.registry import authorization
from hawse.cli.session import Signals, check_terminal
from hawse.cli.verb import Verb
from hawse.docker.create import create_body
from hawse.docker.createflags import CREATE, RUN
from hawse.docker.flags import Given
from hawse.docker.images import split
from hawse.fleet.client import AgentClient
from hawse.report.messages import plain
from hawse_agent.errors import HawseError, InputError, NotFound, StartFailed
from hawse_agent.spec import detach

ENGINE = 125
"""Docker's exit code for what keeps a container from running."""

Json = dict[str, Any]


def _run(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    body = create_body(given)
    detach.parse(given.options.get("detach-keys", ""))
    detached = bool(given.options.get("detach"))
    if detached:
        if "attach" in given.options:
            raise InputError("conflicting options: cannot specify both --attach and --detach")
        body |= {"AttachStdin": False, "AttachStdout": False, "AttachStderr": False, "StdinOnce": False}
    places = context.places()
    if len(places) > 1 and not detached and (body["AttachStdin"] or body.get("Tty")):
        raise InputError("-i and -t are for one host", hint=f"-H matches {len(places)}; -d runs on each")
    check_terminal(context, tty=body.get("Tty", False), stdin=body["AttachStdin"])
    output = Output(context, [place.name for place in places])
    with Signals(proxied=not detached and given.options.get("sig-proxy", True)) as signals:

        def run(place: Place) -> int:
            agent = context.at(place)
            with output.of(place.name) as writer, _identity_file(given, places) as keep:
                identity = keep(_create(context, agent, given, body))
                if not body["AttachStdout"] and not body["AttachStderr"]:
                    writer.write(1, f"{identity}\n".encode())
                if detached:
                    agent.start_container(identity)
                    return 0
                attachment = Attachment(
                    context=context,
                    agent=agent,
                    identity=identity,
                    streams=_streams(body, given),
                    writer=writer,
                    signals=signals,
                )
                return attachment.start(removes=body["HostConfig"].get("AutoRemove", False))

        if len(places) == 1 and not detached:
            return alone(places[0], run)
        codes, code = each(context, places, run)
        return worst(codes, ENGINE if code else 0)


def _streams(body: Json, given: Given) -> Streams:
    return Streams(
        tty=body.get("Tty", False),
        stdin=body["AttachStdin"],
        stdout=body["AttachStdout"],
        stderr=body["AttachStderr"],
        detach_keys=given.options.get("detach-keys", ""),
    )


def _create_only(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    body = create_body(given)
    places = context.places()
    output = Output(context, [place.name for place in places])

    def create(place: Place) -> int:
        with output.of(place.name) as writer, _identity_file(given, places) as keep:
            writer.write(1, f"{keep(_create(context, context.at(place), given, body))}\n".encode())
        return 0

    return worst(*each(context, places, create))


def _create(context: Context, agent: AgentClient, given: Given, body: Json) -> str:
    """Its id; the image is fetched first where --pull says so."""
    image, policy = body["Image"], given.options.get("pull", "missing")
    platform = given.options.get("platform", "")
    if body.get("Tty"):
        body["HostConfig"]["ConsoleSize"] = terminal.size()

    def create() -> Json:
        return agent.create_container(body, name=given.options.get("name", ""), platform=platform)

    if policy == "always":
        _pull(context, agent, image, platform, quiet=given.options.get("quiet", False))
    try:
        answer = create()
    except NotFound as error:
        if policy != "missing" or not error.message.startswith("No such image"):
            raise
        context.warn(f"Unable to find image '{image}' locally")
        _pull(context, agent, image, platform, quiet=given.options.get("quiet", False))
        answer = create()
    for warning in answer.get("Warnings") or ():
        context.warn(f"WARNING: {warning}")
    return str(answer["Id"])


def _pull(context: Context, agent: AgentClient, image: str, platform: str, *, quiet: bool) -> None:
    """Each step once, on stderr; how many bytes it has come is left out."""
    repository, tag = split(image)
    headers = authorization(context, image)
    for line in agent.pull_image(repository, tag or "latest", platform=platform, headers=headers):
        if not quiet and (text := plain(line)):
            context.warn(text.rstrip("\n"))


@contextlib.contextmanager
def _identity_file(given: Given, places: list[Place]) -> Iterator[Any]:
    """--cidfile: gives what writes an id there, and the id back. Another one's file is left alone."""
    name = given.body.get("HostConfig", {}).get("ContainerIDFile", "")
    if not name:
        yield lambda identity: identity
        return
    if len(places) > 1:
        raise InputError("--cidfile is for one host", hint=f"-H matches {len(places)}")
    path = Path(name)
    try:
        file = path.open("x")
    except FileExistsError:
        raise InputError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    except OSError as error:
        raise InputError(f"--cidfile {path}: {error.strerror}") from error
    written = False

    def keep(identity: str) -> str:
        nonlocal written
        file.write(identity)
        file.flush()
        written = True
        return identity

    try:
        yield keep
    finally:
        file.close()
        if not written:
            path.unlink(missing_ok=True)


def _run_code(error: HawseError) -> int:
    return error.container_exit if isinstance(error, StartFailed) else ENGINE


def _create_code(error: HawseError) -> int:
    return ENGINE if isinstance(error, InputError) else error.exit_code


VERBS = (
    Verb(
        name="run",
        help="create a container and start it",
        flags=RUN,
        operands="IMAGE [COMMAND …]",
        run=_run,
        exit_code=_run_code,
    ),
    Verb(
        name="create",
        help="create a container",
        flags=CREATE,
        operands="IMAGE [COMMAND …]",
        run=_create_only,
        exit_code=_create_code,
    ),
)
