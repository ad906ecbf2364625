"""`inventory`: what hosts and groups there are, as ansible-inventory shows them. Contacts nobody."""

from __future__ import annotations

import argparse
import json

from hawse.cli.context import Context
from hawse.cli.verb import Verb


def _arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--graph", nargs="?", const="all", metavar="GROUP", help="a tree of groups and hosts (this)"
    )
    what.add_argument("--list", action="store_true", help="groups, hosts and variables, as JSON")
    what.add_argument("--host", metavar="NAME", help="the variables of one host, as JSON")
    what.add_argument("--match", metavar="PATTERN", help="the names of the hosts that a pattern means")


def _run(context: Context, options: argparse.Namespace) -> int:
    if options.list:
        context.print(json.dumps(context.inventory.list_json(), indent=4, default=str))
    elif options.host:
        context.print(json.dumps(context.inventory.host_json(options.host), indent=4, default=str))
    elif options.match:
        for host in context.hosts(options.match):
            context.print(host.name)
    else:
        context.print(context.inventory.graph_text(options.graph or "all"))
    return 0


VERBS = (Verb(name="inventory", help="show groups, hosts and variables", arguments=_arguments, run=_run),)
