"""Programs whose client goes, and stacks that others have something to do with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import isolation, leaks
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse.fleet.client import AgentClient
from hawse.fleet.connect import socket_agent
from hawse_agent.spec.container import ContainerSpec, EndpointSpec
from hawse_agent.spec.host import LABEL_STACK, HostSpec, Item, StackSpec, TaskSpec
from hawse_agent.spec.network import NetworkSpec

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")


@pytest.fixture
def client(agent: AgentUnderTest) -> Iterator[AgentClient]:
    with socket_agent(agent.socket) as client:
        yield client


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shell(script: str) -> HostSpec:
    task = TaskSpec(module="shell", args={"cmd": script})
    return HostSpec(items=(Item(id="1", name="it", task=task),), login_user="root", run_id="r1")


def apply(client: AgentClient, spec: HostSpec) -> dict[str, object]:
    *_, end = client.apply(spec, client.plan(spec).plan.digest)
    return end


def test_who_asked_for_a_command_goes(agent: AgentUnderTest, client: AgentClient, tmp_path: Path) -> None:
    """The command is ended, and the host is free for the next."""
    endless = shell(f"touch {tmp_path}/begun; sleep 1234; touch {tmp_path}/never")
    with socket_agent(agent.socket) as other:
        events = other.apply(endless, other.plan(endless).plan.digest)
        assert next(events)  # that it starts; nothing more comes while it runs
        wait_until((tmp_path / "begun").exists)
    assert not apply(client, shell(f"touch {tmp_path}/free"))["failed"]
    assert (tmp_path / "free").exists() and not (tmp_path / "never").exists()
    assert "sleep 1234" not in leaks.processes()


def test_containers_of_others_are_not_stopped(agent: AgentUnderTest, client: AgentClient) -> None:
    """A network that must be made anew for its stack, and that somebody else uses."""

    def stack(subnet: str) -> HostSpec:
        labels = {LABEL_STACK: "shop"}
        network = NetworkSpec(name="shop_net", labels=labels, subnet=subnet)
        container = ContainerSpec(
            name="shop-web-1", image=BUSYBOX, command=("sleep", "1000"), labels=labels, stop_timeout=0,
            network_mode="shop_net", networks=(EndpointSpec(network="shop_net"),),
        )  # fmt: skip
        wanted = StackSpec(name="shop", networks=(network,), containers=(container,))
        return HostSpec(items=(Item(id="s", name="shop", stack=wanted),), run_id="r1")

    assert not apply(client, stack("10.78.0.0/24"))["failed"]
    guest = agent.client.containers.run(
        BUSYBOX, ["sleep", "1000"], name="guest", network="shop_net", detach=True
    )
    end = apply(client, stack("10.79.0.0/24"))
    assert end["failed"] and "containers of others are on it: guest" in str(end["error"])
    assert {c.name: c.status for c in agent.client.containers.list()} == {
        "guest": "running",
        "shop-web-1": "running",
    }
    guest.remove(force=True)
    assert not apply(client, stack("10.79.0.0/24"))["failed"]
    assert [c.name for c in agent.client.containers.list()] == ["shop-web-1"]
