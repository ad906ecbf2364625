"""Plan a host's program and apply exactly that plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hawse_agent.api.http import Request, Response, begun, lines
from hawse_agent.api.router import Router
from hawse_agent.distribution.credentials import keyring_of_header
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import HawseError, InputError, InternalError
from hawse_agent.spec import codec
from hawse_agent.spec.host import HostSpec


def routes(router: Router, engine: Engine) -> None:
    def plan(request: Request) -> Response:
        spec = _spec(request.body.json())
        planned = engine.program.plan(spec)
        return Response(
            json={
                "digest": planned.digest,
                "operations": codec.to_json(planned.operations),
                "missing_blobs": engine.program.missing_blobs(spec, planned),
            }
        )

    def apply(request: Request) -> Response:
        """Errors before the first operation have a status of their own; later ones are in `end`."""
        body = request.body.json()
        keyring = keyring_of_header(request.headers.get("x-registry-config", ""))
        events = engine.program.apply(
            _spec(body), str(body.get("digest", "")), keyring=keyring, gone=request.gone
        )
        return lines(_to_the_end(begun(events)))

    router.add("POST", "/hawse/v1/plan", plan)
    router.add("POST", "/hawse/v1/apply", apply)


def _to_the_end(events: Iterator[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Closing it closes `events`, which lets no further operation start."""
    try:
        yield from events
    except HawseError as error:
        yield {"event": "end", "changed": 0, "failed": True, "error": error.to_wire()}
    except Exception as error:  # the status is out: a bug can only be told in the stream
        problem = InternalError(f"{type(error).__name__}: {error}")
        yield {"event": "end", "changed": 0, "failed": True, "error": problem.to_wire()}
        raise


def _spec(body: Any) -> HostSpec:
    if not isinstance(body, dict) or "host_spec" not in body:
        raise InputError("expected an object with host_spec")
    return codec.from_json(HostSpec, body["host_spec"], "host_spec")
