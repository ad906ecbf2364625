"""An exec in Docker's JSON. Pure."""

from __future__ import annotations

from typing import Any

from hawse_agent.engine.views import ExecView


def execution(view: ExecView) -> dict[str, Any]:
    return {
        "ID": view.id,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "ProcessConfig": {
            "tty": view.tty,
            "entrypoint": view.argv[0],
            "arguments": list(view.argv[1:]),
            "privileged": view.privileged,
            **({"user": view.user} if view.user else {}),
        },
        "OpenStdin": view.stdin,
        "OpenStderr": view.stderr,
        "OpenStdout": view.stdout,
        "CanRemove": False,
        "ContainerID": view.container,
        "DetachKeys": view.detach_keys,
        "Pid": view.pid,
    }
