"""What a verb is, and the options that choose where it works. Cheap to import: every command pays for it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hawse_agent.errors import HawseError, InputError

if TYPE_CHECKING:
    from hawse.cli.context import Context
    from hawse.docker.flags import Flag


@dataclass(frozen=True, kw_only=True)
class Globals:
    """Options that stand before the verb."""

    inventory: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    hosts: str = ""
    extra_vars: tuple[str, ...] = ()
    forks: int | None = None
    become: bool = False
    ask_become_pass: bool = False
    ask_pass: bool = False
    user: str = ""
    private_key: Path | None = None
    timeout: float | None = None
    json: bool = False
    debug: bool = False
    verbose: int = 0
    no_color: bool = False
    project: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Verb:
    """`hawse NAME …`; a name of two words is a noun with its verb: `volume backup`."""

    name: str
    help: str
    run: Callable[[Context, argparse.Namespace], int]
    """Does it, and returns the exit code. Raises HawseError."""
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    also: tuple[str, ...] = ()
    """Global options that may stand after this verb as well, by their names in `Globals`."""
    flags: tuple[Flag, ...] = ()
    """Docker's, as a table: then the namespace has `given`, and `arguments` is not asked."""
    operands: str = ""
    """What follows such flags, for the help."""
    interspersed: bool = False
    """Whether such flags may stand among the operands."""
    exit_code: Callable[[HawseError], int] = lambda error: error.exit_code
    """Of a failure; Docker's verbs have codes of their own."""


class Parser(argparse.ArgumentParser):
    """Raises InputError where argparse would exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options may stand among the operands; those of a command that ends the line are its own."""
        if any(action.nargs == argparse.REMAINDER for action in self._actions):
            return super().parse_args(args, namespace)
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(message, hint=f"{self.format_usage().strip()}\n`{self.prog} --help` says more")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 up")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 86400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return number


_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "inventory": (
        ("-i", "--inventory"),
        {"action": "append", "metavar": "INV", "help": "inventory file or directory, or a list: web1,web2"},
    ),
    "limit": (
        ("-l", "--limit"),
        {"action": "append", "metavar": "PATTERN", "help": "only the hosts that this matches as well"},
    ),
    "hosts": (
        ("-H", "--hosts"),
        {"metavar": "PATTERN", "help": "hosts whose agents are asked; without it, this machine's"},
    ),
    "extra_vars": (
        ("-e", "--extra-vars"),
        {"action": "append", "metavar": "VARS", "help": "key=value, a JSON object or @file; wins over all"},
    ),
    "forks": (
        ("-f", "--forks"),
        {"type": positive, "metavar": "N", "help": "hosts at work at a time (32)"},
    ),
    "user": (("-u", "--user"), {"metavar": "NAME", "help": "login user where the inventory names none"}),
    "private_key": (
        ("--private-key",),
        {"type": Path, "metavar": "FILE", "help": "key to log in with where the inventory names none"},
    ),
    "ask_pass": (("-k", "--ask-pass"), {"action": "store_true", "help": "ask for the login password"}),
    "become": (("-b", "--become"), {"action": "store_true", "help": "run tasks and commands as root"}),
    "ask_become_pass": (
        ("-K", "--ask-become-pass"),
        {"action": "store_true", "help": "ask for the password that sudo wants"},
    ),
    "timeout": (("--timeout",), {"type": seconds, "metavar": "S", "help": "seconds to connect in (10)"}),
    "project": (
        ("--project",),
        {"type": Path, "metavar": "DIR", "help": "folder of hawse.toml; else found from here upwards"},
    ),
    "json": (("--json",), {"action": "store_true", "help": "JSON instead of tables"}),
    "verbose": (("-v", "--verbose"), {"action": "count", "help": "say more; twice: even more"}),
    "no_color": (("--no-color",), {"action": "store_true", "help": "plain text on a terminal, too"}),
    "debug": (("--debug",), {"action": "store_true", "help": "show tracebacks"}),
}


def add_globals(parser: argparse.ArgumentParser, names: tuple[str, ...] = tuple(_OPTIONS)) -> None:
    """Adds global options; those that are not given leave no trace in the namespace."""
    group = parser.add_argument_group("where, and how to get there")
    for name in names:
        flags, options = _OPTIONS[name]
        group.add_argument(*flags, dest=f"global_{name}", default=argparse.SUPPRESS, **options)


def merged(given: Globals, namespace: argparse.Namespace) -> Globals:
    """What stands in the namespace over what was given before: lists grow, the rest is replaced."""
    changes: dict[str, Any] = {}
    for field in fields(Globals):
        value = getattr(namespace, f"global_{field.name}", None)
        if value is None:
            continue
        changes[field.name] = (*getattr(given, field.name), *value) if isinstance(value, list) else value
    return replace(given, **changes)
