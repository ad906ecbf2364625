"""`/exec`: further processes in a running container."""

from __future__ import annotations

import socket

from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.lowering.container import variables
from hawse_agent.api.docker.views.executions import execution
from hawse_agent.api.http import Hijack, Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import InputError
from hawse_agent.supervise.client import AttachOptions


def routes(router: Router, engine: Engine) -> None:
    executions = engine.executions

    def create(request: Request) -> Response:
        fields = Fields(request.body.json(), "")
        fields.ignore(
            {
                "Container": "docker-py repeats the path here",
                "Detach": "said again at the start",
            }
        )
        environment, unset = variables(fields.texts("Env"))
        height, width = _size(fields)
        exec_id = executions.create(
            request.params["id"],
            fields.texts("Cmd"),
            env=environment,
            unset=unset,
            user=fields.text("User"),
            cwd=fields.text("WorkingDir"),
            tty=fields.flag("Tty"),
            attach=AttachOptions(
                stdin=fields.flag("AttachStdin"),
                stdout=fields.flag("AttachStdout"),
                stderr=fields.flag("AttachStderr"),
                detach_keys=fields.text("DetachKeys"),
            ),
            privileged=fields.flag("Privileged"),
            console=(height, width),
        )
        fields.rest()
        return Response(status=201, json={"Id": exec_id})

    def start(request: Request) -> Response | Hijack:
        fields = Fields(request.body.json(), "")
        detached = fields.flag("Detach")
        terminal = fields.flag("Tty") if fields.given("Tty") else None
        fields.ignore({"ConsoleSize": "decided when it was created"})
        fields.rest()
        exec_id = request.params["id"]
        view = executions.inspect(exec_id)
        raw = view.tty if terminal is None else terminal
        if detached:
            executions.start(exec_id, None)
            return Response()

        executions.check_startable(exec_id)

        def run(client: socket.socket, head: bytes) -> bool:
            executions.start(exec_id, client, head, framed=None if raw == view.tty else not raw)
            return True

        return Hijack(run=run, tty=raw)

    def inspect(request: Request) -> Response:
        return Response(json=execution(executions.inspect(request.params["id"])))

    def resize(request: Request) -> Response:
        height, width = request.query.number("h"), request.query.number("w")
        if not height or not width:
            raise InputError("h and w: expected numbers")
        executions.resize(request.params["id"], int(height), int(width))
        return Response(status=201)

    router.add("POST", "/containers/{id}/exec", create)
    router.add("POST", "/exec/{id}/start", start)
    router.add("GET", "/exec/{id}/json", inspect)
    router.add("POST", "/exec/{id}/resize", resize)


def _size(fields: Fields) -> tuple[int, int]:
    given = fields.objects("ConsoleSize")
    if len(given) == 2 and all(isinstance(number, int) for number in given):
        return int(given[0]), int(given[1])
    return 0, 0
