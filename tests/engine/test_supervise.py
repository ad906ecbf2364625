"""Real shims of a real zygote, spoken to as the daemon does, without a daemon."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import busybox, isolation, leaks
from tests.support.machine import Machine

from hawse_agent.cgroups import Base, find_base
from hawse_agent.errors import Conflict, NotFound, StartFailed
from hawse_agent.network import dns
from hawse_agent.paths import paths_for
from hawse_agent.spec import codec
from hawse_agent.spec.container import HealthCheck, LogConfig, Resources, RestartPolicy
from hawse_agent.spec.runtime import RuntimeConfig
from hawse_agent.supervise import logs, shim
from hawse_agent.supervise.client import AttachOptions, ShimClient, Started, Watcher, start
from hawse_agent.supervise.zygote import Zygote

pytestmark = [
    pytest.mark.skipif(
        isolation.current() is None, reason="needs a session: python -m tests.support.isolation"
    ),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

TIMEOUT = 20.0


@dataclass(kw_only=True)
class Running:
    config: RuntimeConfig
    started: Started
    shim: ShimClient
    events: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)

    def wait(self, kind: str) -> dict[str, Any]:
        """The next event of this kind; those before it are dropped."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            event = self.events.get(timeout=max(0.1, deadline - time.monotonic()))
            assert event is not None, f"the shim died before {kind}"
            if event["event"] == kind:
                return event

    def end(self) -> dict[str, Any]:
        exited = self.wait("exited")
        self.wait("gone")
        return exited

    def wait_for_log(self, text: str) -> None:
        """A shell that has just been started ignores signals until its trap is set."""
        deadline = time.monotonic() + TIMEOUT
        path = Path(self.config.log_path)
        for record in logs.read(path, follow=True, stop=lambda: time.monotonic() > deadline):
            if text in record.data.decode():
                return
        raise AssertionError(f"{text!r} was not said")

    @property
    def log(self) -> str:
        return b"".join(r.data for r in logs.read(Path(self.config.log_path))).decode()


class Shims(Machine):
    def __init__(self, directory: Path, base: Base, zygote: Zygote) -> None:
        super().__init__(directory, base)
        self.zygote = zygote
        self.watcher = Watcher()
        self.watcher.start()
        self.all: list[Running] = []

    def prepare(self, script: str, **fields: Any) -> RuntimeConfig:
        config = self.config("sh", "-c", script, **fields)
        home = self.directory / config.id
        return replace(
            config,
            log_path=str(home / "log"),
            exit_path=str(home / "exit.json"),
            run_dir=str(home / "run"),
        )

    def start(
        self, script: str, before: Callable[[ShimClient], None] = lambda shim: None, **fields: Any
    ) -> Running:
        config = self.prepare(script, **fields)
        runtime = self.directory / config.id / "runtime.json"
        runtime.write_text(codec.dumps(config))
        started = start(
            self.zygote,
            runtime,
            configure_network=lambda netns, pid: [],
            before_run=before,
            timeout=TIMEOUT,
        )
        running = Running(config=config, started=started, shim=ShimClient(Path(config.run_dir) / "shim.sock"))
        self.watcher.add(config.id, started.watch, lambda _, event: running.events.put(event))
        self.all.append(running)
        return running

    def close(self) -> None:
        for running in self.all:
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                running.shim.stop(signal=9, timeout=0)
                running.wait("gone")
        self.watcher.stop()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote.fork(["/bin/false"], shim.main, dns.serve)
    while "hawse-agent: zygote" not in leaks.processes():
        time.sleep(0.001)  # it is this process by name until it has begun
    yield zygote
    zygote.close()
    os.wait()


@pytest.fixture
def shims(zygote: Zygote, tmp_path: Path) -> Iterator[Shims]:
    shims = Shims(tmp_path, find_base(paths_for(tmp_path / "agent")), zygote)
    yield shims
    shims.close()
    assert shims.tree.names() == []
    shims.tree.remove_base()


def frames(data: bytes) -> dict[int, bytes]:
    """Docker's multiplexed stream, taken apart."""
    out: dict[int, bytes] = {}
    while data:
        number, size = struct.unpack(">BxxxL", data[:8])
        out[number] = out.get(number, b"") + data[8 : 8 + size]
        data = data[8 + size :]
    return out


def read_to_end(sock: socket.socket) -> bytes:
    sock.settimeout(TIMEOUT)
    pieces = []
    while piece := sock.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    sock.settimeout(TIMEOUT)
    data = b""
    while wanted not in data:
        piece = sock.recv(1 << 16)
        assert piece, data
        data += piece
    return data


