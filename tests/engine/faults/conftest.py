"""A daemon that dies where it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import agent as agents
from tests.support import busybox, isolation
from tests.support.agent import AgentUnderTest
from tests.support.failpoints import Failpoints


@pytest.fixture(scope="module")
def failpoints() -> Failpoints:
    session = isolation.current()
    if session is None or not busybox.available():
        pytest.skip("needs a session (make test) and busybox-static")
    root = agents.new_root(session.directory)
    return Failpoints(root.with_name(f"{root.name}-failpoints"))


@pytest.fixture(scope="module")
def daemon(failpoints: Failpoints) -> Iterator[AgentUnderTest]:
    """As the one of all engine tests, with failpoints."""
    session = isolation.current()
    assert session is not None
    root = agents.new_root(session.directory)
    with AgentUnderTest(root, environment=failpoints.environment) as daemon:
        daemon.load_busybox()
        daemon.client.networks.create("warm")
        daemon.client.containers.run(agents.BUSYBOX, "true", network="warm", remove=True)
        daemon.clear()
        yield daemon
