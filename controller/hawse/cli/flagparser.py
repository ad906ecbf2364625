"""The parser of a verb whose flags are a table: reads as Docker's client does, helps as all verbs do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hawse.cli.verb import Parser, Verb
from hawse.docker.flags import Flag, read
from hawse_agent.errors import InputError

_HELP = Flag(name="help", short="h", help="show this")


class FlagParser(Parser):
    """`parse_args` gives a namespace with `given`, what the table made of the words."""

    def __init__(self, verb: Verb, **options: Any) -> None:
        super().__init__(add_help=False, usage=f"hawse {verb.name} [OPTIONS] {verb.operands}", **options)
        own_h = any(flag.short == "h" for flag in verb.flags)
        self._table = (*verb.flags, replace(_HELP, short="") if own_h else _HELP)
        self._interspersed = verb.interspersed
        for flag in self._table:
            if flag.refused:
                continue
            if flag.metavar:
                self.add_argument(*flag.spellings, metavar=flag.metavar, help=_literal(flag.help))
            else:
                self.add_argument(*flag.spellings, action="store_true", help=_literal(flag.help))

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        try:
            given = read(self._table, args or (), interspersed=self._interspersed)
        except InputError as error:
            error.hint = error.hint or f"{self.format_usage().strip()}\n`{self.prog} --help` says more"
            raise
        if given.options.get("help"):
            self.print_help()
            raise SystemExit(0)
        return argparse.Namespace(given=given)


def _literal(text: str) -> str:
    return text.replace("%", "%%")
