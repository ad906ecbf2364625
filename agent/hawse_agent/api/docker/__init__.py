"""Docker's Engine API: one file a noun. What is not supported is refused by name, never ignored.

lowering/   what a client asks for → ContainerSpec
views/      what there is → Docker's JSON
"""

from __future__ import annotations

from hawse_agent.api.docker import (
    archive,
    builds,
    commits,
    containers,
    execs,
    images,
    networks,
    registries,
    streams,
    system,
    volumes,
)
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine


def routes(router: Router, engine: Engine) -> None:
    system.routes(router, engine)
    containers.routes(router, engine)
    archive.routes(router, engine)
    builds.routes(router, engine)
    commits.routes(router, engine)
    streams.routes(router, engine)
    execs.routes(router, engine)
    images.routes(router, engine)
    registries.routes(router, engine)
    networks.routes(router, engine)
    volumes.routes(router, engine)
