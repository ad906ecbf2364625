"""Does one thing at every place and says what came of it: errors as they happen, the worst exit code.

A single place fails as the command itself; of several, each failure is said on stderr and the others go on.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, TypeVar

from hawse.cli.context import Context, Place
from hawse.fleet import pool
from hawse_agent.errors import HawseError, InputError, InternalError, ProtocolError, Unreachable

if TYPE_CHECKING:
    from hawse.fleet.client import AgentClient

R = TypeVar("R")

Act = Callable[["AgentClient", str], str | None]
"""Does one thing to what a name stands for; gives what to print about it."""
_Attempt = tuple[str | None, HawseError | None]


def each(context: Context, places: Sequence[Place], work: Callable[[Place], R]) -> tuple[dict[str, R], int]:
    """What `work` returned, by name of the place, and the exit code: 130 after Ctrl-C, else the worst."""
    single = len(places) == 1

    def done(outcome: pool.Outcome[Place, R]) -> None:
        error = outcome.error
        if error is None or outcome.status == "interrupted":
            return
        if context.options.debug:
            context.warn("".join(traceback.format_exception(error)).rstrip())
        if not single:
            name = outcome.host.name
            context.warn("\n  ".join([error.at(name).message, *error.hint.splitlines()]))

    outcomes = pool.run(
        places, work, forks=context.forks, cancel=lambda place: context.cut(place.name), done=done
    )
    for outcome in outcomes.hosts:
        cause = outcome.error.__cause__ if isinstance(outcome.error, InternalError) else None
        if isinstance(cause, BrokenPipeError):  # whoever reads our output has gone: `| head`
            raise cause
    if outcomes.interrupted:
        _say_how_far(context, outcomes)
    elif single and (error := outcomes.hosts[0].error) is not None:
        raise error if places[0].host is None else error.at(places[0].name)
    values = {
        outcome.host.name: outcome.value
        for outcome in outcomes.hosts
        if outcome.status == "ok" and outcome.value is not None
    }
    return values, outcomes.exit_code


def alone(place: Place, work: Callable[[Place], R]) -> R:
    """`work` in this thread, which the terminal's signals come to; a failure names the host."""
    try:
        return work(place)
    except HawseError as error:
        if place.host is None:
            raise
        raise error.at(place.name) from error


def ask(
    context: Context, places: Sequence[Place], question: Callable[[AgentClient], R]
) -> tuple[dict[str, R], int]:
    """`each`, with a client of the agent there."""
    return each(context, places, lambda place: question(context.at(place)))


def every(
    context: Context,
    names: Sequence[str],
    act: Act,
    *,
    at_once: int = 1,
    places: Sequence[Place] | None = None,
) -> int:
    """Does `act` to each of `names` at each place, `at_once` of them at a time, and prints what it returns.

    What an agent refuses is said, and the others go on: then the exit code is 1, as docker's.
    """
    places = context.places()
    output = Output(context, [place.name for place in places])

    def work(place: Place) -> int:
        agent, code = context.at(place), 0
        with output.of(place.name) as writer:
            for said, error in _attempts(agent, names, act, min(at_once, len(names))):
                if error is not None:
                    refused(context, error, place if len(places) > 1 else None)
                    code = 1
                elif said is not None:
                    writer.write(1, f"{said}\n".encode())
        return code

    return worst(*each(context, places, work))


def _attempts(agent: AgentClient, names: Sequence[str], act: Act, at_once: int) -> Iterator[_Attempt]:
    """In the order of the names."""

    def one(name: str) -> _Attempt:
        with agent.second() as channel:
            return _attempt(channel, name, act)

    if at_once <= 1:
        for name in names:
            yield _attempt(agent, name, act)
        return
    for outcome in pool.run(names, one, forks=at_once).hosts:
        if outcome.error is not None:
            raise outcome.error
        if outcome.value is not None:
            yield outcome.value


def _attempt(agent: AgentClient, name: str, act: Act) -> _Attempt:
    """What came of it; what keeps us from asking for anything more is raised."""
    try:
        if not name.strip("/"):
            raise InputError("the name of a container cannot be empty")
        return act(agent, name), None
    except (Unreachable, ProtocolError):
        raise
    except HawseError as error:
        return None, error


def refused(context: Context, error: HawseError, place: Place | None) -> None:
    """Says what an agent has refused; `place` where there are several."""
    head = f"hawse: {error.message}" if place is None else error.at(place.name).message
    context.warn("\n  ".join([head, *error.hint.splitlines()]))


def worst(codes: dict[str, int], code: int) -> int:
    """The exit code of commands that ran on hosts, and of what kept them from running."""
    return max((code, *codes.values()))


def _say_how_far(context: Context, outcomes: pool.Outcomes[Place, R]) -> None:
    if len(outcomes.hosts) == 1:
        context.warn("hawse: interrupted")
        return
    parts = []
    for status, word in (
        ("ok", "done on"),
        ("failed", "failed on"),
        ("interrupted", "cut off on"),
        ("not started", "not begun on"),
    ):
        names = [outcome.host.name for outcome in outcomes.hosts if outcome.status == status]
        if names:
            parts.append(f"{word} {', '.join(names)}")
    context.warn(f"hawse: interrupted: {'; '.join(parts)}")


class Output:
    """Writes what containers and commands say: as it is from one place, in whole lines with a prefix from
    several.
    """

    def __init__(self, context: Context, names: Sequence[str]) -> None:
        self._streams: dict[int, IO[bytes]] = {1: context.stdout.buffer, 2: context.stderr.buffer}
        self._lock = threading.Lock()
        self._width = max(map(len, names), default=0) if len(names) > 1 else 0
        context.stdout.flush()
        context.stderr.flush()

    def of(self, name: str) -> HostOutput:
        prefix = f"{name:{self._width}} | ".encode() if self._width else b""
        return HostOutput(self, prefix)

    def write(self, stream: int, data: bytes) -> None:
        with self._lock:
            self._streams[stream].write(data)
            self._streams[stream].flush()


class HostOutput:
    """One place's. Use it in a `with` block: what is left of a last line appears at its end."""

    def __init__(self, output: Output, prefix: bytes) -> None:
        self._output = output
        self._prefix = prefix
        self._rest: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def write(self, stream: int, data: bytes) -> None:
        """`stream` is 1 for stdout, 2 for stderr."""
        if not self._prefix:
            self._output.write(stream, data)
            return
        with self._lock:
            *lines, self._rest[stream] = (self._rest.get(stream, b"") + data).split(b"\n")
        if lines:
            self._output.write(stream, b"".join(self._prefix + line + b"\n" for line in lines))

    def __enter__(self) -> HostOutput:
        return self

    def __exit__(self, *_: object) -> None:
        for stream, rest in self._rest.items():
            if rest:
                self._output.write(stream, self._prefix + rest + b"\n")
        self._rest.clear()
