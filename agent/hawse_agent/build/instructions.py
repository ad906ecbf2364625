"""What a Dockerfile says, as data: stages of instructions, each with the place where it stands.

Everything is as written: variables are not replaced (`expansion.py` does it, with what is known when an
instruction's turn comes), sources are not looked for. What can be judged without a context or an image is
judged by `parser.py`. Grammar: docs.docker.com/reference/dockerfile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Place:
    """Of an instruction's first word."""

    file: str
    line: int
    """From 1."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Heredoc:
    name: str
    content: str
    """With its final newline; tabs at the start of lines are gone already if `<<-` was written."""
    expand: bool
    """False when the name was quoted."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Of RUN, CMD, ENTRYPOINT, HEALTHCHECK."""

    words: tuple[str, ...]
    """The JSON array, or the shell form's text as the only word, without its flags, lines joined."""
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()
    """Of RUN: `words` then still has the `<<NAME` marks."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    place: Place
    text: str
    """As history and output show it: one line, comments gone, `RUN echo  hi`."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """Of `RUN --mount`; values are as written and may hold variables."""

    kind: Literal["bind", "cache", "tmpfs", "secret"]
    target: str = ""
    source: str = ""
    from_: str = ""
    """A stage or an image; empty is the context (bind) or nothing (cache)."""
    id: str = ""
    read_only: bool = False
    sharing: Literal["shared", "private", "locked"] = "shared"
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    """Bytes, of a tmpfs."""
    env: str = ""
    """Of a secret: the variable that has it."""


@dataclass(frozen=True, kw_only=True)
class Run(Instruction):
    command: Command
    mounts: tuple[Mount, ...] = ()
    network: Literal["default", "none", "host"] = "default"


@dataclass(frozen=True, kw_only=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True, kw_only=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True, kw_only=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]
    """Words as written, quotes and all, since expansion needs them."""


@dataclass(frozen=True, kw_only=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True, kw_only=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]
    """All values see the variables from before this instruction."""


@dataclass(frozen=True, kw_only=True)
class Transfer(Instruction):
    """What ADD and COPY share."""

    sources: tuple[str, ...]
    """Without heredocs."""
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    """Files by their names."""
    chown: str = ""
    chmod: str = ""
    link: bool = False


@dataclass(frozen=True, kw_only=True)
class Add(Transfer):
    checksum: str = ""
    unpack: bool | None = None
    """None: local archives are, those of URLs are not."""


@dataclass(frozen=True, kw_only=True)
class Copy(Transfer):
    from_: str = ""
    """A stage's name or number, or an image; empty is the context."""


@dataclass(frozen=True, kw_only=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, kw_only=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, kw_only=True)
class Arg(Instruction):
    pairs: tuple[tuple[str, str | None], ...]
    """None is an argument without a default."""


@dataclass(frozen=True, kw_only=True)
class Onbuild(Instruction):
    trigger: str
    """The instruction's text; it has been parsed once, so that it is known to be good."""


@dataclass(frozen=True, kw_only=True)
class Stopsignal(Instruction):
    signal: str


@dataclass(frozen=True, kw_only=True)
class Healthcheck(Instruction):
    command: Command | None
    """None is `HEALTHCHECK NONE`."""
    interval: int = 0
    """Nanoseconds, as the others; 0 is the engine's default."""
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    place: Place
    text: str
    base: str
    """An image, `scratch`, or the name of a stage before; may hold variables of `Dockerfile.arguments`."""
    name: str = ""
    """In lower case; empty when it has only its number."""
    platform: str = ""
    instructions: tuple[Instruction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    stages: tuple[Stage, ...]
    arguments: tuple[Arg, ...] = ()
    """Before the first FROM: good in FROM lines, and as defaults of an ARG without one in a stage."""
    escape: str = "\\"
    warnings: tuple[str, ...] = field(default=())
    """`Dockerfile:3: …`, of what is allowed but hardly meant."""
