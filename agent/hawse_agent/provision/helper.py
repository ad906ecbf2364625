"""Runs a module as another user: in a process of that user, since a threaded daemon must not fork and go on.

The request goes in by stdin, JSON lines come back: `{"tell": …}`, and last `{"result": …}` or an error.
Nothing is in argv, where others could read it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hawse_agent import launch
from hawse_agent.errors import HawseError, InternalError, from_wire
from hawse_agent.provision.users import User, environment


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def call(user: User, request: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Raises what the module raised."""
    with subprocess.Popen(
        launch.command("task"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(user, {}),
        cwd="/",
        user=user.uid,
        group=user.gid,
        extra_groups=user.groups,
        umask=0o022,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: what follows says so
        for line in process.stdout:
            message = json.loads(line)
            if "tell" in message:
                tell(message["tell"])
            elif "error" in message:
                raise from_wire(message["error"])
            else:
                return dict(message["result"])
    raise InternalError(f"the task's process as {user.name} ended without an answer ({process.returncode})")


def main() -> int:
    """`hawse-agent task`: the other end. Standard output is ours alone: what modules print goes to stderr."""
    from hawse_agent.provision import MODULES, Context
    from hawse_agent.spec import codec

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    request = json.loads(sys.stdin.buffer.read())
    module = MODULES[request["module"]]
    context = Context(
        login_user=request["user"], environment=request["environment"], no_log=request["no_log"]
    )
    try:
        if request["action"] == "plan":
            result = codec.to_json(module.plan(request["args"], context))
            say({"result": {"changed": False, **result}})
        else:
            say({"result": module.apply(request["args"], context, lambda line: say({"tell": line}))})
    except HawseError as error:
        say({"error": error.to_wire()})
    except OSError as error:
        say({"error": InternalError(str(error)).to_wire()})
    return 0
