"""`stats`: what containers use, drawn again every second on a terminal until Ctrl-C."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from typing import Any

from hawse.cli import lists
from hawse.cli.context import Context, Place
from hawse.cli.hosts import each, refused, worst
from hawse.cli.verb import Verb
from hawse.fleet.client import DOCKER, AgentClient, container_path
from hawse.format.stats import STATS, Sample, stats_row
from hawse.format.values import Row
from hawse_agent.errors import Conflict, NotFound

_PERIOD = 1.0
_HOME, _END_OF_LINE, _END_OF_SCREEN, _CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="those that do not run, too")
    parser.add_argument("--no-stream", action="store_true", help="say it once")
    lists.arguments(parser, quiet="")
    parser.add_argument("containers", nargs="*", metavar="CONTAINER", help="all that run when none is named")


def _stats(context: Context, options: argparse.Namespace) -> int:
    STATS.template(options.format)
    places = context.places()
    once = options.no_stream or context.options.json
    board = _Board(context, options, places, once=once)
    several = len(places) > 1

    def watch(place: Place) -> int:
        agent = context.at(place)
        watcher = _Watcher(agent, options)
        missing = watcher.sample()
        for error in missing:
            refused(context, error, place if several else None)
        if missing and len(missing) == len(options.containers):
            board.update(place.name, {})
            return 1
        time.sleep(_PERIOD)  # the share of a CPU is of some time
        while context.holds(agent):
            watcher.sample()
            board.update(place.name, watcher.samples)
            if once:
                break
            time.sleep(_PERIOD)
        return 1 if missing else 0

    code = worst(*each(context, places, watch))
    if once:
        board.finish()
    return code


class _Watcher:
    """The last two samples of each container of one place, by the name that it was asked for by."""

    def __init__(self, agent: AgentClient, options: argparse.Namespace) -> None:
        self._agent = agent
        self._options = options
        self.samples: dict[str, tuple[Sample, Sample | None]] = {}

    def sample(self) -> list[NotFound]:
        """Takes one of each; gives the names that stand for nothing."""
        taken: dict[str, tuple[Sample, Sample | None]] = {}
        missing: list[NotFound] = []
        for name in self._options.containers or self._running():
            try:
                sample = self._one(name)
            except (NotFound, Conflict) as error:  # removed meanwhile
                if isinstance(error, NotFound) and self._options.containers:
                    missing.append(error)
                continue
            before = self.samples.get(name)
            taken[name] = (sample, before[0] if before is not None else None)
        self.samples = taken
        return missing

    def _running(self) -> list[str]:
        query = {"all": self._options.all}
        return [
            entry["Id"][:12] for entry in self._agent.json("GET", f"{DOCKER}/containers/json", query=query)
        ]

    def _one(self, name: str) -> Sample:
        query = {"stream": False, "one-shot": True}
        answer: Any = self._agent.json("GET", f"{container_path(name)}/stats", query=query)
        return dict(answer)


class _Board:
    """What is shown of all places."""

    def __init__(
        self, context: Context, options: argparse.Namespace, places: Sequence[Place], *, once: bool
    ) -> None:
        self._context = context
        self._options = options
        self._several = len(places) > 1
        self._once = once
        self._lock = threading.Lock()
        self._samples: dict[str, dict[str, tuple[Sample, Sample | None]]] = {p.name: {} for p in places}
        self._live = context.stdout.isatty() and not once
        if self._live:
            context.stdout.write(_CLEAR)

    def update(self, place: str, samples: dict[str, tuple[Sample, Sample | None]]) -> None:
        with self._lock:
            self._samples[place] = samples
            if not self._once:
                self._draw(self._text())

    def finish(self) -> None:
        if self._context.options.json:
            lists.show_json(
                self._context,
                {place: [now for now, _ in samples.values()] for place, samples in self._samples.items()},
            )
        else:
            lists.write(self._context, self._text())

    def _draw(self, text: str) -> None:
        if self._live:
            lines = "".join(f"{line}{_END_OF_LINE}\n" for line in text.splitlines())
            text = f"{_HOME}{lines}{_END_OF_SCREEN}"
        lists.write(self._context, text)
        self._context.stdout.flush()

    def _text(self) -> str:
        cut = not self._options.no_trunc
        rows: dict[str, list[Row]] = {
            place: [stats_row(name, now, before, cut=cut) for name, (now, before) in samples.items()]
            for place, samples in self._samples.items()
        }
        width = lists.terminal_width(self._context) if cut else None
        return STATS.render(rows, self._options.format, several=self._several, width=width)


VERBS = (Verb(name="stats", help="show what containers use", arguments=_arguments, run=_stats),)