def test_exit_code_log_and_nothing_left(shims: Shims) -> None:
    running = shims.start("echo out; echo err >&2; exit 7")
    exited = running.end()
    assert (exited["exit_code"], exited["oom"], exited["restarting"]) == (7, False, False)
    assert sorted(running.log.split()) == ["err", "out"]
    state = json.loads(Path(running.config.exit_path).read_text())
    assert (state["status"], state["exit_code"], state["pid"]) == ("exited", 7, 0)
    assert not Path(running.config.run_dir).exists()


def test_a_program_that_is_not_there(shims: Shims) -> None:
    config = replace(shims.prepare("true"), process=replace(shims.prepare("").process, argv=("nosuch",)))
    runtime = shims.directory / config.id / "runtime.json"
    runtime.write_text(codec.dumps(config))
    with pytest.raises(StartFailed) as caught:
        start(
            shims.zygote,
            runtime,
            configure_network=lambda netns, pid: [],
            before_run=lambda shim: None,
            timeout=TIMEOUT,
        )
    assert caught.value.container_exit == 127
    assert not Path(config.run_dir).exists()


def test_the_network_fails(shims: Shims) -> None:
    """The daemon hangs up instead of `run`: the container never was."""
    config = shims.prepare("sleep 100")
    runtime = shims.directory / config.id / "runtime.json"
    runtime.write_text(codec.dumps(config))

    def refuse(netns: int | None, pid: int) -> list[int]:
        raise Conflict("no address left")

    with pytest.raises(Conflict):
        start(shims.zygote, runtime, configure_network=refuse, before_run=lambda shim: None, timeout=TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while Path(config.run_dir).exists() or shims.tree.names():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_attach_before_the_start_sees_every_byte(shims: Shims) -> None:
    ours, theirs = socket.socketpair()

    def attach(client: ShimClient) -> None:
        client.attach(theirs, AttachOptions(stdout=True, stderr=True))
        theirs.close()

    running = shims.start("seq 1 50000; echo oops >&2", before=attach)
    got = frames(read_to_end(ours))
    assert got[1].decode().split() == [str(n) for n in range(1, 50001)]
    assert got[2] == b"oops\n"
    assert running.end()["exit_code"] == 0


def test_stdin_goes_in_and_ends(shims: Shims) -> None:
    ours, theirs = socket.socketpair()

    def attach(client: ShimClient) -> None:
        client.attach(theirs, AttachOptions(stdin=True, stdout=True), head=b"head ")
        theirs.close()

    process = replace(shims.prepare("").process, argv=("sh", "-c", "cat; echo end"))
    running = shims.start(
        "cat; echo end", before=attach, process={"stdin": True, "stdin_once": True, "argv": process.argv}
    )
    ours.sendall(b"body" * 100_000)
    ours.shutdown(socket.SHUT_WR)
    got = frames(read_to_end(ours))[1]
    assert got == b"head " + b"body" * 100_000 + b"end\n"
    assert running.end()["exit_code"] == 0


def test_a_terminal_resized_and_let_go_of(shims: Shims) -> None:
    script = "stty size; read line; stty size; echo got $line; sleep 100"
    running = shims.start(
        script,
        process={"tty": True, "stdin": True, "console_height": 20, "console_width": 70},
    )
    ours, theirs = socket.socketpair()
    running.shim.attach(theirs, AttachOptions(stdin=True, stdout=True, stderr=True, logs=True))
    theirs.close()
    read_until(ours, b"20 70")
    running.shim.resize(33, 99)
    ours.sendall(b"hello\n")
    out = read_until(ours, b"got hello")
    assert b"33 99" in out
    ours.sendall(b"\x10\x11")
    assert read_to_end(ours) in (b"\r\n", b"")  # the rest of the line may have come already
    assert running.shim.state()["status"] == "running"


def test_exec_streams_and_codes(shims: Shims) -> None:
    running = shims.start("sleep 100")
    process = replace(running.config.process, argv=("sh", "-c", "cat; echo err >&2; exit 3"), stdin=True)
    ours, theirs = socket.socketpair()
    both = AttachOptions(stdin=True, stdout=True, stderr=True)
    running.shim.exec_start("e1", process, theirs, b"a", both)
    theirs.close()
    ours.sendall(b"bc")
    ours.shutdown(socket.SHUT_WR)
    assert frames(read_to_end(ours)) == {1: b"abc", 2: b"err\n"}
    assert running.wait("exec_exited") == {"event": "exec_exited", "exec": "e1", "exit_code": 3}
    ours, theirs = socket.socketpair()
    running.shim.exec_start("quiet", process, theirs, b"", AttachOptions(stdin=True, stderr=True))
    theirs.close()
    ours.sendall(b"bc")
    ours.shutdown(socket.SHUT_WR)
    assert frames(read_to_end(ours)) == {2: b"err\n"}
    with pytest.raises(NotFound):
        running.shim.exec_resize("e2", 1, 1)
    with pytest.raises(StartFailed) as caught:
        running.shim.exec_start("e3", replace(process, argv=("nosuch",)), None)
    assert caught.value.container_exit == 127


def test_an_exec_ends_with_its_container(shims: Shims) -> None:
    running = shims.start("sleep 100")
    ours, theirs = socket.socketpair()
    process = replace(running.config.process, argv=("sleep", "100"))
    running.shim.exec_start("e1", process, theirs)
    theirs.close()
    running.shim.stop(signal=9, timeout=0)
    assert running.wait("exec_exited")["exit_code"] == 137
    assert running.end()["exit_code"] == 137
    assert read_to_end(ours) == b""


def test_stop_asks_and_then_kills(shims: Shims) -> None:
    polite = shims.start("trap 'exit 5' TERM; echo listening; while :; do sleep 0.05; done")
    polite.wait_for_log("listening")
    polite.shim.stop(signal=15, timeout=20)
    assert polite.end()["exit_code"] == 5
    deaf = shims.start("trap '' TERM; echo listening; while :; do sleep 1; done")
    deaf.wait_for_log("listening")
    began = time.monotonic()
    deaf.shim.stop(signal=15, timeout=0.3)
    assert deaf.end()["exit_code"] == 137
    assert time.monotonic() - began >= 0.3


def test_pause_and_stop_of_a_paused_one(shims: Shims) -> None:
    running = shims.start("trap 'exit 5' TERM; echo listening; while :; do sleep 0.05; done")
    running.wait_for_log("listening")
    running.shim.pause()
    assert running.wait("paused")
    assert running.shim.state()["status"] == "paused"
    with pytest.raises(Conflict):
        running.shim.exec_start("e", running.config.process, None)
    running.shim.unpause()
    assert running.wait("unpaused")
    running.shim.pause()
    running.shim.stop(signal=15, timeout=20)
    assert running.end()["exit_code"] == 5


def test_restarts_with_growing_delays_and_stops_in_between(shims: Shims) -> None:
    running = shims.start("exit 1", restart=RestartPolicy(mode="always"))
    for count in (1, 2, 3):
        assert running.wait("exited")["restarting"]
        assert running.wait("restarted")["restart_count"] == count
    assert running.wait("exited")["restarting"]
    assert running.shim.state()["status"] == "restarting"
    running.shim.stop(signal=15, timeout=10)
    assert running.wait("gone")["state"]["status"] == "exited"


def test_on_failure_counts(shims: Shims) -> None:
    running = shims.start("echo run; exit 3", restart=RestartPolicy(mode="on-failure", max_retries=2))
    assert running.wait("restarted")["restart_count"] == 1
    assert running.wait("restarted")["restart_count"] == 2
    exited = running.wait("exited")
    assert (exited["exit_code"], exited["restarting"]) == (3, False)
    running.wait("gone")
    assert running.log.split() == ["run"] * 3


def test_a_killed_pid_1_comes_back_and_a_container_killed_on_purpose_does_not(shims: Shims) -> None:
    running = shims.start("sleep 100", restart=RestartPolicy(mode="always"))
    os.kill(running.started.pid, signal.SIGKILL)
    assert running.wait("exited")["exit_code"] == 137
    assert running.wait("restarted")["pid"] != running.started.pid
    running.shim.signal(signal.SIGKILL)
    assert not running.wait("exited")["restarting"]


def test_out_of_memory_is_noticed(shims: Shims) -> None:
    running = shims.start("tail /dev/zero", resources=Resources(memory=16 << 20, memory_swap=16 << 20))
    exited = running.end()
    assert exited["oom"]
    assert exited["exit_code"] in (1, 137)


def test_limits_change_while_it_runs(shims: Shims) -> None:
    running = shims.start("sleep 100", resources=Resources(memory=64 << 20, pids=50))
    running.shim.update(resources=Resources(memory=128 << 20, memory_swap=256 << 20, pids=60), restart=None)
    limits = shims.tree.open(running.config.cgroup).limits()
    assert (limits.memory, limits.pids) == (128 << 20, 60)


def test_health_goes_up_and_down(shims: Shims) -> None:
    check = HealthCheck(test=("CMD-SHELL", "cat /sick && exit 1; echo fine"), interval=0.1, retries=2)
    running = shims.start("sleep 100", health=check)
    event = running.wait("health")
    assert event["status"] == "healthy"
    assert event["state"]["health"]["log"][-1]["output"].endswith("fine\n")
    running.shim.exec_start("e", replace(running.config.process, argv=("touch", "/sick")), None)
    while event["status"] != "unhealthy":
        event = running.wait("health")
    assert event["state"]["health"]["failing_streak"] == 2


def test_a_probe_that_hangs_is_killed(shims: Shims) -> None:
    check = HealthCheck(test=("CMD", "sleep", "100"), interval=0.05, timeout=0.2, retries=1)
    running = shims.start("sleep 100", health=check)
    event = running.wait("health")
    assert event["status"] == "unhealthy"
    assert "exceeded timeout (200ms)" in event["state"]["health"]["log"][-1]["output"]


def test_a_shim_that_is_killed_takes_its_container_along(shims: Shims) -> None:
    running = shims.start("sleep 100")
    parent = int(Path(f"/proc/{running.started.pid}/stat").read_text().rpartition(")")[2].split()[1])
    pidfd = os.pidfd_open(running.started.pid)
    os.kill(parent, signal.SIGKILL)
    assert running.events.get(timeout=TIMEOUT) is None
    os.close(pidfd)
    cgroup = shims.tree.open(running.config.cgroup)
    cgroup.kill()
    cgroup.remove()


def test_it_needs_neither_zygote_nor_watcher(shims: Shims) -> None:
    mine = Zygote.fork(["/bin/false"], shim.main, dns.serve)
    shims.zygote, kept = mine, shims.zygote
    running = shims.start("sleep 0.3; echo done", restart=RestartPolicy(mode="always"))
    mine.close()
    os.wait()
    shims.zygote = kept
    running.started.watch.shutdown(socket.SHUT_RDWR)
    state, watch = running.shim.watch()
    assert state["status"] == "running"
    assert b'"restarted"' in read_until(watch, b'"restarted"')
    running.shim.stop(signal=9, timeout=0)
    assert b'"gone"' in read_until(watch, b'"gone"')
    watch.close()
    shims.all.remove(running)


def test_a_log_that_rotates(shims: Shims) -> None:
    running = shims.start("seq 1 2000", log=LogConfig(max_size=20_000, max_files=2))
    running.end()
    assert Path(running.config.log_path + ".1").exists()
    assert running.log.split()[-1] == "2000"


def test_a_client_that_does_not_read_holds_up_and_loses_nothing(shims: Shims) -> None:
    ours, theirs = socket.socketpair()

    def attach(client: ShimClient) -> None:
        client.attach(theirs, AttachOptions(stdout=True))
        theirs.close()

    running = shims.start("head -c 8000000 /dev/zero; sleep 100", before=attach, log=LogConfig(driver="none"))
    assert len(frames(read_until_size(ours, 8_000_000))[1]) == 8_000_000
    running.shim.stop(signal=9, timeout=0)


def read_until_size(sock: socket.socket, size: int) -> bytes:
    sock.settimeout(TIMEOUT)
    data = bytearray()
    payload = 0
    while payload < size:
        header = _exactly(sock, 8)
        length = struct.unpack(">BxxxL", header)[1]
        data += header + _exactly(sock, length)
        payload += length
    return bytes(data)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece
        data += piece
    return data


def test_an_exec_into_what_somebody_froze_does_not_hold_the_shim_up(shims: Shims) -> None:
    running = shims.start("sleep 100")
    cgroup = shims.tree.open(running.config.cgroup)
    cgroup.freeze()
    try:
        process = replace(running.config.process, argv=("true",))
        with pytest.raises(StartFailed, match="frozen"):
            running.shim.exec_start("e", process, None)
        assert running.shim.state()["status"] == "running"
    finally:
        cgroup.thaw()
    running.shim.exec_start("f", process, None)
    assert running.wait("exec_exited")["exit_code"] == 0


def test_a_container_that_stops_all_in_it_does_not_hold_the_shim_up(shims: Shims) -> None:
    """What enters is in reach of the container's signals before it executes."""
    running = shims.start("while :; do kill -STOP -1; done")
    process = replace(running.config.process, argv=("true",))
    with contextlib.suppress(StartFailed):  # it may slip through
        running.shim.exec_start("e", process, None)
    assert running.shim.state()["status"] == "running"
    running.shim.stop(signal=15, timeout=0)
    assert running.end()["exit_code"] == 137
