"""The rest of the API through Docker's Python client: lists and filters, streams, sizes, refusals."""

from __future__ import annotations

import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest
from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

TIMEOUT = 20.0
LASTING = ["sleep", "1000"]


def run(agent: AgentUnderTest, *command: str, **options: Any) -> Container:
    return agent.client.containers.run(BUSYBOX, list(command), detach=True, **options)


def refused(status: int, text: str) -> Any:
    def check(error: APIError) -> bool:
        return bool(error.status_code == status and text in str(error.explanation))

    return pytest.raises(APIError, check=check)


# -- lists ----------------------------------------------------------------------------------------


def test_containers_by_filter(agent: AgentUnderTest) -> None:
    agent.client.networks.create("shop")
    web = run(agent, *LASTING, name="web", labels={"tier": "front"}, network="shop")
    other = agent.client.containers.create(BUSYBOX, ["true"], name="web2", volumes={"data": {"bind": "/d"}})
    failed = run(agent, "false", name="failed")
    failed.wait()

    def listed(**filters: Any) -> set[str]:
        return {c.name for c in agent.client.containers.list(all=True, filters=filters)}

    assert listed() == {"web", "web2", "failed"}
    assert listed(name="web") == {"web", "web2"}
    assert listed(name="^/web$") == listed(name="^web$") == {"web"}
    assert listed(id=web.short_id) == {"web"}
    assert listed(label="tier=front") == {"web"} and listed(label="tier=back") == set()
    assert listed(status="created") == {"web2"} and listed(status=["exited", "running"]) == {"web", "failed"}
    assert listed(exited="1") == {"failed"}
    assert listed(network="shop") == {"web"} and listed(network="bridge") == {"web2", "failed"}
    assert listed(volume="data") == listed(volume="/d") == {"web2"}
    assert listed(ancestor=BUSYBOX) == {"web", "web2", "failed"} and listed(ancestor="nothing") == set()
    assert listed(before=other.name) == {"web"} and listed(since=other.name) == {"failed"}
    assert [c.name for c in agent.client.containers.list()] == ["web"]
    assert [c.name for c in agent.client.containers.list(limit=1)] == ["failed"]
    with refused(400, "invalid filter 'colour'"):
        listed(colour="red")


def test_sizes(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "dd if=/dev/zero of=/big bs=64k count=16 2>/dev/null")
    container.wait()
    (line,) = agent.client.api.containers(all=True, size=True)
    assert 1 << 20 <= line["SizeRw"] < 1 << 21
    assert line["SizeRootFs"] > line["SizeRw"]
    assert "SizeRw" not in agent.client.api.containers(all=True)[0]
    agent.client.volumes.create("data")
    use = agent.client.df()
    assert [c["SizeRw"] for c in use["Containers"]] == [line["SizeRw"]]
    assert [v["UsageData"]["RefCount"] for v in use["Volumes"]] == [0]
    assert use["LayersSize"] > 0
    assert agent.client.containers.prune()["SpaceReclaimed"] == line["SizeRw"]
    assert agent.client.containers.list(all=True) == []


def test_images_by_filter(agent: AgentUnderTest) -> None:
    assert [i.tags for i in agent.client.images.list(name=BUSYBOX)] == [[BUSYBOX]]
    assert agent.client.images.list(name="nothing") == []
    assert agent.client.images.list(filters={"dangling": True}) == []
    image = agent.client.images.get(BUSYBOX)
    assert image.attrs["Config"]["Cmd"] == ["sh"] and image.history()[0]["Id"] == image.id
    archive = b"".join(image.save(named=True))
    assert [i.id for i in agent.client.images.load(io.BytesIO(archive))] == [image.id]
    with pytest.raises(ImageNotFound):
        agent.client.images.get("nothing")


def test_networks_and_volumes_by_filter(agent: AgentUnderTest) -> None:
    made = agent.client.networks.create("front", labels={"a": "b"}, internal=True)
    agent.client.networks.create("front2")
    assert [n.name for n in agent.client.networks.list(names=["^front$"])] == ["front"]
    assert [n.id for n in agent.client.networks.list(ids=[made.short_id])] == [made.id]
    assert {n.name for n in agent.client.networks.list(filters={"type": "builtin"})} == {
        "bridge", "host", "none",
    }  # fmt: skip
    assert agent.client.networks.get("front").attrs["Internal"] is True
    agent.client.volumes.create("data", labels={"a": "b"})
    agent.client.volumes.create("data2")
    assert [v.name for v in agent.client.volumes.list(filters={"label": "a=b"})] == ["data"]
    assert len(agent.client.volumes.list(filters={"name": "data"})) == 2
    assert set(agent.client.networks.prune()["NetworksDeleted"]) == {"front", "front2"}
    assert agent.client.volumes.prune({"all": True})["VolumesDeleted"] == ["data", "data2"]


# -- streams --------------------------------------------------------------------------------------


