"""Images under way on a terminal: what `report.messages` has, redrawn.

One host is shown layer by layer, several with a line for each host.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.text import Text

from hawse.format.units import human_size
from hawse.report.messages import Message, detail, plain
from hawse.report.text import printable

_OVER = ("Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from", "Extracted")
_BAR = 50


@dataclass(kw_only=True)
class _Layer:
    status: str = ""
    current: int = 0
    total: int = 0


@dataclass(kw_only=True)
class _Host:
    layers: dict[str, _Layer] = field(default_factory=dict)
    word: str = "waiting"


class Board:
    """Redraws a terminal's last lines. Safe for the threads of several hosts."""

    def __init__(self, terminal: Terminal, hosts: Sequence[str]) -> None:
        self._terminal = terminal
        self._hosts = {host: _Host() for host in hosts}
        self._several = len(hosts) > 1
        self._width = max(map(len, hosts), default=0)
        self._lock = threading.Lock()
        self._live = ExitStack()

    def message(self, host: str, message: Message) -> None:
        with self._lock:
            state = self._hosts[host]
            if message.get("id") and "status" in message:
                self._begin()
                current, total = detail(message)
                status = printable(str(message["status"]))
                before = state.layers.get(str(message["id"]))
                if not total and before is not None and before.total:
                    current = total = before.total
                state.layers[str(message["id"])] = _Layer(status=status, current=current, total=total)
                return
            text = plain(message)
            if not text:
                return
            if self._several:
                state.word = printable(text.strip())
                for line in text.splitlines():
                    self._terminal.print(Text(f"{host:{self._width}} | {printable(line)}"))
            else:
                self.rest()
                self._terminal.print(Text(_lines(text)), end="")

    def over(self, host: str) -> None:
        """Nothing more comes from this host."""
        with self._lock:
            if self._several:
                del self._hosts[host]

    def rest(self) -> None:
        """What is shown stays; what follows is shown below it."""
        self._live.close()
        for state in self._hosts.values():
            state.layers.clear()

    def _begin(self) -> None:
        if any(state.layers for state in self._hosts.values()):
            return
        live = Live(
            get_renderable=self.render,
            console=self._terminal,
            refresh_per_second=8,
            transient=self._several,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.enter_context(live)

    def render(self) -> Group:
        lines: list[Text] = []
        for host, state in list(self._hosts.items()):
            if self._several:
                lines.append(Text(f"{host:{self._width}} | {_summary(state)}"))
            else:
                lines += [Text(_row(name, layer)) for name, layer in list(state.layers.items())]
        return Group(*lines)


@contextmanager
def board(terminal: Terminal, hosts: Sequence[str]) -> Iterator[Board | None]:
    """None where nothing can be redrawn."""
    if not terminal.is_terminal:
        yield None
        return
    shown = Board(terminal, hosts)
    try:
        yield shown
    finally:
        shown.rest()


def _row(name: str, layer: _Layer) -> str:
    if not layer.total or layer.status.startswith(_OVER):
        return f"{name}: {layer.status}"
    done = min(_BAR, _BAR * layer.current // layer.total)
    bar = "=" * done + (">" if done < _BAR else "") + " " * (_BAR - done - 1)
    return f"{name}: {layer.status} [{bar}] {human_size(layer.current)}/{human_size(layer.total)}"


def _summary(state: _Host) -> str:
    if not state.layers:
        return state.word
    over = sum(layer.status.startswith(_OVER) for layer in state.layers.values())
    current = sum(layer.current for layer in state.layers.values())
    return f"{over} of {len(state.layers)} layers  {human_size(current)}"


def _lines(text: str) -> str:
    """Line ends stay; nothing else may steer the terminal."""
    return "\n".join(printable(line) for line in text.split("\n"))
