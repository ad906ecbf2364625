"""A build on a terminal: the steps that are over, and what the one at work says.

[1/3] FROM debian:12                       cached
[2/3] RUN make                             1.2 s
[3/3] COPY --from=0 /a /a
      the last lines of what it says
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.text import Text

from hawse.report.messages import Message
from hawse.report.text import printable

_TAIL = 6
_OWN = re.compile(r"(Step \d+/\d+ : | ---> |Successfully (built|tagged) |Removing intermediate container )")
"""What the builder says of its steps itself."""


class BuildBoard:
    """One build's."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._current = ""
        self._said: list[str] = []
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._pulls: dict[str, str] = {}

    def message(self, message: Message) -> None:
        if step := message.get("step"):
            self._step(step)
        elif "stream" in message:
            for line in str(message["stream"]).splitlines():
                if not _OWN.match(line):
                    self._said.append(line)
                    self._tail.append(line)
        elif message.get("id") and message.get("status"):
            self._pulls[str(message["id"])] = str(message["status"])
        elif message.get("status"):
            self._tail.append(str(message["status"]))

    def _step(self, step: Message) -> None:
        head = f"[{step['number']}/{step['of']}] {printable(str(step['text']))}"
        if step["state"] == "started":
            self._current, self._said = head, []
            self._tail.clear()
            self._pulls.clear()
            return
        self._current = ""
        how = {"done": f"{step.get('seconds', 0.0):.1f} s", "cached": "cached"}.get(str(step["state"]), "")
        self._terminal.print(Text.assemble(head, "  ", (how or "failed", "dim" if how else "bold red")))
        if not how:
            for line in self._said:
                self._terminal.print(Text(f"      {printable(line)}"))
        self._tail.clear()
        self._pulls.clear()

    def render(self) -> Group:
        lines = [Text(self._current)] if self._current else []
        lines += [
            Text(f"      {name}: {status}", style="dim")
            for name, status in list(self._pulls.items())[-_TAIL:]
        ]
        lines += [Text(f"      {printable(line)}", style="dim") for line in list(self._tail)]
        return Group(*lines)


@contextmanager
def board(terminal: Terminal) -> Iterator[BuildBoard]:
    shown = BuildBoard(terminal)
    with Live(
        get_renderable=shown.render,
        console=terminal,
        refresh_per_second=8,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield shown
