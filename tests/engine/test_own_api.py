"""Our own endpoints, of a real daemon, asked by the controller's client."""

from __future__ import annotations

import base64
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import imagefiles, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse.fleet import volumes
from hawse.fleet.client import AgentClient, Identity
from hawse.fleet.connect import socket_agent
from hawse_agent.errors import HawseError, InputError, NotFound, PlanChanged, ProtocolError, Unreachable
from hawse_agent.spec.host import HostSpec, Item, TaskSpec

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")


@pytest.fixture
def client(agent: AgentUnderTest) -> Iterator[AgentClient]:
    identity = Identity(run="r7", user="ann", key="SHA256:k")
    with socket_agent(agent.socket, identity=identity) as client:
        yield client


def program(*tasks: tuple[str, dict[str, Any]]) -> HostSpec:
    items = tuple(
        Item(id=str(n), name=module, task=TaskSpec(module=module, args=args))
        for n, (module, args) in enumerate(tasks)
    )
    return HostSpec(items=items, login_user="root", run_id="r7")


def test_what_a_host_is(agent: AgentUnderTest, client: AgentClient) -> None:
    version = client.version()
    assert (version["pid"], version["protocol"], version["version"]) == (agent.pid, 1, "0.1.0")
    assert client.facts()["ansible_hostname"] == os.uname().nodename
    agent.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True, name="web")
    report = client.report()
    assert [container["name"] for container in report["containers"]] == ["web"]
    assert client.report(sizes=True)["agent"] == report["agent"]


def test_plan_and_apply(agent: AgentUnderTest, client: AgentClient, tmp_path: Path) -> None:
    content = base64.b64encode(b"hello\n").decode()
    spec = program(
        ("copy", {"dest": str(tmp_path / "f"), "content_b64": content}),
        ("shell", {"cmd": f"cat {tmp_path}/f; exit 3"}),
        ("shell", {"cmd": f"touch {tmp_path}/never"}),
    )
    answer = client.plan(spec)
    assert [operation.kind for operation in answer.plan.operations] == ["copy", "shell", "shell"]
    events = list(client.apply(spec, answer.plan.digest))
    results = [(event["changed"], event["failed"]) for event in events if event["event"] == "item"]
    assert results == [(True, False), (False, True)]
    assert events[-1]["failed"] and events[-1]["error"]["kind"] == "TaskFailed"
    assert (tmp_path / "f").read_text() == "hello\n" and not (tmp_path / "never").exists()
    with pytest.raises(PlanChanged):
        next(client.apply(spec, answer.plan.digest))
    assert len(client.journal(run="r7")) >= 5
    assert client.journal(run="another") == []


def test_a_host_spec_that_is_none(client: AgentClient) -> None:
    bodies: list[Any] = [[], {}, {"host_spec": {"items": 3}}, {"host_spec": {"items": [], "colour": "red"}}]
    for body in bodies:
        with pytest.raises(InputError):
            client.json("POST", "/hawse/v1/plan", data=body)
    with pytest.raises(InputError, match="'nonsense'"):
        client.plan(program(("nonsense", {})))


def test_an_image_comes_blob_by_blob(agent: AgentUnderTest, client: AgentClient) -> None:
    layer = imagefiles.files({"a": "1"})
    config = imagefiles.config([imagefiles.sha256(layer)], Cmd=["true"])
    manifest = imagefiles.manifest(config, [layer])
    blobs = {imagefiles.sha256(data): data for data in (layer, config, manifest)}
    assert client.missing_blobs(blobs) == tuple(blobs)
    for digest, data in blobs.items():
        with pytest.raises(NotFound, match="404"):
            client.request("HEAD", f"/hawse/v1/blobs/{digest}")
        with pytest.raises(ProtocolError):
            client.upload_blob(digest, [data[:-1], b"!"], len(data))
        client.upload_blob(digest, [data[:9], data[9:]], len(data))
        client.request("HEAD", f"/hawse/v1/blobs/{digest}")
    assert client.missing_blobs(blobs) == ()
    image = client.commit_image(imagefiles.sha256(manifest), ["app:1"])
    assert image == imagefiles.sha256(config) == agent.client.images.get("app:1").id
    agent.client.images.remove("app:1")
    with pytest.raises(NotFound):
        client.commit_image(imagefiles.sha256(b"nothing"), [])


