"""What verbs that list things have in common: --filter, --format, -q, --no-trunc, --json, several hosts."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hawse.cli.context import Context
from hawse.format.listing import Listing
from hawse.format.values import Row
from hawse_agent.errors import InputError


def arguments(
    parser: argparse.ArgumentParser, *, quiet: str = "ids only", no_trunc: bool = True, filters: str = ""
) -> None:
    """The options of a list; `filters` names those that there are."""
    if filters:
        filter_argument(parser, filters)
    format_argument(parser)
    if no_trunc:
        parser.add_argument("--no-trunc", action="store_true", help="whole ids, commands and names")
    if quiet:
        parser.add_argument("-q", "--quiet", action="store_true", help=quiet)


def filter_argument(parser: argparse.ArgumentParser, known: str, *flags: str) -> None:
    flags = flags or ("-f", "--filter")
    parser.add_argument(
        *flags,
        dest="filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"by {known}; may be repeated",
    )


def format_argument(parser: argparse.ArgumentParser, *flags: str, tables: bool = True) -> None:
    kinds = "json, table, 'table TEMPLATE'" if tables else "json"
    parser.add_argument(
        *(flags or ("--format",)),
        dest="format",
        default="",
        metavar="FORMAT",
        help=f"{kinds}, or a template of Go: '{{{{.Field}}}}'",
    )


def filters(options: argparse.Namespace) -> dict[str, list[str]]:
    """`--filter KEY=VALUE`, for the API."""
    return parsed_filters(options.filter)


def parsed_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--filter {text}: expected KEY=VALUE")
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found


def encoded(found: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Filters as a part of a query."""
    return {"filters": json.dumps(found)} if found else {}


def show(
    context: Context,
    listing: Listing,
    rows: Mapping[str, Sequence[Row]],
    options: argparse.Namespace,
    *,
    several: bool,
) -> None:
    """Prints rows, by the name of their host, as the options of `arguments` say."""
    quiet = getattr(options, "quiet", False)
    whole = getattr(options, "no_trunc", False)
    text = listing.render(
        rows, options.format, quiet=quiet, several=several, width=None if whole else terminal_width(context)
    )
    write(context, text)


def write(context: Context, text: str) -> None:
    context.stdout.write(text)


def terminal_width(context: Context) -> int | None:
    """Columns of the terminal that we write to; None when it is none."""
    return shutil.get_terminal_size().columns if context.stdout.isatty() else None


def show_json(context: Context, value: Any) -> None:
    context.print(json.dumps(value, indent=2))
