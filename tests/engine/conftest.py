"""Every engine test is checked for leaks; daemons with Docker's clients for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import agent as agents
from tests.support import busybox, isolation
from tests.support.agent import AgentUnderTest


@pytest.fixture(scope="module")
def daemon() -> Iterator[AgentUnderTest]:
    """A daemon for all tests of a file, with an image, on which a container has run already: what an agent
    makes once (its bridge, forwarding) is there before the first test."""
    session = isolation.current()
    if session is None or not busybox.available():
        pytest.skip("needs a session (make test) and busybox-static")
    with AgentUnderTest(agents.new_root(session.directory)) as daemon:
        daemon.load_busybox()
        daemon.client.networks.create("warm")
        daemon.client.containers.run(agents.BUSYBOX, "true", network="warm", remove=True)
        daemon.clear()
        yield daemon


@pytest.fixture
def agent(daemon: AgentUnderTest, no_leaks: None) -> Iterator[AgentUnderTest]:
    """The file's daemon, which runs again and is empty after each test."""
    yield daemon
    if not daemon.running:
        daemon.start()
    daemon.clear()


@pytest.fixture
def busybox_image(daemon: AgentUnderTest) -> str:
    return agents.BUSYBOX


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(no_leaks: None) -> None:
    """See `no_leaks`."""
