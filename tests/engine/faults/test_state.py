"""The state file locked, damaged or gone: no daemon starts, nothing is lost, `doctor --rebuild` mends it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.types import IPAMConfig, IPAMPool
from tests.support import agent as agents
from tests.support import isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")

REBUILD = "hawse-agent doctor --rebuild"


def doctor(agent: AgentUnderTest) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hawse_agent", "doctor", "--rebuild", "--root", str(agent.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def refused(agent: AgentUnderTest) -> str:
    """What the daemon says when it does not start."""
    command = [sys.executable, "-m", "hawse_agent", "daemon", "--root", str(agent.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def state(agent: AgentUnderTest) -> Iterator[Path]:
    """The file of a daemon that was killed; what was kept aside of it is removed at the end."""
    state = agent.root / "lib/state.db"
    yield state
    for aside in state.parent.glob("state.db.damaged-*"):
        aside.unlink()


def spoil(state: Path) -> None:
    """Its first page is as it was, and so is its size."""
    data = bytearray(state.read_bytes())
    data[4096:] = b"\xde\xad" * ((len(data) - 4096) // 2)
    state.write_bytes(data)


def test_locked_by_another_process(agent: AgentUnderTest, state: Path) -> None:
    agent.kill()
    code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('BEGIN EXCLUSIVE'); print()"
    locker = subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdout.flush(); sys.stdin.read()", str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with locker:
        assert locker.stdout is not None and locker.stdout.read(1)
        said = refused(agent)
        locker.communicate(b"")
    assert f"{state}: process {locker.pid} (python" in said and "end that process" in said
    agent.start()
    assert agent.client.images.list()


def test_nothing_is_begun_anew_beside_containers(agent: AgentUnderTest, state: Path) -> None:
    container = agent.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True)
    agent.kill()
    for path in state.parent.glob("state.db*"):
        path.unlink()
    assert f"{state} is gone" in (said := refused(agent)) and REBUILD in said
    assert doctor(agent).returncode == 0
    agent.start()
    assert agent.client.containers.get(container.id).status == "running"


def test_a_daemon_that_runs_needs_no_rebuild(agent: AgentUnderTest) -> None:
    done = doctor(agent)
    assert done.returncode == 1 and "runs already" in done.stderr


def inhabit(agent: AgentUnderTest) -> None:
    """With something of everything."""
    pool = IPAMConfig(pool_configs=[IPAMPool(subnet="10.77.0.0/24")])
    agent.client.networks.create("front", ipam=pool, labels={"who": "me"})
    agent.client.networks.create("idle")
    agent.client.images.get(BUSYBOX).tag("other", "name")
    agent.client.containers.run(
        BUSYBOX,
        ["sh", "-c", "echo here > /tmp/index.html; httpd -p 80 -h /tmp; exec sleep 1000"],
        name="web", network="front", ports={"80/tcp": 8078}, volumes={"data": {"bind": "/data"}},
        labels={"a": "b"}, restart_policy={"Name": "unless-stopped"}, detach=True,
    )  # fmt: skip
    agent.client.containers.run(BUSYBOX, ["sh", "-c", "echo out; exit 3"], name="job", detach=True).wait()
    agent.client.containers.create(BUSYBOX, ["true"], name="later")
    page(8078)


def page(port: int) -> bytes:
    """Served by a container, once it listens."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return bytes(urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=20).read())
        except OSError:
            assert time.monotonic() < deadline
        time.sleep(0.02)


def look(agent: AgentUnderTest) -> dict[str, Any]:
    """How all of it is."""
    found = {c.name: c for c in agent.client.containers.list(all=True)}
    return {
        "containers": {
            name: (c.id, c.status, c.attrs["Config"], c.attrs["HostConfig"], c.attrs["Mounts"])
            for name, c in found.items()
        },
        "web": (found["web"].attrs["State"]["Pid"], found["web"].attrs["NetworkSettings"]),
        "job": (found["job"].attrs["State"]["ExitCode"], found["job"].logs()),
        "networks": {network.name: network.id for network in agent.client.networks.list()},
        "images": {image.id: (image.tags, image.attrs["Size"]) for image in agent.client.images.list()},
        "volumes": sorted(volume.name for volume in agent.client.volumes.list()),
        "page": page(8078),
        "names": found["web"].exec_run(["nslookup", "web"]).exit_code,
    }


