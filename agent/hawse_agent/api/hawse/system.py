"""Version, facts, report, journal, and the end of the daemon."""

from __future__ import annotations

from collections.abc import Callable

from hawse_agent.api.http import Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine

JOURNAL_LIMIT = 1000


def routes(router: Router, engine: Engine, stop: Callable[[], None]) -> None:
    def version(request: Request) -> Response:
        return Response(json=engine.version())

    def facts(request: Request) -> Response:
        return Response(json=engine.facts())

    def report(request: Request) -> Response:
        return Response(json=engine.report(sizes=request.query.flag("sizes")))

    def journal(request: Request) -> Response:
        limit = int(request.query.number("limit", JOURNAL_LIMIT) or JOURNAL_LIMIT)
        return Response(json=engine.state.journal(request.query.text("run") or None, limit))

    def stop_daemon(request: Request) -> Response:
        return Response(status=204, after=stop)

    router.add("GET", "/hawse/v1/version", version)
    router.add("GET", "/hawse/v1/facts", facts)
    router.add("GET", "/hawse/v1/report", report)
    router.add("GET", "/hawse/v1/journal", journal)
    router.add("POST", "/hawse/v1/daemon/stop", stop_daemon)
