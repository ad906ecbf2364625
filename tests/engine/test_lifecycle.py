"""Containers through Docker's own Python client, which others wrote: what users of it rely on."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from docker.errors import APIError
from docker.models.containers import Container
from docker.types import EndpointConfig, Healthcheck, LogConfig, Mount
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

TIMEOUT = 20.0
SERVE = "echo $0 > /tmp/index.html; exec httpd -f -p 80 -h /tmp"


def sh(agent: AgentUnderTest, script: str, *arguments: str, **options: Any) -> Container:
    """Started in the background."""
    return agent.client.containers.run(BUSYBOX, ["sh", "-c", script, *arguments], detach=True, **options)


def ended(container: Container) -> dict[str, Any]:
    """The state of a container once it has ended."""
    container.wait(timeout=TIMEOUT)
    container.reload()
    state: dict[str, Any] = container.attrs["State"]
    return state


def eventually(container: Container, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What inspect says once this is true of it."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        container.reload()
        if true(container.attrs):
            return dict(container.attrs)
        time.sleep(0.01)
    raise AssertionError(f"it did not come true: {container.attrs['State']}")


def said(container: Container, text: str) -> None:
    """Waits until its log has this."""
    seen = b""
    for piece in container.logs(stream=True, follow=True):
        seen += piece
        if text.encode() in seen:
            return
    raise AssertionError(f"{text!r} is not in {seen!r}")


def fetch(port: int | str, address: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=5) as answer:
        return str(answer.read().decode().strip())


def published(container: Container) -> str:
    """The host port of its port 80, once it answers."""
    container.reload()
    port = container.ports["80/tcp"][0]["HostPort"]
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            fetch(port)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            continue
        return str(port)


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 42", 42), ("nothing-there", 127), ("exec /etc/passwd", 126)]
)
def test_exit_codes(agent: AgentUnderTest, script: str, code: int) -> None:
    container = sh(agent, script)
    assert container.wait()["StatusCode"] == code
    assert ended(container)["Status"] == "exited"


def test_a_program_that_is_not_there_is_told_at_start(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, ["nothing-there"])
    with pytest.raises(APIError, match="nothing-there"):
        container.start()
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 127


def test_out_of_memory_is_told(agent: AgentUnderTest) -> None:
    state = ended(sh(agent, "tail /dev/zero", mem_limit="16m", memswap_limit="16m"))
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def test_stop_gives_time_and_then_kills(agent: AgentUnderTest) -> None:
    polite = sh(agent, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    deaf = sh(agent, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    for container in (polite, deaf):
        said(container, "ready")
    polite.stop(timeout=10)
    assert ended(polite)["ExitCode"] == 5
    began = time.monotonic()
    deaf.stop(timeout=1)
    assert time.monotonic() - began >= 1
    assert ended(deaf)["ExitCode"] == 137


def test_the_stop_signal_is_the_containers(agent: AgentUnderTest) -> None:
    container = sh(
        agent, "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done", stop_signal="SIGUSR1"
    )
    said(container, "ready")
    container.stop(timeout=10)
    assert ended(container)["ExitCode"] == 7


def test_one_that_removes_itself(agent: AgentUnderTest) -> None:
    container = sh(agent, "sleep 0.1; exit 3", auto_remove=True)
    assert container.wait(condition="removed")["StatusCode"] == 3
    assert agent.client.containers.list(all=True) == []


def test_pause_and_unpause(agent: AgentUnderTest) -> None:
    container = sh(agent, "while :; do date +%s%N > /tmp/now; done")
    container.pause()
    assert eventually(container, lambda about: about["State"]["Paused"])["State"]["Status"] == "paused"
    container.unpause()
    assert container.exec_run(["true"]).exit_code == 0
    container.kill()
    assert ended(container)["ExitCode"] == 137


# -- restarts -------------------------------------------------------------------------------------


def test_on_failure_gives_up_after_its_retries(agent: AgentUnderTest) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    container = sh(agent, "echo again; exit 1", restart_policy=policy)
    about = eventually(container, lambda about: about["State"]["Status"] == "exited")
    assert (about["RestartCount"], container.logs()) == (2, b"again\n" * 3)


def test_containers_restart_while_the_daemon_is_dead(agent: AgentUnderTest) -> None:
    container = sh(agent, "echo up; sleep 0.3; exit 1", restart_policy={"Name": "always"})
    lasting = sh(agent, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    said(lasting, "ready")
    agent.kill()
    time.sleep(1)  # what happens in this second is the point
    agent.start()
    eventually(container, lambda about: about["RestartCount"] >= 1)
    about = eventually(container, lambda _: container.logs().count(b"up\n") >= 2)
    assert about["State"]["Status"] in ("running", "restarting")
    lasting.stop(timeout=10)
    assert ended(lasting)["ExitCode"] == 9


def test_an_exit_while_the_daemon_is_dead_is_told_by_the_next(agent: AgentUnderTest) -> None:
    container = sh(agent, "sleep 0.3; exit 6")
    agent.kill()
    time.sleep(0.6)
    agent.start()
    state = ended(container)
    assert (state["Status"], state["ExitCode"]) == ("exited", 6)


def test_a_stopped_one_starts_again_with_its_files(agent: AgentUnderTest) -> None:
    container = sh(agent, "echo x >> /count; wc -l < /count")
    ended(container)
    container.start()
    ended(container)
    assert container.logs() == b"1\n2\n"


# -- logs, exec, health ---------------------------------------------------------------------------


def test_logs_keep_both_streams_apart_and_are_rotated(agent: AgentUnderTest) -> None:
    container = sh(
        agent,
        "echo to-stderr >&2; seq 1 3000",
        log_config=LogConfig(type="json-file", config={"max-size": "20k", "max-file": "2"}),
    )
    ended(container)
    out = container.logs(stdout=True, stderr=False).split()
    assert out[-1] == b"3000" and 100 < len(out) < 3000
    assert container.logs(stderr=False, tail=2) == b"2999\n3000\n"  # two pipes have no order
    short = sh(agent, "echo out; echo err >&2")
    ended(short)
    assert (short.logs(stderr=False), short.logs(stdout=False)) == (b"out\n", b"err\n")


def test_exec(agent: AgentUnderTest) -> None:
    container = sh(agent, "exec sleep 1000", environment={"COLOUR": "green"})
    code, (out, err) = container.exec_run(
        ["sh", "-c", "echo $COLOUR $(id -u); echo no >&2; exit 4"], user="1000", demux=True
    )
    assert (code, out, err) == (4, b"green 1000\n", b"no\n")


def test_health_becomes_good_and_bad(agent: AgentUnderTest) -> None:
    check = Healthcheck(test=["CMD", "test", "-e", "/well"], interval=10**8, timeout=10**9, retries=2)
    container = sh(agent, "sleep 0.2; touch /well; exec sleep 1000", healthcheck=check)
    eventually(container, lambda about: about["State"]["Health"]["Status"] == "healthy")
    assert container.exec_run(["rm", "/well"]).exit_code == 0
    about = eventually(container, lambda about: about["State"]["Health"]["Status"] == "unhealthy")
    assert about["State"]["Health"]["FailingStreak"] >= 2
    assert about["State"]["Running"]


# -- networks and volumes -------------------------------------------------------------------------


def test_a_published_port_outlives_the_daemon(agent: AgentUnderTest) -> None:
    container = sh(agent, SERVE, "page", ports={"80/tcp": ("127.0.0.1", None)})
    port = published(container)
    assert fetch(port) == "page"
    agent.kill()
    assert fetch(port) == "page"
    agent.start()
    assert fetch(port) == "page"
    container.stop(timeout=0)
    with pytest.raises(OSError):
        fetch(port)


def test_a_port_that_is_taken_is_refused_by_name(agent: AgentUnderTest) -> None:
    first = sh(agent, SERVE, "first", ports={"80/tcp": 8123})
    second = agent.client.containers.create(BUSYBOX, ["true"], ports={"80/tcp": 8123})
    with pytest.raises(APIError, match="8123"):
        second.start()
    assert fetch(published(first)) == "first"


def test_names_and_aliases_on_a_network(agent: AgentUnderTest) -> None:
    network = agent.client.networks.create("shop")
    web = sh(agent, SERVE, "shop", name="web", network="shop")
    client = sh(agent, "exec sleep 1000", network="shop")
    look = ["sh", "-c", "until wget -qO- http://web; do sleep 0.05; done"]
    assert client.exec_run(look).output.split()[-1:] == [b"shop"]
    agent.kill()  # names are answered without it
    agent.start()
    assert client.exec_run(look).output.split()[-1:] == [b"shop"]
    web.remove(force=True)
    assert client.exec_run(["nslookup", "web"]).exit_code != 0
    network.reload()
    assert list(network.attrs["Containers"]) == [client.id]


def test_two_networks(agent: AgentUnderTest) -> None:
    for name in ("one", "two"):
        agent.client.networks.create(name)
    endpoints = {name: EndpointConfig("1.44", aliases=[f"in-{name}"]) for name in ("one", "two")}
    container = sh(agent, "ip -o addr", network="one", networking_config=endpoints)
    ended(container)
    assert {line.split()[1] for line in container.logs().decode().splitlines()} == {"lo", "eth0", "eth1"}
    assert set(container.attrs["NetworkSettings"]["Networks"]) == {"one", "two"}


def test_volumes_outlive_their_containers(agent: AgentUnderTest) -> None:
    agent.client.volumes.create("data")
    mounts = [Mount(target="/data", source="data", type="volume")]
    assert ended(sh(agent, "echo kept > /data/file", mounts=mounts))["ExitCode"] == 0
    for container in agent.client.containers.list(all=True):
        container.remove()
    reader = sh(agent, "cat /data/file; echo > /data/file", volumes={"data": {"bind": "/data", "mode": "ro"}})
    ended(reader)
    assert reader.logs(stderr=False) == b"kept\n"
    with pytest.raises(APIError, match="in use"):
        agent.client.volumes.get("data").remove()


def test_an_anonymous_volume_goes_with_its_container(agent: AgentUnderTest) -> None:
    container = sh(agent, "true", volumes=["/scratch"])
    ended(container)
    assert len(agent.client.volumes.list()) == 1
    container.remove(v=True)
    assert agent.client.volumes.list() == []


@pytest.mark.parametrize("successor", ["none", "created", "running"])
def test_a_replacement_that_was_cut_off_is_undone_or_finished(agent: AgentUnderTest, successor: str) -> None:
    """The daemon was killed while it replaced a stack's container: its anonymous volume has the data."""
    labels = {"io.hawse.stack": "shop"}
    old = sh(
        agent,
        "test -e /data/kept || echo first > /data/kept; sleep 1000",
        name="shop-db-1",
        labels=labels,
        restart_policy={"Name": "always"},
        mounts=[Mount("/data", None, type="volume")],
    )
    old.rename("shop-db-1.0a1b2c")
    old.stop(timeout=0)
    if successor != "none":
        new = agent.client.containers.create(BUSYBOX, ["sleep", "1000"], name="shop-db-1", labels=labels)
        if successor == "running":
            new.start()
    agent.kill()
    agent.start()
    found = agent.client.containers.get("shop-db-1")
    assert [c.name for c in agent.client.containers.list(all=True)] == ["shop-db-1"]
    if successor == "running":
        assert found.id != old.id
        return
    assert found.id == old.id
    eventually(found, lambda attrs: attrs["State"]["Running"])
    assert found.exec_run(["cat", "/data/kept"]).output == b"first\n"