def test_a_blob_goes_on_where_a_killed_daemon_stopped(agent: AgentUnderTest, client: AgentClient) -> None:
    data = os.urandom(3 << 20)
    digest, half = imagefiles.sha256(data), 1 << 20
    sent = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield data[:half]
        sent.wait()
        agent.kill()
        yield data[half:]

    def watch() -> None:
        path = agent.root / "lib/partial" / digest.removeprefix("sha256:")
        while not path.exists() or path.stat().st_size < half:
            time.sleep(0.01)
        sent.set()

    threading.Thread(target=watch, daemon=True).start()
    with client.second() as bulk, pytest.raises(Unreachable):
        bulk.upload_blob(digest, pieces(), len(data))
    agent.start()
    with client.second() as bulk:
        assert bulk.blob_offset(digest) == half
        bulk.upload_blob(digest, [data[half:]], len(data), offset=half)
        assert bulk.blob_offset(digest) is None
        with bulk.download_blob(digest, offset=half) as rest:
            assert b"".join(rest) == data[half:]


def test_a_volume_goes_out_and_comes_back(agent: AgentUnderTest, client: AgentClient) -> None:
    """While a container uses it, which is stopped and started for the way back."""
    web = agent.client.containers.run(
        BUSYBOX,
        ["sh", "-c", "[ -e /data/f ] || echo first > /data/f; exec sleep 1000"],
        detach=True,
        name="web",
        volumes={"data": {"bind": "/data"}},
    )
    data = agent.root / "lib/volumes/data/_data/f"
    while not data.exists() or data.read_text() != "first\n":
        assert web.exec_run("true").exit_code == 0
    with client.backup_volume("data", compression="gzip") as (backup, pieces):
        tarball = b"".join(pieces)
    manifest = client.backup_manifest("data", backup)
    assert manifest["bytes"] == len(tarball)
    data.write_text("second\n")
    with pytest.raises((InputError, ProtocolError)):
        client.restore_volume("data", manifest, [tarball[:-8]])
    assert data.read_text() == "second\n"
    answer = client.restore_volume("data", manifest, [tarball[:5], tarball[5:]])
    assert answer["restarted"] == ["web"]
    assert web.exec_run("cat /data/f").output == b"first\n"
    (listed,) = client.volumes(sizes=True)
    assert (listed["name"], listed["users"]) == ("data", ["web"]) and listed["size"] > 0


def test_backups_of_what_is_not_there(client: AgentClient) -> None:
    with pytest.raises(NotFound), client.backup_volume("nothing"):
        pass
    with pytest.raises(InputError), client.backup_volume("nothing", compression="rar"):  # type: ignore[arg-type]
        pass
    with pytest.raises(NotFound):
        client.backup_manifest("data", "0123")


def test_a_backup_that_fails_says_why(agent: AgentUnderTest, client: AgentClient, tmp_path: Path) -> None:
    agent.client.volumes.create("odd")
    os.mknod(agent.root / "lib/volumes/odd/_data/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0))
    with pytest.raises(HawseError, match="volume odd has the block device 8:0"):
        volumes.backup(client, "odd", tmp_path / "odd.tar.zst")
    assert list(tmp_path.iterdir()) == []


def test_who_did_what_is_in_the_audit_log(agent: AgentUnderTest, client: AgentClient) -> None:
    client.json("POST", "/v1.44/volumes/create", data={"Name": "data"})
    client.version()
    last = (agent.root / "lib/audit.log").read_text().splitlines()[-1]
    for word in ('"user": "ann"', '"run": "r7"', '"path": "/v1.44/volumes/create"', '"status": 201'):
        assert word in last


def test_a_zygote_that_is_killed_is_replaced(agent: AgentUnderTest) -> None:
    for pid in Path("/proc", str(agent.pid), "task", str(agent.pid), "children").read_text().split():
        os.kill(int(pid), 9)
    for _ in range(2):
        agent.client.containers.run(BUSYBOX, "true", remove=True)
    agent.restart()
    agent.client.containers.run(BUSYBOX, "true", remove=True)
