"""`network ls`: networks of this machine's agent, or of the hosts that -H names."""

from __future__ import annotations

import argparse

from hawse.cli import lists
from hawse.cli.context import Context
from hawse.cli.hosts import ask
from hawse.cli.verb import Verb
from hawse.fleet.client import DOCKER
from hawse.format.listing import natural
from hawse.format.volumes import NETWORKS, network_row


def _arguments(parser: argparse.ArgumentParser) -> None:
    lists.arguments(parser, filters="name, id, driver, label, type, scope, dangling")


def _ls(context: Context, options: argparse.Namespace) -> int:
    NETWORKS.template(options.format)
    query = lists.encoded(lists.filters(options))
    places = context.places()
    found, code = ask(context, places, lambda agent: agent.json("GET", f"{DOCKER}/networks", query=query))
    if context.options.json:
        lists.show_json(context, found)
        return code
    rows = {
        name: [
            network_row(network, cut=not options.no_trunc)
            for network in sorted(networks, key=lambda network: natural(network["Name"]))
        ]
        for name, networks in found.items()
    }
    lists.show(context, NETWORKS, rows, options, several=len(places) > 1)
    return code


VERBS = (Verb(name="network ls", help="list networks of hosts", arguments=_arguments, run=_ls),)
