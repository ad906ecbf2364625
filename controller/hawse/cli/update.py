"""`update`: other limits and another restart policy for containers, also while they run."""

from __future__ import annotations

import argparse

from hawse.cli.context import Context
from hawse.cli.hosts import every
from hawse.cli.verb import Verb
from hawse.docker import values
from hawse.docker.createflags import LIMITS
from hawse.docker.flags import Flag, Given
from hawse.fleet.client import AgentClient, container_path
from hawse_agent.errors import InputError

_REFUSED = tuple(
    Flag(name=name, metavar="VALUE", refused=True)
    for name in ("blkio-weight", "cpu-rt-period", "cpu-rt-runtime", "kernel-memory")
)
FLAGS = (
    *LIMITS,
    Flag(
        name="restart",
        metavar="POLICY",
        into="HostConfig.RestartPolicy",
        parse=values.restart,
        help="no, always, unless-stopped, on-failure[:N]",
    ),
    *_REFUSED,
)


def _update(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    if not given.operands:
        raise InputError("which container?", hint="hawse update [OPTIONS] CONTAINER …")
    if not given.names:
        raise InputError("you must provide one or more flags when using this command")
    body = given.body["HostConfig"]

    def update(agent: AgentClient, name: str) -> str:
        answer = agent.json("POST", f"{container_path(name)}/update", data=body)
        for warning in (answer or {}).get("Warnings") or ():
            context.warn(f"{name}: {warning}")
        return name

    return every(context, given.operands, update)


VERBS = (
    Verb(
        name="update",
        help="change limits and restart policies of containers",
        flags=FLAGS,
        operands="CONTAINER...",
        interspersed=True,
        run=_update,
    ),
)
