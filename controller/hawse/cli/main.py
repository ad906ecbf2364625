"""The command line: options that choose where, the verb, the verb's own options. Prints errors, and exits.

    hawse [-i INV] [-l LIMIT] [-H PATTERN] … VERB …

Only the module of the verb that is asked for is imported. `main` alone turns a HawseError into text, hint and
exit code; a traceback is shown with --debug only.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from hawse.cli.context import Context
from hawse.cli.verb import Globals, Parser, Verb, add_globals, merged
from hawse_agent.errors import HawseError, InputError, InternalError

INTERRUPTED = 130

MODULES: Mapping[str, tuple[str, ...]] = {
    "init": ("init",),
    "play": ("play", "plan"),
    "stack": ("up", "down"),
    "status": ("status", "facts"),
    "report": ("report",),
    "run": ("run", "create"),
    "attach": ("start", "attach"),
    "execute": ("exec",),
    "ps": ("ps",),
    "images": ("images", "history", "tag", "rmi"),
    "registry": ("pull", "push", "search", "login", "logout"),
    "build": ("build",),
    "archives": ("save", "load", "import", "commit"),
    "lifecycle": ("stop", "restart", "kill", "pause", "unpause", "wait", "rename", "rm"),
    "update": ("update",),
    "inspect": ("inspect",),
    "look": ("port", "top", "diff"),
    "copy": ("cp", "export"),
    "logs": ("logs",),
    "stats": ("stats",),
    "events": ("events",),
    "system": ("info", "df", "prune", "builder prune"),
    "network": ("network ls",),
    "volume": ("volume ls", "volume backup", "volume restore"),
    "image": (
        *(
            "image ls",
            "image pull",
            "image push",
            "image import",
            "image load",
            "image save",
            "image inspect",
        ),
        *("image send", "image rm", "image prune"),
    ),
    "ssh": ("ssh",),
    "host": ("host bootstrap", "host upgrade", "host doctor", "host remove"),
    "inventory": ("inventory",),
    "completion": ("completion",),
    "version": ("version",),
}
"""Module of `hawse.cli` → its verbs, in the order in which help lists them."""

NOUNS = ("builder", "network", "volume", "image", "host")

_SECRET_FLAGS = {
    False: (
        ("-e", "--extra-vars", "--env", "--build-arg"),
        r"(-e|--extra-vars=|--env=|--build-arg=)(.+)",
    ),
    True: (("-p", "--password"), r"(-p|--password=)(.+)"),
}
"""Of other verbs, and of login: flags whose values may be secrets."""

PROLOGUE = "Provisions the hosts of a fleet and runs containers on them, over SSH."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = False
    try:
        if not words:
            top_parser().print_help()
            return 2
        first = top_parser().parse_args(words)
        debug = merged(Globals(), first).debug
        return _run(first)
    except SystemExit as done:  # --help
        return int(done.code or 0)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing more is said, not even by the interpreter's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except KeyboardInterrupt:
        if debug:
            raise
        print("hawse: interrupted", file=sys.stderr)
        return INTERRUPTED
    except HawseError as error:
        if debug:
            raise
        report(error)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        hint = "this is a bug of hawse; `hawse --debug …` shows where it happened"
        bug = InternalError(f"{type(error).__name__}: {error}", hint=hint)
        report(bug)
        return bug.exit_code


def report(error: HawseError, stream: IO[str] | None = None) -> None:
    """One line of what and where, then what to do about it."""
    stream = stream or sys.stderr
    sys.stdout.flush()
    print(f"hawse: {error.message}", file=stream)
    for line in error.hint.splitlines():
        print(f"  {line}", file=stream)


def _run(first: argparse.Namespace) -> int:
    verb, rest = _find(first.verb, first.rest)
    try:
        namespace = verb_parser(verb).parse_args(rest)
        options = merged(merged(Globals(), first), namespace)
        with Context(options, command=shown_command(first.verb, first.rest)) as context:
            code = verb.run(context, namespace)
            context.stdout.flush()
        return code
    except HawseError as error:
        if merged(Globals(), first).debug:
            raise
        report(error)
        return verb.exit_code(error)


def top_parser() -> Parser:
    return _TopParser()


class _TopParser(Parser):
    """Everything up to the verb. The list of verbs is made for --help only: it imports all modules."""

    def __init__(self) -> None:
        super().__init__(
            prog="hawse",
            usage="hawse [OPTIONS] VERB …",
            epilog="`hawse VERB --help` shows the options of a verb.",
        )
        self.add_argument("verb", metavar="VERB", help=argparse.SUPPRESS)
        self.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        add_globals(self)

    def format_help(self) -> str:
        lines = [f"  {verb.name:16} {verb.help}" for verb in all_verbs()]
        self.description = "\n".join((PROLOGUE, "", *lines))
        return super().format_help()


def verb_parser(verb: Verb) -> Parser:
    about = {"prog": f"hawse {verb.name}", "description": f"{verb.help[0].upper()}{verb.help[1:]}."}
    if verb.flags:
        from hawse.cli.flagparser import FlagParser

        return FlagParser(verb, **about)
    parser = Parser(**about)
    verb.arguments(parser)
    if verb.also:
        add_globals(parser, verb.also)
    return parser


def verbs(module: str) -> tuple[Verb, ...]:
    found: tuple[Verb, ...] = importlib.import_module(f"hawse.cli.{module}").VERBS
    return found


def all_verbs() -> list[Verb]:
    return [verb for module in MODULES for verb in verbs(module)]


def shown_command(verb: str, rest: Iterable[str]) -> str:
    """The verb and its arguments as the history keeps them: values of -e and the like may be secrets."""
    flags, joined = _SECRET_FLAGS[verb == "login"]
    shown: list[str] = [verb]
    for word in rest:
        if shown[-1] in flags:
            shown.append(_hidden(word))
        elif match := re.fullmatch(joined, word, re.DOTALL):
            shown.append(match[1] + _hidden(match[2]))
        else:
            shown.append(word)
    return shlex.join(shown)


def _hidden(value: str) -> str:
    if value.startswith("@"):
        return value
    name, equals, _ = value.partition("=")
    return f"{name}=…" if equals and name.isidentifier() else "…"


def _find(name: str, rest: list[str]) -> tuple[Verb, list[str]]:
    if name in NOUNS:
        names = [verb for verbs in MODULES.values() for verb in verbs if verb.startswith(f"{name} ")]
        if rest and rest[0] in ("-h", "--help"):
            lines = [f"  hawse {verb.name:18} {verb.help}" for verb in verbs(name)]
            print("\n".join((f"usage: hawse {name} VERB …", "", *lines)))
            raise SystemExit(0)
        if not rest:
            raise InputError(f"hawse {name} what?", hint=f"one of: {', '.join(names)}")
        name, rest = f"{name} {rest[0]}", rest[1:]
    for module, known in MODULES.items():
        if name in known:
            return next(verb for verb in verbs(module) if verb.name == name), rest
    raise _unknown(name)


def _unknown(name: str) -> InputError:
    import difflib

    known = [verb for verbs in MODULES.values() for verb in verbs]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `hawse {close[0]}`?" if close else "`hawse --help` lists the verbs"
    return InputError(f"no such verb: {name}", hint=hint)
