"""The same commands to dockerd and to the agent by the same client (`make test-peers`)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from docker.errors import APIError
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.dockerd import Dockerd

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test-peers)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs dockerd"),
]


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    session = isolation.current()
    assert session is not None
    # As deep as the check for leaks does not look: what dockerd leaves until later is not ours.
    top = session.directory / "peer"
    peer = Dockerd(top / "of/the/agent/d")
    yield peer
    peer.close()
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def both(dockerd: Dockerd, daemon: AgentUnderTest) -> tuple[Dockerd, AgentUnderTest]:
    """With the same image: dockerd loads what the agent saves."""
    session = isolation.current()
    assert session is not None
    archive = session.directory / "saved.tar"
    daemon.docker("save", "-o", str(archive), BUSYBOX)
    assert dockerd.docker("load", "-i", str(archive)).returncode == 0
    archive.unlink()
    dockerd.docker("run", "--rm", BUSYBOX, "true")  # what it makes once is there before the first test
    return dockerd, daemon


COMMANDS = {
    "output": ["run", "--rm", BUSYBOX, "echo", "out"],
    "exit code": ["run", "--rm", BUSYBOX, "sh", "-c", "exit 7"],
    "both streams": ["run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2"],
    "no such program": ["run", "--rm", BUSYBOX, "nosuch"],
    "user and groups": ["run", "--rm", "-u", "bob", BUSYBOX, "id"],
    "environment": ["run", "--rm", "-e", "A=1", "--hostname", "h", BUSYBOX, "env"],
    "capabilities": ["run", "--rm", BUSYBOX, "grep", "Cap", "/proc/self/status"],
    "no capabilities": ["run", "--rm", "--cap-drop", "ALL", BUSYBOX, "grep", "Cap", "/proc/self/status"],
    "seccomp": ["run", "--rm", BUSYBOX, "grep", "Seccomp:", "/proc/self/status"],
    "devices": ["run", "--rm", BUSYBOX, "ls", "/dev"],
    "masked": ["run", "--rm", BUSYBOX, "sh", "-c", "wc -c < /proc/kcore; ls /proc/acpi /sys/firmware 2>&1"],
    "read only": ["run", "--rm", "--read-only", BUSYBOX, "touch", "/x"],
    "working directory": ["run", "--rm", "-w", "/made/here", BUSYBOX, "pwd"],
    "name servers": ["run", "--rm", "--dns", "192.0.2.1", BUSYBOX, "cat", "/etc/resolv.conf"],
    "no network": ["run", "--rm", "--network", "none", BUSYBOX, "ls", "/sys/class/net"],
    "a name that is not valid": ["create", "--name", "-x", BUSYBOX],
    "no such image": ["inspect", "--type", "image", "nosuch:1"],
    "no such container": ["rm", "nosuch"],
    "no such volume": ["volume", "rm", "nosuch"],
    "no such network": ["network", "rm", "nosuch"],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_both_say_the_same(both: tuple[Dockerd, AgentUnderTest], case: str) -> None:
    dockerd, agent = both
    theirs = dockerd.docker(*COMMANDS[case])
    ours = agent.docker(*COMMANDS[case], code=None)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (ours.stderr, theirs.stderr)


REFUSED_AT_CREATE: list[tuple[str, Any, str]] = [
    # What dockerd refuses so early: field, value, and what both say. It sees most mistakes at the start.
    ("HostConfig.ExtraHosts", ["a"], 'bad format for add-host: "a"'),
    ("HostConfig.ExtraHosts", ["a:b"], 'invalid IP address in add-host: "b"'),
    ("HostConfig.CapAdd", ["FLY"], 'invalid CapAdd: unknown capability: "CAP_FLY"'),
    ("HostConfig.CapDrop", ["FLY"], 'invalid CapDrop: unknown capability: "CAP_FLY"'),
    ("HostConfig.CgroupnsMode", "x", "invalid cgroup namespace mode: x"),
    ("HostConfig.Binds", ["/a:/."], "invalid specification: destination can't be '/'"),
    ("HostConfig.Binds", ["/tmp:/x", "/tmp:/y/../x"], "Duplicate mount point: /x"),
    ("HostConfig.Tmpfs", {"/": ""}, "invalid specification: destination can't be '/'"),
    (
        "HostConfig.Mounts",
        [{"Type": "tmpfs", "Target": "x"}],
        "invalid mount config for type \"tmpfs\": invalid mount path: 'x' mount path must be absolute",
    ),
    ("HostConfig.PortBindings", {"70000/tcp": []}, 'invalid port specification: "70000"'),
    ("HostConfig.OomScoreAdj", 5000, "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
    ("HostConfig.ShmSize", -1, "SHM size can not be less than 0"),
    ("StopSignal", "FLY", "Invalid signal: FLY"),
    ("Env", ["=x"], "invalid environment variable: =x"),
    ("WorkingDir", "x", "the working directory 'x' is invalid, it needs to be an absolute path"),
]


def test_what_is_refused_at_create_is_said_in_the_same_words(both: tuple[Dockerd, AgentUnderTest]) -> None:
    for field, value, words in REFUSED_AT_CREATE:
        body: dict[str, Any] = {"Image": BUSYBOX, "Cmd": ["true"]}
        place, _, name = field.rpartition(".")
        (body.setdefault(place, {}) if place else body)[name] = value
        for peer in both:
            client = APIClient(f"unix://{peer.socket}", version="1.41")
            with contextlib.closing(client), pytest.raises(APIError) as refusal:
                client.create_container_from_config(body)
            assert words in str(refusal.value.explanation), (peer, field)
        assert refusal.value.status_code == 400, field


def test_the_agent_loads_what_dockerd_saves(both: tuple[Dockerd, AgentUnderTest], tmp_path: Path) -> None:
    dockerd, agent = both
    dockerd.docker("tag", BUSYBOX, "peer:1")
    archive = tmp_path / "peer.tar"
    assert dockerd.docker("save", "-o", str(archive), "peer:1").returncode == 0
    agent.docker("load", "-i", str(archive))
    assert agent.docker("run", "--rm", "peer:1", "echo", "it runs").stdout == "it runs\n"
    agent.docker("rmi", "peer:1")


PREPARE = """\
rm -rf /t /l; mkdir -p /t/dir/sub /t/empty; echo one > /t/f; echo two > /t/dir/g
ln -s dir /t/dl; ln -s /t/f /t/fl; ln -s nowhere /t/bl; mkfifo /t/pipe; ln -s /t /l
chmod 750 /t/dir; chown -R 5:6 /t/dir
"""
COPIES_OUT = [
    *(
        "f new",
        "f old",
        "f dir",
        "f dir/",
        "f nodir/",
        "f nodir/x",
        "dir new",
        "dir new/",
        "dir dir",
        "dir old",
    ),
    *("dir/. new", "dir/. dir", "dir/. old", "dl new", "dl/ new", "dl/. new", "dl/g new", "fl new", "bl new"),
    *(
        "-L dl new",
        "-L fl new",
        "-L fl dir",
        "-L bl new",
        "-a dir new",
        "empty new",
        "nope new",
        "f/ new",
        "pipe new",
    ),
    *("../l/f new", "../../../t/f new", "../t/./dir/../f new"),
]
COPIES_IN = [
    *(
        "old new",
        "old f",
        "old dir",
        "old dir/",
        "old nodir/",
        "old nodir/x",
        "old f/",
        "old f/x",
        "old dl",
        "old fl",
    ),
    *(
        "old bl",
        "old pipe",
        "dir new",
        "dir new/",
        "dir dir",
        "dir f",
        "dir dl",
        "dir/. new",
        "dir/. dir",
        "dir/. f",
    ),
    *("link new", "-L link new", "-a old new", "-a dir dir", "nope new", "old ../l/new", "dir ../l"),
]


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_both_copy_alike(both: tuple[Dockerd, AgentUnderTest], tmp_path: Path, state: str) -> None:
    """Each form of docker cp, out and in: exit code, message, and what is there afterwards."""
    dockerd, agent = both
    results = []
    for name, docker in (
        ("theirs", dockerd.docker),
        ("ours", lambda *words: agent.docker(*words, code=None)),
    ):
        found = {}
        docker("run", "-d", "--name", "box", BUSYBOX, "sleep", "1000")
        place = tmp_path / name
        for words in COPIES_OUT:
            _reset(docker, place, state)
            *options, source, target = words.split()
            done = docker("cp", *options, f"box:/t/{source}", f"{place}/{target}")
            found[f"out {words}"] = (done.returncode, _plain(done.stderr, place), _tree(place))
        for words in COPIES_IN:
            _reset(docker, place, state)
            *options, source, target = words.split()
            done = docker("cp", *options, f"{place}/{source}", f"box:/t/{target}")
            docker("cp", "-a", "box:/t", f"{place}/seen")
            found[f"in {words}"] = (done.returncode, _plain(done.stderr, place), _tree(place / "seen"))
        docker("rm", "-f", "box")
        results.append(found)
    theirs, ours = results
    differing = {case: (theirs[case], ours[case]) for case in theirs if theirs[case] != ours[case]}
    assert not differing


def _reset(docker: Any, place: Path, state: str) -> None:
    shutil.rmtree(place, ignore_errors=True)
    (place / "dir").mkdir(parents=True)
    (place / "old").write_text("old\n")
    (place / "dir/old").write_text("old in dir\n")
    (place / "link").symlink_to("old")
    os.chown(place / "old", 1234, 4321)
    docker("start", "box")
    docker("exec", "box", "sh", "-c", PREPARE)
    if state == "stopped":
        docker("stop", "-t", "0", "box")


def _plain(text: str, place: Path) -> str:
    """Docker names its own directories where something is not one, and its client what it gave up writing."""
    lines = [line for line in text.replace(str(place), "PLACE").splitlines() if not line.startswith("time=")]
    return "not a directory" if "not a directory" in text else "\n".join(lines)


def _tree(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *top.rglob("*")] if os.path.lexists(top) else []:
        status = path.lstat()
        content = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_text()
        found[str(path.relative_to(top))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


CHANGES = [
    "true",
    "touch /new",
    "mkdir -p /new/dir; echo x > /new/dir/f",
    "echo more >> /etc/passwd",
    "chmod 644 /etc/passwd",
    "chmod 700 /root",
    "chown 5:5 /home/bob",
    "touch /home/bob/x; rm /home/bob/x",
    "rm /bin/vi",
    "rm -r /home",
    "rm -r /home; mkdir /home; touch /home/x",
    "rm -r /home; echo file > /home",
    "rm /bin/vi; mkdir -p /bin/vi/in",
    "ln -s /nowhere /link; mkfifo /pipe; mknod /node c 1 3",
    "mv /etc/group /etc/moved",
    "touch /vol/inside",
]


def test_both_find_the_same_changes(both: tuple[Dockerd, AgentUnderTest]) -> None:
    dockerd, agent = both
    for script in CHANGES:
        words = [
            "--name",
            "box",
            "-v",
            "/vol",
            "-v",
            "/etc/inner",
            "-w",
            "/work/here",
            BUSYBOX,
            "sh",
            "-c",
            script,
        ]
        found = []
        for docker in (dockerd.docker, agent.docker):
            docker("run", *words)
            found.append(sorted(docker("diff", "box").stdout.splitlines()))
            docker("rm", "-v", "box")
        assert found[0] == found[1], script


LIFE = (
    ["network", "create", "nn"],
    [
        "run",
        "-d",
        "--name",
        "c1",
        "--label",
        "l=1",
        "-v",
        "vv:/v",
        "--network",
        "nn",
        BUSYBOX,
        "sleep",
        "100",
    ],
    ["exec", "c1", "sh", "-c", "exit 3"],
    ["top", "c1"],
    ["pause", "c1"],
    ["unpause", "c1"],
    ["rename", "c1", "c2"],
    ["update", "--cpu-shares", "512", "c2"],
    ["kill", "-s", "HUP", "c2"],
    ["restart", "-t", "1", "c2"],
    ["kill", "c2"],
    ["wait", "c2"],
    ["rm", "c2"],
    ["network", "rm", "nn"],
    ["volume", "rm", "vv"],
    ["tag", BUSYBOX, "other:1"],
    ["rmi", "other:1"],
    ["network", "prune", "-f"],
    ["container", "prune", "-f"],
)


def test_both_tell_the_same_events(both: tuple[Dockerd, AgentUnderTest]) -> None:
    dockerd, agent = both

    def told(docker: Callable[..., subprocess.CompletedProcess[str]]) -> list[str]:
        begin = time.time()
        for words in LIFE:
            docker(*words)
        lines = docker("events", "--since", f"{begin:.6f}", "--until", f"{time.time():.6f}").stdout
        shown = [line.partition(" ")[2] for line in lines.splitlines()]
        shown = [re.sub(r"[0-9a-f]{64}", "ID", re.sub(r"execDuration=\d+, ", "", line)) for line in shown]
        return list(dict.fromkeys(line for line in shown if not line.startswith("volume create")))

    theirs, ours = told(dockerd.docker), told(lambda *words: agent.docker(*words, code=None))
    assert ours == theirs


@pytest.mark.parametrize("options", [["-i"], ["-it"]])
def test_both_let_go_of_who_closes_his_side(both: tuple[Dockerd, AgentUnderTest], options: list[str]) -> None:
    """Of a container that lasts: nobody waits for its end. Without a stdin to end, one only listens."""
    dockerd, agent = both
    for place, docker in ((dockerd.socket, dockerd.docker), (agent.socket, agent.docker)):
        for name, kind, seconds in (("open", options, 1000), ("closed", [], 1)):
            docker("run", "-d", *kind, "--name", name, BUSYBOX, "sh", "-c", f"sleep {seconds}; echo end")
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(place))
                path = f"/v1.41/containers/{name}/attach?stream=1&stdin=1&stdout=1"
                head = "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
                client.sendall(f"POST {path} HTTP/1.1\r\n{head}".encode())
                client.sendall(b"x\n")
                client.shutdown(socket.SHUT_WR)
                stream = b"".join(iter(lambda client=client: client.recv(4096), b"")).partition(b"\r\n\r\n")[
                    2
                ]
            assert (b"end" in stream) == (name == "closed")
            docker("rm", "-f", name)
