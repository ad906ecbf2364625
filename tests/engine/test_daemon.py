"""Daemons as processes: who starts them, who may, how they leave, what reset leaves."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support import agent as agents
from tests.support import busybox, isolation, leaks
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse.fleet.client import AgentClient
from hawse.fleet.connect import socket_agent
from hawse.fleet.stream import MAGIC
from hawse_agent.errors import OutOfSpace, from_wire
from hawse_agent.linux import mount
from hawse_agent.locations import MAX_LOG
from hawse_agent.spec.host import HostSpec, Item, TaskSpec

SESSION = isolation.current()
pytestmark = pytest.mark.skipif(SESSION is None, reason="needs a session (make test)")

TIMEOUT = 120.0
"""Seconds; all are waited for by events. An emulated machine (`make test-vm`) is 20 times slower."""
AGENT = (sys.executable, "-m", "hawse_agent")
VERSION = b"GET /hawse/v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def _forwarding() -> None:
    """Every daemon turns it on, and none off: others may rely on it by then."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@pytest.fixture
def root() -> Iterator[Path]:
    """Of an instance that is removed, whatever there is of it."""
    assert SESSION is not None
    root = agents.new_root(SESSION.directory)
    yield root
    assert run("reset", "--root", str(root), "--volumes").returncode == 0
    assert not root.exists()


def run(*words: str, data: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*AGENT, *words], input=data, capture_output=True, timeout=TIMEOUT, cwd=cwd)


class Dial:
    """`hawse-agent dial`, as SSH runs it."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [*AGENT, "dial", "--root", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        line = self.read_until(b"\n")
        assert line.startswith(MAGIC)
        self.preamble = json.loads(line[len(MAGIC) :])

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def post(self, path: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

    def read_until(self, end: bytes) -> bytes:
        assert self.process.stdout is not None
        data = b""
        while end not in data:
            assert select.select([self.process.stdout], [], [], TIMEOUT)[0]
            piece = os.read(self.process.stdout.fileno(), 1 if end == b"\n" else 1 << 16)
            assert piece, data
            data += piece
        return data

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(TIMEOUT)


@contextmanager
def dial(root: Path) -> Iterator[Dial]:
    dialled = Dial(root)
    try:
        yield dialled
    finally:
        dialled.close()


def client(root: Path) -> AgentClient:
    return socket_agent(root / "run/agent.sock")


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def daemons() -> list[str]:
    return [title for title in leaks.processes() if title.startswith("hawse-agent: daemon")]


def end(pid: int) -> None:
    """SIGTERM, until it has left."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    assert select.select([pidfd], [], [], TIMEOUT)[0]
    os.close(pidfd)


def commands(*scripts: str) -> HostSpec:
    items = tuple(
        Item(id=str(n), name=f"step {n}", task=TaskSpec(module="shell", args={"cmd": script}))
        for n, script in enumerate(scripts)
    )
    return HostSpec(items=items, login_user="root", run_id="r1")


# -- dial ------------------------------------------------------------------------------------------


