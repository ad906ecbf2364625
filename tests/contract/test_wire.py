"""Controller, agent and docs/protocols.md agree on what is said between them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from hawse.fleet import bundle, client, stream
from hawse_agent import dial
from hawse_agent.api import docker, hawse
from hawse_agent.api.router import Router
from hawse_agent.engine import engine

PROTOCOLS = Path(__file__).resolve().parents[2] / "docs/protocols.md"


@pytest.fixture(scope="module")
def router() -> Router:
    """As the daemon makes it; no handler is called."""
    router = Router()
    docker.routes(router, MagicMock())
    hawse.routes(router, MagicMock(), lambda: None)
    return router


def requests_of(module: Path) -> Iterator[tuple[str, str]]:
    """Method and path of every request to `/hawse/v1/` in a file, with `x` for what is filled in; the
    method is empty where the path is not written in the call."""
    methods = {}
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) >= 2 and isinstance(node.args[0], ast.Constant):
            methods[node.args[1]] = node.args[0].value
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            path = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)
            if path.startswith("/hawse/v1/") and (isinstance(node, ast.JoinedStr) or not path.endswith("/")):
                yield str(methods.get(node, "")), path


def test_every_request_of_the_controller_has_a_handler(router: Router) -> None:
    requests = set(requests_of(Path(client.__file__)))
    assert len(requests) > 10
    for method, path in requests:
        if method:
            router.find(method, path)
        else:
            assert any(route.regex.match(path) for route in router.routes), path


def test_every_own_endpoint_is_written_down(router: Router) -> None:
    served = {
        f"{route.method} {route.pattern}" for route in router.routes if route.pattern.startswith("/hawse/")
    }
    described = set(re.findall(r"^\| `([A-Z]+ /hawse/v1/[^`]+)`", PROTOCOLS.read_text(), re.MULTILINE))
    assert served == described


def test_both_sides_speak_the_same_protocol() -> None:
    assert dial.MAGIC == stream.MAGIC
    assert dial.PROTOCOL == bundle.PROTOCOL == engine.PROTOCOL
