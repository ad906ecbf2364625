"""Containers through Docker's own Python client, which others wrote: what users of it rely on."""

from __future__ import annotations

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 42", 42), ("kill -9 $$", 0), ("nothing-there", 127)]
)
def test_exit_codes(agent: AgentUnderTest, script: str, code: int) -> None:
    container = agent.client.containers.run(BUSYBOX, ["sh", "-c", script], detach=True)
    assert container.wait()["StatusCode"] == code
    container.reload()
    assert container.attrs["State"]["Status"] == "exited"
