"""`exec`: the table of its flags, and the request body that they add up to."""

from __future__ import annotations

from typing import Any

from hawse.docker import values
from hawse.docker.createflags import DETACH_KEYS, INTERACTIVE
from hawse.docker.flags import Flag, Given
from hawse_agent.errors import InputError

EXEC = (
    Flag(name="detach", short="d", help="leave it running, and do not wait for it"),
    INTERACTIVE,
    Flag(name="tty", short="t", into="Tty", help="give it a terminal"),
    Flag(
        name="env-file",
        metavar="FILE",
        into="Env",
        parse=values.environment_file,
        help="variables, one a line",
    ),
    Flag(
        name="env", short="e", metavar="NAME=VALUE", into="Env", parse=values.environment, help="a variable"
    ),
    Flag(name="user", short="u", metavar="USER[:GROUP]", into="User", help="by name or number"),
    Flag(name="workdir", short="w", metavar="DIR", into="WorkingDir", help="where the process starts"),
    Flag(name="privileged", into="Privileged", help="all capabilities"),
    DETACH_KEYS,
)


def exec_body(given: Given) -> dict[str, Any]:
    """What is sent to make it; the container is the first operand."""
    _, *command = given.operands or [""]
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        raise InputError("exec: no command", hint="hawse exec [OPTIONS] CONTAINER COMMAND …")
    attached = not given.options.get("detach")
    keys = given.options.get("detach-keys")
    return {
        "Cmd": command,
        "Detach": not attached,
        "AttachStdin": attached and bool(given.options.get("interactive")),
        "AttachStdout": attached,
        "AttachStderr": attached,
        **({"DetachKeys": keys} if keys else {}),
        **given.body,
    }
