"""Processes that die, hang, refuse to end, or are not who they seem: nobody else notices."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from docker.models.containers import Container
from tests.support import isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.failpoints import Failpoints

from hawse_agent.linux import files

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")

PATIENCE = 60.0
FREEZER = Path("/sys/fs/cgroup/freezer")


def wait_until(holds: Callable[[], bool], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def run(agent: AgentUnderTest, *command: str, **options: Any) -> Container:
    return agent.client.containers.run(BUSYBOX, list(command or ("sleep", "1000")), detach=True, **options)


def pid_of(container: Container) -> int:
    container.reload()
    return int(container.attrs["State"]["Pid"])


def error_of(container: Container) -> str:
    container.reload()
    return str(container.attrs["State"]["Error"])


def titled(start: str) -> list[int]:
    """Processes by the start of their command lines."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                title = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if title.startswith(start):
                found.append(int(entry))
    return found


def shim_of(container: Container) -> int:
    """Not the maker, its child, which is called the same and may be about to leave."""
    found = titled(f"hawse-shim: {container.id}")
    (pid,) = [pid for pid in found if parent_of(pid) not in found]
    return pid


def parent_of(pid: int) -> int:
    try:
        return int(Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):  # it has left: one that found it need not
        return pid


def others_are_served(agent: AgentUnderTest, stuck: str = "") -> None:
    """All that must never wait for a container that is stuck."""
    names = [container.name for container in agent.client.containers.list(all=True)]
    assert not stuck or stuck in names
    if stuck:
        agent.client.api.inspect_container(stuck)
    agent.client.info()
    agent.client.df()
    since = time.time()
    other = run(agent, "echo", "served")
    assert other.wait(timeout=PATIENCE)["StatusCode"] == 0
    assert other.logs() == b"served\n"
    other.remove()
    actions = [e["Action"] for e in agent.client.events(since=since, until=time.time(), decode=True)]
    assert {"create", "start", "die", "destroy"} <= set(actions)


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Runs meanwhile; it must come to its end after the block, and well."""
    problems: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(PATIENCE)
    assert not thread.is_alive() and problems == []


# -- that die -----------------------------------------------------------------------------------------


def test_the_zygote_dies(agent: AgentUnderTest) -> None:
    container = run(agent)
    pid = pid_of(container)
    (zygote,) = [
        child
        for child in titled("hawse-agent: zygote")
        if f"PPid:\t{agent.pid}\n" in Path("/proc", str(child), "status").read_text()
    ]
    os.kill(zygote, signal.SIGKILL)
    others_are_served(agent)
    assert pid_of(container) == pid and container.exec_run(["true"]).exit_code == 0


def test_the_shim_dies_and_the_policy_decides(agent: AgentUnderTest) -> None:
    kept, ended = run(agent, restart_policy={"Name": "always"}), run(agent)
    pids = pid_of(kept), pid_of(ended)
    for container in (kept, ended):
        os.kill(shim_of(container), signal.SIGKILL)
    assert ended.wait(timeout=PATIENCE)["StatusCode"] == 137
    ended.reload()
    assert "supervisor was killed" in ended.attrs["State"]["Error"]
    wait_until(lambda: pid_of(kept) not in (0, pids[0]))
    assert kept.status == "running" and not any(Path("/proc", str(pid)).exists() for pid in pids)


def test_the_name_server_dies(agent: AgentUnderTest) -> None:
    agent.client.networks.create("front")
    web = run(agent, name="web", network="front")
    (server,) = titled("hawse-agent: names")
    os.kill(server, signal.SIGKILL)
    other = run(agent, name="other", network="front")
    wait_until(lambda: other.exec_run(["nslookup", "web"]).exit_code == 0)
    web.exec_run(["true"])


# -- that do not end -----------------------------------------------------------------------------------


def test_ignores_sigterm(agent: AgentUnderTest) -> None:
    container = run(agent, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    wait_until(lambda: container.logs() == b"ready\n")
    container.stop(timeout=1)
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 137)


def test_forks_madly(agent: AgentUnderTest) -> None:
    """Below its own limit, which is what the rest of the machine relies on."""
    endless = 'BEGIN { while (1) system("sleep 1 &") }'
    bomb = run(agent, "sh", "-c", f"awk '{endless}' & awk '{endless}' & exec sleep 1000", pids_limit=48)
    wait_until(lambda: len(bomb.top()["Processes"]) > 40, "no bomb")
    others_are_served(agent, bomb.name)
    pids = [int(row[1]) for row in bomb.top()["Processes"]]
    bomb.kill()
    assert bomb.wait(timeout=PATIENCE)["StatusCode"] == 137
    wait_until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pids))
    bomb.remove()


@pytest.fixture
def ice() -> Iterator[Path]:
    """A frozen cgroup beside all others: who is put into it is in state D and hears no signal."""
    if not (FREEZER / "freezer.state").parent.is_dir() or not (FREEZER / "cgroup.procs").exists():
        pytest.skip("needs the freezer of cgroup v1: on v2 SIGKILL reaches who is frozen")
    directory = FREEZER / "ice"
    directory.mkdir()
    yield directory
    (directory / "freezer.state").write_text("THAWED")
    wait_until(lambda: not (directory / "cgroup.procs").read_text())
    directory.rmdir()


def test_waits_for_the_kernel(agent: AgentUnderTest, ice: Path) -> None:
    container = run(agent)
    (ice / "cgroup.procs").write_text(str(pid_of(container)))
    (ice / "freezer.state").write_text("FROZEN")
    container.kill()
    with pytest.raises(APIError, match=r"does not end, not even by SIGKILL: its process \d+ waits for the"):
        container.remove(force=True)
    others_are_served(agent, container.name)
    assert container.status == "running"
    (ice / "freezer.state").write_text("THAWED")
    assert container.wait(timeout=PATIENCE)["StatusCode"] == 137
    container.remove()


def test_frozen_by_somebody_else(agent: AgentUnderTest) -> None:
    """Not by us, so that its shim does not know of it."""
    container = run(agent)
    states = list(FREEZER.glob(f"*/{container.id}/freezer.state"))
    if not states:
        pytest.skip("needs the freezer of cgroup v1: on v2 SIGKILL reaches who is frozen")
    states[0].write_text("FROZEN")
    container.remove(force=True)


# -- that hang -----------------------------------------------------------------------------------------


def test_a_shim_that_hangs(agent: AgentUnderTest) -> None:
    container = run(agent)
    shim = shim_of(container)
    os.kill(shim, signal.SIGSTOP)
    with in_background(lambda: container.stop(timeout=0)) as stopping:
        try:
            others_are_served(agent, container.name)
            assert stopping.is_alive()
        finally:
            os.kill(shim, signal.SIGCONT)
    container.reload()
    assert container.status == "exited"


def at_once(work: Callable[[], Any]) -> Any:
    began = time.monotonic()
    result = work()
    assert time.monotonic() - began < 10
    return result


def test_a_fresh_daemon_waits_for_no_shim_that_hangs(agent: AgentUnderTest) -> None:
    """However many: what their files say is shown, and what they say once they answer."""
    containers = [run(agent) for _ in range(3)]
    pids = [pid_of(container) for container in containers]
    shims = [shim_of(container) for container in containers]
    agent.kill()
    for shim in shims:
        os.kill(shim, signal.SIGSTOP)
    try:
        at_once(agent.start)
        for container, pid in zip(containers, pids, strict=True):
            assert at_once(lambda container=container: pid_of(container)) == pid
            assert error_of(container) == "the container's supervisor does not answer"
        others_are_served(agent, containers[0].name)
    finally:
        for shim in shims:
            os.kill(shim, signal.SIGCONT)
    for container in containers:
        wait_until(lambda container=container: error_of(container) == "")
        container.kill()
        assert container.wait(timeout=PATIENCE)["StatusCode"] == 137


def test_a_shim_that_hangs_with_a_full_backlog(agent: AgentUnderTest) -> None:
    """Not even a connection can be made."""
    container = run(agent)
    shim = shim_of(container)
    os.kill(shim, signal.SIGSTOP)
    waiting = []
    try:
        path = agent.root / "run/shims" / container.id / "shim.sock"
        with pytest.raises(BlockingIOError), files.socket_address(path) as address:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(address)
        with pytest.raises(APIError, match="too many wait for it already"):
            at_once(container.pause)
        agent.kill()
        at_once(agent.start)
        assert at_once(lambda: pid_of(container)) > 0
    finally:
        os.kill(shim, signal.SIGCONT)
        for connection in waiting:
            connection.close()
    wait_until(lambda: error_of(container) == "")
    container.remove(force=True)


def test_what_is_known_of_an_execution_is_known_without_its_shim(agent: AgentUnderTest) -> None:
    container = run(agent)
    lasting = agent.client.api.exec_create(container.id, ["sleep", "1000"])["Id"]
    agent.client.api.exec_start(lasting, detach=True)
    ended = agent.client.api.exec_create(container.id, ["sh", "-c", "exit 5"])["Id"]
    agent.client.api.exec_start(ended)
    assert agent.client.api.exec_inspect(ended)["ExitCode"] == 5
    shim = shim_of(container)
    os.kill(shim, signal.SIGSTOP)
    try:
        at_once(container.reload)
        assert container.attrs["ExecIDs"] == [lasting]
        shown = at_once(lambda: agent.client.api.exec_inspect(lasting))
        assert shown["Running"] and shown["ExitCode"] is None
        assert Path("/proc", str(shown["Pid"]), "cmdline").read_bytes() == b"sleep\x001000\0"
    finally:
        os.kill(shim, signal.SIGCONT)
    container.kill()
    container.wait()
    shown = agent.client.api.exec_inspect(lasting)
    assert (shown["Running"], shown["ExitCode"], shown["Pid"]) == (False, 137, 0)


@pytest.mark.parametrize(
    "step", ["create: populate", "start: network", "shim: await readiness", "init: mount volumes"]
)
def test_a_container_that_does_not_come_to_be(
    agent: AgentUnderTest, failpoints: Failpoints, step: str
) -> None:
    go_on, there = threading.Event(), threading.Event()

    def hold() -> None:
        there.set()
        assert go_on.wait(PATIENCE)

    meeting = failpoints.meet(step, hold)
    with in_background(lambda: run(agent, name="slow")) as starting:
        try:
            assert there.wait(PATIENCE)
            others_are_served(agent, "" if step.startswith("create") else "slow")
            assert starting.is_alive()
        finally:
            go_on.set()
    meeting.join()
    assert agent.client.containers.get("slow").status == "running"


def test_a_removal_that_hangs(agent: AgentUnderTest, failpoints: Failpoints) -> None:
    go_on, there = threading.Event(), threading.Event()

    def hold() -> None:
        there.set()
        assert go_on.wait(PATIENCE)

    container = run(agent, "true", name="slow")
    container.wait(timeout=PATIENCE)
    meeting = failpoints.meet("remove: files", hold)
    with in_background(container.remove) as removing:
        try:
            assert there.wait(PATIENCE)
            others_are_served(agent, "slow")
            assert removing.is_alive()
        finally:
            go_on.set()
    meeting.join()


# -- that are not who they seem ------------------------------------------------------------------------


def be_born_as(pid: int) -> subprocess.Popen[bytes] | None:
    """A stranger with that process id; None when somebody else has just got it."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    stranger = subprocess.Popen(["sleep", "1000"])
    if stranger.pid == pid:
        return stranger
    stranger.kill()
    stranger.wait()
    return None