@pytest.mark.parametrize("how", ["damaged", "cut"])
def test_rebuilt(agent: AgentUnderTest, state: Path, how: str) -> None:
    inhabit(agent)
    before = look(agent)
    agent.kill()
    with sqlite3.connect(state) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    if how == "damaged":
        spoil(state)
    else:
        state.write_bytes(state.read_bytes()[:10000])
    broken = state.read_bytes()
    said = refused(agent)
    assert f"{state}: the file is damaged" in said and REBUILD in said
    assert state.read_bytes() == broken
    done = doctor(agent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "container web (running)" in done.stdout and "network front" in done.stdout
    (aside,) = state.parent.glob("state.db.damaged-*")
    assert aside.read_bytes() == broken
    agent.start()
    assert look(agent) == before
    agent.client.containers.get("web").restart(timeout=0)
    agent.client.containers.get("later").start()
    agent.client.images.remove("other:name")


def test_without_the_copies() -> None:
    """Images come from manifests and layers, the network in use from the kernel; what is lost is said. In an
    instance of its own: what is lost stays until the instance goes."""
    session = isolation.current()
    assert session is not None
    with AgentUnderTest(agents.new_root(session.directory)) as agent:
        agent.load_busybox()
        inhabit(agent)
        before = look(agent)
        agent.kill()
        spoil(agent.root / "lib/state.db")
        later = before["containers"]["later"][0]
        (agent.root / "lib/records.json").unlink()
        (agent.root / "lib/containers" / later / "container.json").write_text('{"half": ')
        done = doctor(agent)
        assert done.returncode == 1
        assert f"not recovered: container {later[:12]}" in done.stdout and "names of images" in done.stdout
        agent.start()
        web = agent.client.containers.get("web")
        assert (web.status, web.attrs["State"]["Pid"]) == ("running", before["web"][0])
        assert agent.client.networks.get("front").id == before["networks"]["front"]
        assert {image.id for image in agent.client.images.list()} == before["images"].keys()
        assert page(8078) == before["page"]
        assert (agent.root / "lib/containers" / later / "upper").is_dir()
        web.restart(timeout=0)
        assert page(8078) == before["page"]


def test_what_is_malformed_is_lost_alone() -> None:
    """Of each kind one; all others are recovered, and a daemon starts with them."""
    session = isolation.current()
    assert session is not None
    with AgentUnderTest(agents.new_root(session.directory)) as agent:
        agent.load_busybox()
        inhabit(agent)
        before = look(agent)
        agent.kill()
        lib = agent.root / "lib"
        spoil(lib / "state.db")
        copy = json.loads((lib / "records.json").read_text())
        copy["networks"][:0] = [
            "nonsense",
            {"name": "odd", "id": 7},
            {**copy["networks"][0], "id": "5" * 64, "name": "far", "subnet": "10.0.0.0/99"},
        ]
        copy["images"]["sha256:00"] = {"not": "text"}
        copy["tags"]["lost:1"] = "sha256:00"
        (lib / "records.json").write_text(json.dumps(copy))
        lease = lib / "containers" / before["containers"]["web"][0] / "lease.json"
        data = json.loads(lease.read_text())
        data["endpoints"][0]["ipv4"] = "nowhere"
        lease.write_text(json.dumps(data))
        (lib / "containers/stray").mkdir()
        (lib / "containers/stray/container.json").mkdir()
        done = doctor(agent)
        shutil.rmtree(lib / "containers/stray")
        assert done.returncode == 1, done.stderr
        lost = [line for line in done.stdout.splitlines() if line.startswith("not recovered")]
        for what in ("network without a name", "network odd", "network far", "image 00", "container stray",
                     "addresses and ports of container web"):  # fmt: skip
            assert any(line.startswith(f"not recovered: {what}: ") for line in lost), (what, lost)
        assert len(lost) == 6
        agent.start()
        assert agent.client.networks.get("front").id == before["networks"]["front"]
        web = agent.client.containers.get("web")
        assert (web.status, web.attrs["State"]["Pid"]) == ("running", before["web"][0])
        web.restart(timeout=0)
        now = look(agent)
        assert {key: now[key] for key in ("job", "networks", "images", "volumes", "page", "names")} == {
            key: before[key] for key in ("job", "networks", "images", "volumes", "page", "names")
        }