def test_dial_starts_one_daemon_and_presents_it(root: Path) -> None:
    with dial(root) as first, dial(root) as second:
        pid = first.preamble.pop("pid")
        assert first.preamble == {"protocol": 1, "version": "0.1.0", "bundle": ""}
        assert second.preamble["pid"] == pid
        first.send(VERSION)
        head, _, body = first.read_until(b"}\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body)["pid"] == pid
    assert daemons() == [f"hawse-agent: daemon {json.loads(body)['instance']}"]


def test_many_dial_at_once(root: Path) -> None:
    dials = [
        subprocess.Popen([*AGENT, "dial", "--root", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(5)
    ]
    answers = [dialled.communicate(VERSION, TIMEOUT)[0] for dialled in dials]
    assert len({answer.split(b"\n")[0] for answer in answers}) == 1
    assert all(b'"version": "0.1.0"' in answer for answer in answers)


def test_dial_by_relative_names(root: Path) -> None:
    root.mkdir()
    script = root / "agent.py"
    script.write_text("from hawse_agent.__main__ import run\nrun()\n")
    done = subprocess.run(
        [sys.executable, "agent.py", "dial", "--root", "."], input=VERSION, capture_output=True, cwd=root
    )
    script.unlink()
    assert b'"version": "0.1.0"' in done.stdout, done.stderr
    assert (root / "run/agent.sock").exists()


def test_dial_ends_when_nobody_listens_any_more(root: Path) -> None:
    """Without anything to write, which alone would not tell."""
    with dial(root) as dialled:
        assert dialled.process.stdout is not None
        dialled.process.stdout.close()
        assert dialled.process.wait(TIMEOUT) == 0


def test_dial_says_why_the_daemon_does_not_start(root: Path) -> None:
    (root / "lib").mkdir(parents=True)
    (root / "lib/state.db").write_text("this is not a database, but long enough to be taken for one\n" * 100)
    for _ in range(2):
        done = run("dial", "--root", str(root))
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode().startswith("hawse-agent: ")
        assert "the file is damaged" in done.stderr.decode()
    assert not daemons()


def test_its_log_does_not_grow_for_ever(root: Path) -> None:
    (root / "lib").mkdir(parents=True)
    log, old = root / "lib/daemon.log", root / "lib/daemon.log.1"
    log.write_bytes(b"x" * (MAX_LOG + 1))
    with dial(root):
        assert (log.stat().st_size, old.stat().st_size) == (0, MAX_LOG + 1)


def test_a_long_log_is_begun_anew_by_who_writes_it(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    script = (
        "import os, pathlib, sys; from hawse_agent.daemon import rotate_log; "
        "log = pathlib.Path(sys.argv[1]); "
        "os.write(2, b'first'); rotate_log(log); os.write(2, b'x' * (1 << 20)); rotate_log(log); "
        "os.write(1, b'out'); os.write(2, b'err')"
    )
    with log.open("ab") as file:
        subprocess.run(
            [sys.executable, "-c", script, str(log)], stdout=file, stderr=file, check=True, timeout=TIMEOUT
        )
    assert log.read_bytes() == b"outerr"
    assert (tmp_path / "daemon.log.1").stat().st_size == MAX_LOG + len("first")


# -- the daemon ------------------------------------------------------------------------------------


def test_the_second_daemon_of_an_instance_is_refused(root: Path) -> None:
    with dial(root) as dialled:
        pid = dialled.preamble["pid"]
    done = run("daemon", "--root", str(root))
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"hawse-agent: a daemon of this instance runs already (process {pid}, {root}/run)",
        "  --root DIR makes an instance of its own",
    ]


def test_the_socket_can_be_elsewhere(root: Path) -> None:
    root.mkdir()
    ready, tell = os.pipe()
    arguments = ["daemon", "--root", str(root), f"--socket={root}/other.sock", "--ready-fd", str(tell)]
    process = subprocess.Popen([*AGENT, *arguments], pass_fds=[tell])
    os.close(tell)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    with socket_agent(root / "other.sock") as agent:
        assert agent.version()["pid"] == process.pid
    process.terminate()
    assert process.wait(TIMEOUT) == 0
    assert not (root / "other.sock").exists()


def test_stopped_by_request_and_dialled_at_once(root: Path) -> None:
    with dial(root) as dialled:
        before = dialled.preamble["pid"]
    for _ in range(3):
        with client(root) as agent:
            agent.stop_daemon()
        with dial(root) as dialled:
            assert dialled.preamble["pid"] != before
            before = dialled.preamble["pid"]
    assert len(daemons()) == 1


def test_it_has_left_no_zygote_behind_when_it_is_killed(root: Path) -> None:
    with dial(root) as dialled:
        os.kill(dialled.preamble["pid"], signal.SIGKILL)
        assert dialled.process.wait(TIMEOUT) == 0
    wait_until(lambda: "hawse-agent: zygote" not in leaks.processes())
    with dial(root) as again:
        assert again.preamble["pid"] != dialled.preamble["pid"]


def test_containers_do_not_notice(root: Path) -> None:
    if not busybox.available():
        pytest.skip("needs busybox-static")
    with AgentUnderTest(root) as agent:
        agent.load_busybox()
        web = agent.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True, ports={"80/tcp": 18080})
        agent.stop()
        zygotes = [title for title in leaks.processes() if title == "hawse-agent: zygote"]
        assert not zygotes and any("sleep 1000" in title for title in leaks.processes())
        with dial(root) as dialled:  # by itself, as a controller would
            web.reload()
            assert web.status == "running"
            assert web.exec_run("true").exit_code == 0
        end(dialled.preamble["pid"])
        agent.start()


# -- apply -----------------------------------------------------------------------------------------


def begin(dialled: Dial, root: Path, spec: HostSpec) -> None:
    """Applies a program and returns once its first operation has begun."""
    from hawse_agent.spec import codec

    with client(root) as agent:
        digest = agent.plan(spec).plan.digest
    dialled.post("/hawse/v1/apply", {"host_spec": codec.to_json(spec), "digest": digest})
    dialled.read_until(b'"status": "start"')


def journal(root: Path) -> list[dict[str, Any]]:
    with client(root) as agent:
        return list(agent.journal(run="r1"))


def noted(root: Path, event: str) -> bool:
    return any(entry.get("event") == event or event in json.dumps(entry) for entry in journal(root))


def test_a_connection_that_is_cut_ends_the_command_in_hand(root: Path, tmp_path: Path) -> None:
    go, finished, further = (tmp_path / name for name in ("go", "finished", "further"))
    spec = commands(f"until [ -e {go} ]; do sleep 0.01; done; touch {finished}", f"touch {further}")
    with dial(root) as dialled:
        begin(dialled, root, spec)
    wait_until(lambda: noted(root, "who asked for it has gone"))
    go.touch()
    assert not finished.exists() and not further.exists()


def test_a_daemon_that_leaves_finishes_the_operation_in_hand(root: Path, tmp_path: Path) -> None:
    """And who dials meanwhile waits for the next daemon."""
    go, finished, further = (tmp_path / name for name in ("go", "finished", "further"))
    spec = commands(f"until [ -e {go} ]; do sleep 0.01; done; touch {finished}", f"touch {further}")
    with dial(root) as dialled:
        begin(dialled, root, spec)
        os.kill(dialled.preamble["pid"], signal.SIGTERM)
        wait_until(lambda: not (root / "run/agent.sock").exists())
        waiting = subprocess.Popen(
            [*AGENT, "dial", "--root", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert waiting.stdout is not None
        assert not select.select([waiting.stdout], [], [], 0.3)[0]
        go.touch()
        assert b'"version": "0.1.0"' in waiting.communicate(VERSION, TIMEOUT)[0]
    assert finished.exists() and not further.exists()
    assert noted(root, '"cut"')


# -- a full disk -----------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_survived(root: Path) -> None:
    root.mkdir()
    mount.mount("tmpfs", str(root), "tmpfs", 0, "size=16m")
    try:
        with dial(root), client(root) as agent:
            filler = root / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
            spec = commands(*["true"] * 200)  # each is noted in the journal
            digest = agent.plan(spec).plan.digest
            last = list(agent.apply(spec, digest))[-1]
            assert last["failed"] and isinstance(from_wire(last["error"]), OutOfSpace)
            assert agent.version()["version"] == "0.1.0"
            filler.unlink()
            agent.json("POST", "/v1.44/volumes/create", data={"Name": "v"})
            assert [volume["name"] for volume in agent.volumes()] == ["v"]
        assert run("reset", "--root", str(root), "--volumes").returncode == 0
    finally:
        mount.umount(str(root), mount.MNT_DETACH)
        root.rmdir()


# -- reset -----------------------------------------------------------------------------------------


def test_reset_keeps_volumes_unless_told(root: Path) -> None:
    if not busybox.available():
        pytest.skip("needs busybox-static")
    agent = AgentUnderTest(root)
    agent.load_busybox()
    agent.client.networks.create("front")
    agent.client.containers.run(
        BUSYBOX, ["sh", "-c", "echo hello > /data/f; exec sleep 1000"], detach=True, network="front",
        ports={"80/tcp": 18080}, volumes={"data": {"bind": "/data"}}, restart_policy={"Name": "always"},
    )  # fmt: skip
    data = root / "lib/volumes/data/_data/f"
    wait_until(data.exists)
    done = run("reset", "--root", str(root))
    assert (done.returncode, done.stdout.decode()) == (0, f"kept {root}/lib/volumes/data\n")
    assert data.read_text() == "hello\n"
    assert sorted(path.name for path in root.iterdir()) == ["lib"]
    assert sorted(path.name for path in (root / "lib").iterdir()) == ["volumes"]
    agent.close()
    ours = ("sleep 1000", "hawse-agent", "hawse-shim")
    assert not [title for title in leaks.processes() if title.startswith(ours)]


def test_reset_of_nothing(root: Path) -> None:
    assert run("reset", "--root", str(root)).returncode == 0


# -- the rest of the command line --------------------------------------------------------------------


def test_doctor(root: Path) -> None:
    done = run("doctor", "--json", "--root", str(root))
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and answer["ok"]
    checks = {check["name"]: check for check in answer["checks"]}
    assert checks["nftables"]["status"] == checks["cgroups"]["status"] == "ok"
    assert checks["daemon"]["detail"].startswith("not running")
    with dial(root) as dialled:
        text = run("doctor", "--root", str(root)).stdout.decode()
        assert f"daemon: process {dialled.preamble['pid']}, version 0.1.0" in text
    assert not (root / "lib/audit.log").exists()


def test_version_and_wrong_words() -> None:
    assert run("version").stdout == b"hawse-agent 0.1.0\n"
    assert json.loads(run("version", "--json").stdout) == {"version": "0.1.0", "bundle": ""}
    for words in (["nonsense"], ["dial", "--rot", "x"], ["daemon", "--root"], []):
        assert run(*words).returncode == 2
    assert run("help").returncode == 0