@pytest.fixture
def strangers() -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    born: list[subprocess.Popen[bytes]] = []

    def make(pid: int) -> subprocess.Popen[bytes]:
        wait_until(lambda: not Path("/proc", str(pid)).exists())
        for _ in range(100):
            stranger = be_born_as(pid)
            if stranger is not None:
                born.append(stranger)
                return stranger
        pytest.fail(f"process id {pid} cannot be had")

    if not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK):
        pytest.skip("needs a kernel with checkpoint and restore (ns_last_pid)")
    yield make
    for stranger in born:
        stranger.kill()
        stranger.wait()


def test_process_ids_are_used_again(
    agent: AgentUnderTest, strangers: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    """Nobody who has got the number of a daemon, a shim or a container's process is taken for it."""
    container = run(agent)
    pids = [pid_of(container), shim_of(container), agent.pid]
    agent.kill()
    os.kill(pids[1], signal.SIGKILL)
    born = [strangers(pid) for pid in pids]
    agent.start()
    container.reload()
    assert (container.status, container.attrs["State"]["Pid"]) == ("exited", 0)
    with pytest.raises(APIError, match="not running"):
        container.kill()
    with pytest.raises(APIError, match="non running container"):
        run(agent, "true", pid_mode=f"container:{container.id}")
    container.start()
    container.remove(force=True)
    agent.restart()
    assert [stranger.poll() for stranger in born] == [None, None, None]


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_who_shares_a_namespace_restarts_in_the_one_of_now(agent: AgentUnderTest, kind: str) -> None:
    """By its policy, also while no daemon runs: not in that of who has the old number."""
    donor = run(agent, name="donor", ipc_mode="shareable")
    sharer = run(agent, restart_policy={"Name": "always"}, **{f"{kind}_mode": "container:donor"})
    name = {"network": "net"}.get(kind, kind)

    def shared() -> bool:
        return namespace_of(sharer, name) == namespace_of(donor, name)

    assert shared()
    donor.restart(timeout=0)
    if kind != "pid":  # there it has ended with the other
        assert not shared()
        agent.kill()
        end(sharer)
        agent.start()
    wait_until(lambda: pid_of(sharer) > 0 and shared(), "in another namespace")


def test_who_shares_waits_for_the_other_one(
    agent: AgentUnderTest, strangers: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    """It says for what; meanwhile a stranger with the other one's number has nothing to do with it."""
    donor = run(agent, name="donor")
    sharer = run(agent, restart_policy={"Name": "always"}, network_mode="container:donor")
    number = pid_of(donor)
    donor.stop(timeout=0)
    strangers(number)
    end(sharer)
    wait_until(lambda: "it is not running" in error_of(sharer))
    assert f"cannot join the namespaces of container {donor.id}" in error_of(sharer)
    donor.start()
    wait_until(lambda: pid_of(sharer) > 0, "it does not come back")
    assert namespace_of(sharer, "net") == namespace_of(donor, "net") and not error_of(sharer)


def namespace_of(container: Container, kind: str) -> str:
    return os.readlink(f"/proc/{pid_of(container)}/ns/{kind}")


def end(container: Container) -> None:
    """By nobody who is asked to."""
    os.kill(int(container.attrs["State"]["Pid"]) or pid_of(container), signal.SIGKILL)


def test_a_boot_starts_those_first_that_others_share_with(agent: AgentUnderTest) -> None:
    always = {"restart_policy": {"Name": "always"}}
    donor = run(agent, name="donor", **always)
    sharers = [run(agent, network_mode="container:donor", **always) for _ in range(2)]
    everyone = [donor, *sharers]
    shims = [shim_of(container) for container in everyone]
    agent.kill()
    for shim in shims:
        os.kill(shim, signal.SIGKILL)
    agent.start()
    wait_until(lambda: all(pid_of(container) for container in everyone))
    assert len({namespace_of(container, "net") for container in everyone}) == 1
