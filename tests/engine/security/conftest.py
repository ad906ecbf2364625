"""One daemon for the attacks of a file, with the image that they are tried from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import agent as agents
from tests.support import isolation, probes
from tests.support.agent import AgentUnderTest


@pytest.fixture(scope="module")
def daemon() -> Iterator[AgentUnderTest]:
    session = isolation.current()
    if session is None or not probes.available():
        pytest.skip("needs a session (make test), busybox-static and Debian's python3")
    with AgentUnderTest(agents.new_root(session.directory)) as daemon:
        daemon.load_busybox()
        probes.load(daemon)
        daemon.client.networks.create("warm")
        daemon.client.containers.run(agents.BUSYBOX, "true", network="warm", remove=True)
        daemon.clear()
        yield daemon
