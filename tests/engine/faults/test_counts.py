"""Daemons killed at random during concurrent operations, and what a thousand containers leave behind."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import docker
import pytest
import requests
from docker.errors import APIError, NotFound
from tests.support import isolation, leaks
from tests.support.agent import BUSYBOX, AgentUnderTest

SESSION = isolation.current()
pytestmark = pytest.mark.skipif(SESSION is None, reason="needs a session (make test)")

PATIENCE = 300.0


def live(client: docker.DockerClient, name: str, deadline: float) -> None:
    """Create, start, stop and remove a container; each is tried until it is so."""
    state = ""
    while time.monotonic() < deadline:
        try:
            try:
                state = client.api.inspect_container(name)["State"]["Status"]
            except NotFound:
                if state == "exited":
                    return
                client.api.create_container(BUSYBOX, ["sleep", "1000"], name=name, volumes=["/data"])
                continue
            if state == "created":
                client.api.start(name)
                client.api.stop(name, timeout=0)
            elif state == "running":
                client.api.stop(name, timeout=0)
            else:
                client.api.remove_container(name, v=True)
        except (APIError, requests.exceptions.RequestException):
            time.sleep(0.05)  # the daemon is gone, or somebody's older request is still at work
    raise AssertionError(f"container {name} is {state!r} for ever")


def lives(agent: AgentUnderTest, worker: int, count: int, deadline: float, done: list[str]) -> None:
    client = docker.DockerClient(f"unix://{agent.socket}", timeout=60)
    try:
        for number in range(count):
            live(client, f"w{worker}-{number}", deadline)
            done.append(f"w{worker}-{number}")
    finally:
        client.close()


@pytest.mark.parametrize("operations", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_daemons_killed_at_random(agent: AgentUnderTest, operations: int) -> None:
    """Four clients at work, until so many operations (four for each container) have been done."""
    deadline, done = time.monotonic() + PATIENCE + operations, list[str]()
    count = -(-operations // 16)
    workers = [
        threading.Thread(target=lives, args=(agent, worker, count, deadline, done)) for worker in range(4)
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        time.sleep(random.random())
        agent.kill()
        agent.start()
    assert len(done) == 4 * count
    assert agent.client.containers.list(all=True) == []


def counts(agent: AgentUnderTest) -> Counter[str]:
    """Of everything on the machine, and the daemon's own descriptors."""
    assert SESSION is not None
    found = leaks.snapshot(SESSION.directory)
    found["descriptors of the daemon"] = len(os.listdir(f"/proc/{agent.pid}/fd"))
    found["threads of the daemon"] = len(os.listdir(f"/proc/{agent.pid}/task"))
    return found


def memory(agent: AgentUnderTest) -> int:
    """KiB that are the daemon's own."""
    lines = Path("/proc", str(agent.pid), "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:")))


@pytest.mark.parametrize(("cycles", "first"), [(40, 10), pytest.param(1000, 50, marks=pytest.mark.soak)])
def test_containers_come_and_go(agent: AgentUnderTest, cycles: int, first: int) -> None:
    """What there is after the first of them is what there is after the last."""
    agent.client.networks.create("front")
    before: Counter[str] = Counter()
    used = 0
    for number in range(cycles):
        if number == first:
            before, used = settled(agent), memory(agent)
        network = {"network": "front"} if number % 2 else {}
        container = agent.client.containers.run(
            BUSYBOX, ["true"], ports={"80/tcp": 8079}, volumes=["/data"], detach=True, **network
        )
        container.wait(timeout=60)
        container.remove(v=True)
    deadline = time.monotonic() + 60
    while (after := counts(agent)) != before:
        assert time.monotonic() < deadline, leaks.differences(before, after)
        time.sleep(0.1)
    assert memory(agent) - used < 4096 + 2 * (cycles - first), "the daemon grows"


def settled(agent: AgentUnderTest) -> Counter[str]:
    """Once two looks show the same: what the kernel and the daemon do in the background is done."""
    deadline = time.monotonic() + 60
    last = counts(agent)
    while True:
        time.sleep(0.3)
        now = counts(agent)
        if now == last:
            return now
        assert time.monotonic() < deadline, leaks.differences(last, now)
        last = now
