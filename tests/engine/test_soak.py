"""The full counts: what must hold a hundred times in a row, on a busy machine (`make soak`)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse.fleet.client import AgentClient
from hawse.fleet.connect import socket_agent
from hawse_agent.spec.container import ContainerSpec, EndpointSpec, HealthCheck, PortMap, RestartPolicy
from hawse_agent.spec.host import LABEL_STACK, HostSpec, Item, StackSpec
from hawse_agent.spec.network import NetworkSpec

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make soak)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

TIMES = 100
LABELS = {LABEL_STACK: "soak"}


@pytest.fixture
def busy() -> Iterator[None]:
    """Every processor has something else to do."""
    workers = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)
    ]
    yield
    for worker in workers:
        worker.kill()
        worker.wait()


def spec(**stack: Any) -> HostSpec:
    return HostSpec(items=(Item(id="s", name="soak", stack=StackSpec(name="soak", **stack)),))


UP = spec(
    networks=(NetworkSpec(name="soak_net", labels=LABELS),),
    containers=(
        ContainerSpec(
            name="soak-one-1",
            image=BUSYBOX,
            command=("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"),
            labels=LABELS,
            network_mode="soak_net",
            networks=(EndpointSpec(network="soak_net"),),
            ports=(PortMap(container_port=80, host_port=8088),),
            health=HealthCheck(test=("CMD", "true"), interval=0.2),
            restart=RestartPolicy(mode="always"),
        ),
    ),
)
DOWN = spec(state="absent")


def apply(client: AgentClient, wanted: HostSpec) -> None:
    for event in client.apply(wanted, client.plan(wanted).plan.digest):
        assert not event.get("failed"), event


def test_a_stack_goes_up_and_down(agent: AgentUnderTest, busy: None) -> None:
    """Stopped at any moment of its health checks; nothing of it is left each time."""
    with socket_agent(agent.socket) as client:
        for _ in range(TIMES):
            apply(client, UP)
            time.sleep(random.random() * 0.5)
            apply(client, DOWN)
            assert client.plan(DOWN).plan.operations == ()


def test_no_output_is_lost(agent: AgentUnderTest, busy: None) -> None:
    for number in range(TIMES):
        done = agent.docker("run", "--rm", "--network", "none", BUSYBOX, "echo", f"line {number}")
        assert done.stdout == f"line {number}\n"


def test_daemons_die_and_containers_do_not_notice(agent: AgentUnderTest) -> None:
    container = agent.client.containers.run(
        BUSYBOX, ["sh", "-c", "while :; do date +%s; sleep 1; done"], detach=True, ports={"80/tcp": 8089}
    )
    container.reload()
    pid = container.attrs["State"]["Pid"]
    for _ in range(20):
        agent.kill()
        agent.start()
        container.reload()
        assert (container.status, container.attrs["State"]["Pid"]) == ("running", pid)
