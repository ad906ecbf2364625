"""Two agents on one machine, in one network namespace: neither sees nor disturbs the other."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from docker.errors import APIError, NotFound
from tests.support import agent as agents
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

SERVE = "echo $0 > /tmp/index.html; exec httpd -f -p 80 -h /tmp"


@pytest.fixture(scope="module")
def first(daemon: AgentUnderTest) -> AgentUnderTest:
    return daemon


@pytest.fixture
def second(agent: AgentUnderTest) -> Iterator[AgentUnderTest]:
    """Beside the file's own, for one test."""
    session = isolation.current()
    assert session is not None
    with AgentUnderTest(agents.new_root(session.directory)) as second:
        second.load_busybox()
        yield second


def serve(agent: AgentUnderTest, page: str, port: int) -> None:
    """A container `web` on the network `shop`, which answers at that port of the host."""
    agent.client.networks.create("shop")
    agent.client.containers.run(
        BUSYBOX,
        ["sh", "-c", SERVE, page],
        name="web",
        network="shop",
        ports={"80/tcp": port},
        detach=True,
    )
    look = ["sh", "-c", "until wget -qO- http://web; do sleep 0.05; done"]
    assert agent.client.containers.get("web").exec_run(look).output.split()[-1] == page.encode()


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return str(answer.read().decode().strip())


def test_the_same_names_mean_different_things(first: AgentUnderTest, second: AgentUnderTest) -> None:
    serve(first, "one", 8201)
    serve(second, "two", 8202)
    assert (fetch(8201), fetch(8202)) == ("one", "two")
    subnets = {
        agent.client.networks.get("shop").attrs["IPAM"]["Config"][0]["Subnet"] for agent in (first, second)
    }
    assert len(subnets) == 2
    ids = [[container.id for container in agent.client.containers.list()] for agent in (first, second)]
    assert [len(found) for found in ids] == [1, 1] and ids[0] != ids[1]


def test_a_port_of_one_is_taken_for_the_other(first: AgentUnderTest, second: AgentUnderTest) -> None:
    serve(first, "one", 8201)
    late = second.client.containers.create(BUSYBOX, ["true"], ports={"80/tcp": 8201})
    with pytest.raises(APIError, match="8201"):
        late.start()
    assert fetch(8201) == "one"


def test_death_and_restart_of_one_leaves_the_other(first: AgentUnderTest, second: AgentUnderTest) -> None:
    serve(first, "one", 8201)
    serve(second, "two", 8202)
    second.kill()
    assert (fetch(8201), fetch(8202)) == ("one", "two")
    second.start()
    first.client.containers.get("web").restart(timeout=0)
    assert second.client.containers.get("web").status == "running"
    first.client.containers.get("web").exec_run(["true"])
    assert fetch(8202) == "two"


def test_reset_of_one_leaves_the_other(first: AgentUnderTest, second: AgentUnderTest) -> None:
    serve(first, "one", 8201)
    serve(second, "two", 8202)
    second.close()
    assert not second.root.exists()
    assert fetch(8201) == "one"
    first.client.networks.get("shop")
    with pytest.raises(NotFound):
        first.client.networks.get("nobody")
    with pytest.raises(OSError):
        fetch(8202)
