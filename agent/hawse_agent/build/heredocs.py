"""What a shell is given of a RUN in shell form, its heredocs put where they belong.

RUN <<EOF               the content is the script; with `#!` in front it is a program
RUN python3 <<EOF       the shell's own heredoc: the line, the content and the mark as they stand
"""

from __future__ import annotations

from dataclasses import dataclass

from hawse_agent.build.instructions import Command
from hawse_agent.build.words import heredoc_mark


@dataclass(frozen=True, kw_only=True)
class Script:
    text: str
    program: bool = False
    """To be executed as a file that has this text, instead of being the shell's argument."""


def script_of(command: Command) -> Script:
    """`command` has the shell form."""
    (line,) = command.words
    if not command.heredocs:
        return Script(text=line)
    first = command.heredocs[0]
    if heredoc_mark(line) is not None:
        return Script(text=first.content, program=first.content.startswith("#!"))
    return Script(text="\n".join([line, *(f"{one.content}{one.name}" for one in command.heredocs)]))
