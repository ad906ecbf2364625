"""Builds beyond Docker's API: secrets, the steps as they go, and an image's root as a tar.

POST /hawse/v1/build                   one line of JSON, {"secrets": {ID: base64}}, then the context's tar
GET  /hawse/v1/images/{name}/rootfs    what a container of the image would have on its root
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from hawse_agent.api.docker import builds
from hawse_agent.api.http import Request, Response, begun
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import InputError

_MAX_LINE = 16 << 20


def routes(router: Router, engine: Engine) -> None:
    def build(request: Request) -> Response:
        body = request.body.file()
        line = body.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise InputError("the body of a build: expected a line of JSON before the context's tar")
        return builds.answer(engine, request, body, _secrets(line), own=True)

    def rootfs(request: Request) -> Response:
        root = begun(engine.builds.root(request.params["name"]))
        return Response(chunks=root, content_type="application/x-tar")

    router.add("POST", "/hawse/v1/build", build)
    router.add("GET", "/hawse/v1/images/{name:path}/rootfs", rootfs)


def _secrets(line: bytes) -> dict[str, bytes]:
    """Nothing of what it holds is in any message."""
    try:
        about: Any = json.loads(line)
    except ValueError:
        raise InputError("the first line of a build's body is not JSON") from None
    if not isinstance(about, dict) or not isinstance(about.get("secrets", {}), dict):
        raise InputError("the first line of a build's body: expected an object with secrets")
    if unknown := sorted(about.keys() - {"secrets"}):
        raise InputError(f"the first line of a build's body: unknown {', '.join(unknown)}")
    found = {}
    for name, value in about.get("secrets", {}).items():
        try:
            found[name] = base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise InputError(f"secret {name}: expected base64") from None
    return found