def test_attach_before_the_start(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, ["cat"], stdin_open=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    raw: socket.socket = stream._sock
    raw.sendall(b"typed\n")
    raw.shutdown(socket.SHUT_WR)
    assert container.wait(timeout=TIMEOUT)["StatusCode"] == 0
    seen = b""
    while piece := raw.recv(4096):
        seen += piece
    assert seen == b"\x01\0\0\0\0\0\0\x06typed\n"
    stream.close()


def test_two_attached_see_the_same(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(BUSYBOX, ["sh", "-c", "echo one; echo two >&2"])
    readers = [container.attach(stream=True, stdout=True, stderr=True) for _ in range(2)]
    container.start()
    assert [sorted(reader) for reader in readers] == [[b"one\n", b"two\n"]] * 2
    assert container.attach(logs=True, stream=False, stdout=True, stderr=False) == b"one\n"


def test_logs_of_a_time(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "echo early; sleep 1.2; echo late")
    container.wait()
    early, late = (line.split(b" ")[0].decode() for line in container.logs(timestamps=True).splitlines())
    assert early < late
    now = int(time.time())
    assert container.logs(since=now + 100) == container.logs(until=now - 100) == b""
    response = agent.client.api._get(
        agent.client.api._url("/containers/{0}/logs", container.id),
        params={"stdout": 1, "since": late, "details": 1},
    )
    assert response.content[8:] == b" late\n"
    with refused(400, "choose at least one stream"):
        container.logs(stdout=False, stderr=False)


def test_following_ends_with_the_container(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.1; done")
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"


def test_exec_gives_the_streams_that_were_asked_for(agent: AgentUnderTest) -> None:
    container = run(agent, *LASTING)
    both = ["sh", "-c", "echo out; echo err >&2"]
    assert container.exec_run(both, stderr=False).output == b"out\n"
    assert container.exec_run(both, stdout=False).output == b"err\n"
    assert container.exec_run(["tty"], tty=True).output == b"/dev/pts/0\r\n"
    framed = agent.client.api.exec_create(container.id, ["tty"], tty=True)["Id"]
    assert (
        agent.client.api.exec_start(framed) == b"/dev/pts/0\r\n"
    )  # the start's word counts, as with dockerd
    identity = agent.client.api.exec_create(container.id, ["sh", "-c", "exit 3"])["Id"]
    agent.client.api.exec_start(identity)
    assert agent.client.api.exec_inspect(identity)["ExitCode"] == 3
    with refused(409, "has already run"):
        agent.client.api.exec_start(identity)
    with pytest.raises(NotFound):
        agent.client.api.exec_inspect("0" * 64)
    later = agent.client.api.exec_create(container.id, ["true"])["Id"]
    container.kill()
    container.wait()
    with refused(409, "is not running"):
        agent.client.api.exec_start(later)


def test_stats(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "while :; do :; done", mem_limit="32m")
    now = container.stats(stream=False)
    spent = now["cpu_stats"]["cpu_usage"]["total_usage"] - now["precpu_stats"]["cpu_usage"]["total_usage"]
    passed = now["cpu_stats"]["system_cpu_usage"] - now["precpu_stats"]["system_cpu_usage"]
    assert 0 < spent <= passed * 1.2
    assert now["memory_stats"]["limit"] == 32 << 20 and now["pids_stats"]["current"] == 1
    assert "eth0" in now["networks"]
    at_once = container.stats(stream=False, one_shot=True)
    assert at_once["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    stream = container.stats(stream=True, decode=True)
    assert next(stream)["name"] == f"/{container.name}"
    container.remove(force=True)
    assert len(list(stream)) <= 1  # it ends with the container


def test_events(agent: AgentUnderTest) -> None:
    begin = time.time()
    stream = agent.client.events(since=begin, filters={"type": "container", "label": "seen"}, decode=True)
    run(agent, "true", name="unseen").wait()
    container = run(agent, "true", name="shown", labels={"seen": "1"})
    container.wait()
    container.remove()
    actions = []
    for event in stream:
        actions.append(event["Action"])
        if event["Action"] == "destroy":
            break
    stream.close()
    assert actions == ["create", "start", "die", "destroy"]
    ended = agent.client.events(since=begin, until=time.time(), filters={"event": "die"}, decode=True)
    assert [event["Actor"]["Attributes"]["name"] for event in ended] == ["unseen", "shown"]


# -- changing -------------------------------------------------------------------------------------


def test_update_changes_what_it_names(agent: AgentUnderTest) -> None:
    container = run(agent, *LASTING, mem_limit="64m", pids_limit=20)
    container.update(mem_limit="32m", restart_policy={"Name": "always"})
    container.reload()
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["RestartPolicy"]["Name"]) == (32 << 20, 20, "always")
    agent.client.api._post_json(
        agent.client.api._url("/containers/{0}/update", container.id), {"PidsLimit": -1}
    )
    container.reload()
    assert container.attrs["HostConfig"]["PidsLimit"] is None
    assert container.stats(stream=False, one_shot=True)["memory_stats"]["limit"] == 32 << 20
    with refused(400, "larger than memory limit"):
        container.update(memswap_limit="1m")
    passing = run(agent, *LASTING, auto_remove=True)
    with refused(400, "AutoRemove"):
        passing.update(restart_policy={"Name": "always"})


def test_a_stop_without_end_gives_way_to_a_removal(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    for piece in container.logs(stream=True, follow=True):
        if b"ready" in piece:
            break
    patient = threading.Thread(target=_stop_for_ever, args=(agent, container.id))
    patient.start()
    patient.join(1)
    assert patient.is_alive()
    container.remove(force=True)
    patient.join(TIMEOUT)
    assert not patient.is_alive()


def _stop_for_ever(agent: AgentUnderTest, container: str) -> None:
    api = docker.APIClient(f"unix://{agent.socket}")
    with api._post(api._url("/containers/{0}/stop", container), params={"t": -1}) as answer:
        assert answer.status_code == 204
    api.close()


def test_an_own_init(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "echo $$; exec sleep 1000", init=True)
    first = next(iter(container.logs(stream=True, follow=True)))
    assert first != b"1\n"
    container.reload()
    assert container.attrs["HostConfig"]["Init"] is True
    container.stop(timeout=5)
    assert container.wait()["StatusCode"] == 143


def test_a_seccomp_profile_of_ones_own(agent: AgentUnderTest) -> None:
    profile = (
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":'
        '[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}'
    )
    done = agent.client.containers.run(
        BUSYBOX,
        ["sh", "-c", "mkdir /x 2>&1; true"],
        security_opt=[f"seccomp={profile}"],
        remove=True,
    )
    assert b"Operation not permitted" in done


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_pull_that_cannot_begin_has_a_status(agent: AgentUnderTest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(APIError, match="refused"):
        agent.client.images.pull(f"127.0.0.1:{port}/nothing", tag="1")
    with pytest.raises(APIError, match="not a platform"):
        agent.client.images.pull("nothing", tag="1", platform="linux/s390x/a/b")
    with refused(501, "platform"):
        agent.client.containers.create(BUSYBOX, platform="linux/s390x")


def test_statuses(agent: AgentUnderTest) -> None:
    client = agent.client
    container = run(agent, *LASTING, name="taken")
    with refused(404, "No such image"):
        client.containers.create("nothing")
    with refused(404, "No such container: nothing"):
        client.containers.get("nothing")
    with refused(409, "is already in use by container"):
        client.containers.create(BUSYBOX, name="taken")
    with refused(404, "network nothing not found"):
        client.containers.create(BUSYBOX, network="nothing")
    with refused(409, "stop the container before removing"):
        container.remove()
    with refused(404, "no such volume"):
        client.volumes.get("nothing")
    with refused(403, "not permitted on predefined bridge network"):
        client.networks.create("bridge")
    client.networks.create("twice")
    with refused(409, "already exists"):
        client.networks.create("twice")
    with refused(409, "not paused"):
        container.unpause()
    with refused(501, "connect is not supported"):
        client.networks.get("bridge").connect(container)
    with refused(501, "attach by WebSocket"):
        api = client.api
        api._raise_for_status(api._get(api._url("/containers/{0}/attach/ws", container.id)))
    with refused(404, "No such container"):
        client.api.commit("nobody")


def test_a_waiting_client_is_answered_before_the_end(agent: AgentUnderTest) -> None:
    """`docker run` starts the container only when it has the head of this answer."""
    container = agent.client.containers.create(BUSYBOX, ["sh", "-c", "exit 4"])
    api = agent.client.api
    with api._post(
        api._url("/containers/{0}/wait", container.id), params={"condition": "next-exit"}, stream=True
    ) as answer:
        assert answer.status_code == 200
        container.start()
        assert answer.json()["StatusCode"] == 4
    with refused(400, "invalid condition"):
        container.wait(condition="tired")


def test_a_start_and_a_stop_that_change_nothing(agent: AgentUnderTest) -> None:
    container = run(agent, *LASTING)
    url = agent.client.api._url
    assert agent.client.api._post(url("/containers/{0}/start", container.id)).status_code == 304
    container.stop(timeout=0)
    assert agent.client.api._post(url("/containers/{0}/stop", container.id)).status_code == 304


def test_names_that_are_made_up_at_the_same_time_differ(agent: AgentUnderTest) -> None:
    def create(_: int) -> str:
        with docker.APIClient(base_url=f"unix://{agent.socket}", version="1.44") as api:
            return str(api.create_container(BUSYBOX, "true")["Id"])

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(48)))
    names = {agent.client.containers.get(identity).name for identity in made}
    assert len(names) == len(made)
