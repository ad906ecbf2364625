"""What Docker's API has no word for: `/hawse/v1/`, one file a noun. The table is in docs/protocols.md."""

from __future__ import annotations

from collections.abc import Callable

from hawse_agent.api.hawse import blobs, builds, program, system, volumes
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine


def routes(router: Router, engine: Engine, stop: Callable[[], None]) -> None:
    """`stop` makes the daemon leave once the answer is out."""
    system.routes(router, engine, stop)
    program.routes(router, engine)
    blobs.routes(router, engine)
    builds.routes(router, engine)
    volumes.routes(router, engine)
