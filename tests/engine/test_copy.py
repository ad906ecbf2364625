"""cp, diff and export by Docker's own clients: containers that run, are paused, stopped, or end meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from docker.models.containers import Container
from docker.types import Mount
from tests.support import busybox, deeptree, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

TIMEOUT = 60.0
CONTENT = (
    "mkdir -p /d/sub; echo one > /d/f; echo two > /d/sub/g; ln -s d /link; ln -s /d/f /flink; touch /ready"
)


def run(agent: AgentUnderTest, script: str = "", **options: Any) -> Container:
    """Lasting; returns when the script has run."""
    command = [
        "sh",
        "-c",
        f"test -e /tmp/ready || {{ {script or CONTENT}; touch /tmp/ready; }}; exec sleep 1000",
    ]
    container = agent.client.containers.run(BUSYBOX, command, detach=True, **options)
    eventually(lambda: container.exec_run(["test", "-e", "/tmp/ready"]).exit_code == 0)
    return container


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def refused(status: int, text: str) -> Any:
    def check(error: APIError) -> bool:
        return bool(error.status_code == status and text in str(error.explanation))

    return pytest.raises(APIError, check=check)


def read(container: Container, path: str) -> tarfile.TarFile:
    pieces, _ = container.get_archive(path)
    return tarfile.open(fileobj=io.BytesIO(b"".join(pieces)))


def text(container: Container, path: str) -> str:
    """The content of one file."""
    with read(container, path) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        assert file is not None
        return file.read().decode()


def archive(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name: str, kind: bytes, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, agent: AgentUnderTest) -> Container:
    """With that name and files, in each state that files can be copied in; paused ones have a test below."""
    container = run(agent, name="box", volumes={"kept": {"bind": "/vol"}})
    if request.param == "stopped":
        container.stop(timeout=0)
    return container


# -- docker cp --------------------------------------------------------------------------------------


OUT = {
    # what is copied, to where, what is new there; `old` is a file, `dir` a directory with another
    "file to new name": ("/d/f", "new", {"new": "one\n"}),
    "file over file": ("/d/f", "old", {"old": "one\n"}),
    "file into directory": ("/d/f", "dir", {"dir/f": "one\n"}),
    "file into directory/": ("/d/f", "dir/", {"dir/f": "one\n"}),
    "directory to new name": ("/d", "new", {"new/f": "one\n", "new/sub/g": "two\n"}),
    "directory into directory": ("/d", "dir", {"dir/d/f": "one\n", "dir/d/sub/g": "two\n"}),
    "content into directory": ("/d/.", "dir", {"dir/f": "one\n", "dir/sub/g": "two\n"}),
    "content to new name": ("/d/.", "new", {"new/f": "one\n", "new/sub/g": "two\n"}),
    "through a link to a directory": ("/link/f", "new", {"new": "one\n"}),
    "a link's directory": ("/link/.", "new", {"new/f": "one\n", "new/sub/g": "two\n"}),
    "relative, from the root": ("d/f", "new", {"new": "one\n"}),
    "up and down": ("/../d/../d/./f", "new", {"new": "one\n"}),
    "a link": ("/flink", "new", {"new": "-> /d/f"}),
    "a link followed": ("-L /flink", "new", {"new": "one\n"}),
}


def test_docker_cp_out(agent: AgentUnderTest, box: Container, tmp_path: Path) -> None:
    for number, (case, (words, target, expected)) in enumerate(OUT.items()):
        *options, source = words.split()
        place = tmp_path / str(number)
        (place / "dir").mkdir(parents=True)
        for old in ("old", "dir/old"):
            (place / old).write_text("old\n")
        agent.docker("cp", *options, f"box:{source}", f"{place}/{target}")
        assert contents(place) == {"old": "old\n", "dir/old": "old\n", **expected}, case


def contents(top: Path) -> dict[str, str]:
    return {
        str(path.relative_to(top)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in sorted(top.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


IN = {
    # what is copied, to where below a place in the container that looks like the one above, what is new there
    "file to new name": ("f", "new", {"new": "one\n"}),
    "file over file": ("f", "old", {"old": "one\n"}),
    "file into directory": ("f", "dir", {"dir/f": "one\n"}),
    "file into directory/": ("f", "dir/", {"dir/f": "one\n"}),
    "directory to new name": (".", "new", {"new/f": "one\n", "new/sub/g": "two\n", "new/link": "-> f"}),
    "directory into directory": ("sub", "dir", {"dir/sub/g": "two\n"}),
    "content into directory": ("sub/.", "dir", {"dir/g": "two\n"}),
    "to what a link stands for": ("f", "dirlink", {"dir/f": "one\n"}),
    "to a file that a link stands for": ("f", "oldlink", {"old": "one\n"}),
    "a link": ("link", "new", {"new": "-> f"}),
    "a link followed": ("-L link", "new", {"new": "one\n"}),
}


def test_docker_cp_in(agent: AgentUnderTest, box: Container, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "f").write_text("one\n")
    (source / "sub/g").write_text("two\n")
    (source / "link").symlink_to("f")
    place = [special("dir", tarfile.DIRTYPE, mode=0o755), ("dir/old", b"old\n"), ("old", b"old\n")]
    place += [special("dirlink", tarfile.SYMTYPE, linkname="dir")]
    place += [special("oldlink", tarfile.SYMTYPE, linkname="/%s/old")]
    for number, (case, (words, target, expected)) in enumerate(IN.items()):
        *options, name = words.split()
        place[-1].linkname = f"/at{number}/old"
        there = archive(special(f"at{number}", tarfile.DIRTYPE, mode=0o755))
        assert box.put_archive("/", there) and box.put_archive(f"/at{number}", archive(*place))
        agent.docker("cp", *options, f"{source}/{name}", f"box:/at{number}/{target}")
        with read(box, f"/at{number}/.") as tar:
            tar.extractall(tmp_path / str(number), filter="tar")
        links = {"dirlink": "-> dir", "oldlink": f"-> /at{number}/old"}
        found = contents(tmp_path / str(number))
        assert found == {"old": "old\n", "dir/old": "old\n", **links, **expected}, case


def test_docker_cp_with_tars_on_stdin_and_stdout(agent: AgentUnderTest, box: Container) -> None:
    command = ["docker", "-H", f"unix://{agent.socket}", "cp"]
    done = subprocess.run([*command, "box:/d", "-"], capture_output=True, check=True, timeout=TIMEOUT)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["d", "d/f", "d/sub", "d/sub/g"]
    subprocess.run([*command, "-", "box:/vol"], input=done.stdout, check=True, timeout=TIMEOUT)
    assert text(box, "/vol/d/sub/g") == "two\n"


def test_a_paused_container(agent: AgentUnderTest, tmp_path: Path) -> None:
    box = run(agent, name="box")
    box.pause()
    try:
        agent.docker("cp", "box:/d/f", str(tmp_path))
        agent.docker("cp", str(tmp_path / "f"), "box:/d/copied")
        assert text(box, "/d/copied") == "one\n"
    finally:
        box.unpause()
    assert box.exec_run(["cat", "/d/copied"]).output == b"one\n"


MISTAKES = {
    ("box:/nope", "-"): "Could not find the file /nope in container box",
    ("box:/d/f/", "-"): "not a directory",
    ("box:/d/f/x", "-"): "not a directory",
    ("nobody:/d", "-"): "No such container: nobody",
    ("/etc/passwd", "box:/nope/x"): "Could not find the file /nope in container box",
    ("/etc/passwd", "box:/d/f/x"): "extraction point is not a directory",
    ("/etc/apt", "box:/d/f"): "cannot copy directory",
}


def test_docker_cp_says_what_is_wrong(agent: AgentUnderTest, box: Container) -> None:
    for (source, target), expected in MISTAKES.items():
        assert expected in agent.docker("cp", source, target, code=1).stderr


# -- the API ----------------------------------------------------------------------------------------


def test_stat_tells_of_links_without_following_them(agent: AgentUnderTest) -> None:
    box = run(agent, name="box")
    script = "ln -s ../../link/sub /d/far; ln -s missing/x /d/broken; chmod 7751 /d/sub; mkfifo /d/pipe"
    assert box.exec_run(["sh", "-c", script]).exit_code == 0

    def look(path: str) -> tuple[str, int, str]:
        _, found = box.get_archive(path)
        return found["name"], found["mode"], found["linkTarget"]

    assert look("/d/f") == ("f", 0o644, "")
    assert look("/d") == look("/d/") == ("d", 1 << 31 | 0o755, "")
    assert look("/d/.") == (".", 1 << 31 | 0o755, "")
    assert look("/") == ("/", 1 << 31 | 0o755, "")
    assert look("/link") == ("link", 1 << 27 | 0o777, "/d")
    assert look("/link/") == ("link", 1 << 31 | 0o755, "")
    assert look("/d/far") == ("far", 1 << 27 | 0o777, "/d/sub")
    assert look("/link/broken") == ("broken", 1 << 27 | 0o777, "/d/missing/x")
    assert look("/d/sub") == ("sub", 1 << 31 | 1 << 23 | 1 << 22 | 1 << 20 | 0o751, "")
    assert look("/d/pipe") == ("pipe", 1 << 25 | 0o644, "")
    assert look("/dev/null") == ("null", 1 << 26 | 1 << 21 | 0o666, "")


def test_archives_are_put_as_asked(agent: AgentUnderTest, box: Container) -> None:
    """Owner and mode of the tar; parents made; kinds kept or not; compressed or not."""
    info = special("deep/er/file", tarfile.REGTYPE, uid=1234, gid=5678, mode=0o4750)
    assert box.put_archive("/d", archive(info))
    with read(box, "/d/deep/er/file") as tar:
        (member,) = tar.getmembers()
        assert (member.uid, member.gid, member.mode) == (1234, 5678, 0o4750)
    url = box.client.api._url("/containers/{0}/archive", box.id)

    def put(data: bytes, **params: str) -> int:
        return int(box.client.api._put(url, params={"path": "/d", **params}, data=data).status_code)

    assert put(archive(("sub", b"")), noOverwriteDirNonDir="true") == 400
    assert put(archive(special("f", tarfile.DIRTYPE)), noOverwriteDirNonDir="1") == 400
    assert text(box, "/d/sub/g") == "two\n"
    assert put(archive(("sub", b"a file now"))) == 200
    assert text(box, "/d/sub") == "a file now"
    assert put(archive(("../outside", b""))) == 400
    assert put(b"no tar " * 200) == 400
    zipped = subprocess.run(["gzip"], input=archive(("zipped", b"z")), capture_output=True, check=True).stdout
    assert put(zipped) == 200
    assert text(box, "/d/zipped") == "z"
    for path, status in (("/nope", 404), ("/d/f", 400), ("", 400), ("/d/\0", 400)):
        with refused(status, ""):
            box.put_archive(path, archive(("x", b"")))


def test_all_to_the_user_of_the_container(agent: AgentUnderTest) -> None:
    """`cp -a`: as the container itself knows its user."""
    for name, user, owner in (("a", "bob", (1000, 1000)), ("b", "12:wheel", (12, 10)), ("c", "", (7, 8))):
        box = agent.client.containers.create(BUSYBOX, ["true"], name=f"box-{name}", user=user)
        url = box.client.api._url("/containers/{0}/archive", box.id)
        data = archive(special("file", tarfile.REGTYPE, uid=7, gid=8))
        answer = box.client.api._put(url, params={"path": "/tmp", "copyUIDGID": "true"}, data=data)
        assert answer.status_code == 200, answer.text
        with read(box, "/tmp/file") as tar:
            assert (tar.getmembers()[0].uid, tar.getmembers()[0].gid) == owner


def test_what_is_mounted_is_seen(agent: AgentUnderTest, tmp_path: Path) -> None:
    """Volumes, binds and tmpfs; on a container that never ran, too. What is read-only stays so."""
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound/b").write_text("of the host\n")
    mounts = [
        Mount("/vol", "kept"),
        Mount("/bind", str(tmp_path / "bound"), type="bind", read_only=True),
        Mount("/tmpfs", "", type="tmpfs"),
    ]
    options: dict[str, Any] = {"mounts": mounts, "read_only": True}
    box = agent.client.containers.create(BUSYBOX, ["sleep", "1000"], name="box", **options)
    for state in ("created", "running", "stopped"):
        assert box.put_archive("/vol", archive((state, b"kept\n")))
        assert text(box, f"/vol/{state}") == "kept\n"
        assert text(box, "/bind/b") == "of the host\n"
        with refused(403, "mounted volume is marked read-only"):
            box.put_archive("/bind", archive(("x", b"")))
        with refused(403, "container rootfs is marked read-only"):
            box.put_archive("/", archive(("x", b"")))
        if state == "created":
            box.start()
            assert box.put_archive("/tmpfs", archive(("x", b"in memory\n")))
            assert box.exec_run(["cat", "/tmpfs/x"]).output == b"in memory\n"
        elif state == "running":
            box.stop(timeout=0)
    assert sorted(os.listdir(tmp_path / "bound")) == ["b"]


def test_mount_points_are_not_removed(agent: AgentUnderTest) -> None:
    """From outside the kernel would allow it, and unmount what the container has there."""
    box = run(agent, name="box", volumes={"kept": {"bind": "/vol"}})
    with refused(500, "busy"):
        box.put_archive("/etc", archive(("hosts", b"forged\n")))
    box.put_archive("/vol", archive(("file", b"kept\n")))
    with refused(500, "busy"):
        box.put_archive("/", archive(("vol", b"no directory any more")))
    assert box.exec_run(["sh", "-c", "cat /vol/file; grep localhost /etc/hosts"]).output.startswith(
        b"kept\n127"
    )


def test_what_the_kernel_shows_is_no_file(agent: AgentUnderTest) -> None:
    box = run(agent, name="box")
    with read(box, "/proc") as tar:
        assert tar.getnames() == ["proc"]
    with refused(404, "Could not find the file /proc/cpuinfo"):
        box.get_archive("/proc/cpuinfo")
    for path in ("/proc", "/proc/sys/kernel", "/sys/fs"):
        with refused(400, "the kernel's"):
            box.put_archive(path, archive(("x", b"")))


def test_everything_survives_the_way_out_and_in(agent: AgentUnderTest, tmp_path: Path) -> None:
    """Sparse and large files, attributes, links, devices, names of any bytes and length."""
    top = tmp_path / "rich"
    (top / "sub").mkdir(parents=True)
    (top / "plain").write_bytes(os.urandom(3 << 20))
    os.setxattr(top / "plain", "user.note", b"kept \0 so")
    os.link(top / "plain", top / "sub/again")
    (top / ("long" * 50)).write_text("a long name")
    Path(os.fsdecode(os.fsencode(top) + b"/raw\xff")).write_text("not UTF-8")
    (top / "link").symlink_to("x" * 150)
    os.mkfifo(top / "pipe", 0o640)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (top / "sparse").open("wb") as file:
        for at in (1 << 20, 40 << 20):
            file.seek(at)
            file.write(b"here")
        file.truncate(64 << 20)
    os.chown(top / "sub", 12345, 54321)
    os.chmod(top / "sub", 0o2750)
    os.utime(top / "link", ns=(10**18 + 7, 10**18 + 9), follow_symlinks=False)
    os.utime(top / "sub", ns=(10**18 + 7, 10**18 + 9))
    one = run(agent, "mkdir /d", name="one")
    command = ["tar", "--create", "--xattrs", "--format=pax", "--sparse", "-C", str(top), "."]
    packed = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT).stdout
    assert one.put_archive("/d", packed)
    two = agent.client.containers.create(BUSYBOX, ["true"], name="two")
    pieces, _ = one.get_archive("/d/.")
    data = b"".join(pieces)
    assert len(data) < 32 << 20, "holes were written out"
    assert two.put_archive("/tmp", data)
    pieces, _ = two.get_archive("/tmp/.")
    out = tmp_path / "out"
    out.mkdir()
    command = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--same-owner", "-p", "-C", str(out)]
    subprocess.run(command, input=b"".join(pieces), check=True, timeout=TIMEOUT)
    assert described(out) == described(top)
    assert (out / "sparse").stat().st_blocks < 1024
    agent.docker("cp", "two:/tmp", str(tmp_path / "docker"))  # Go reads it, too
    assert (tmp_path / "docker/sparse").read_bytes() == (top / "sparse").read_bytes()
    found, _ = two.get_archive(os.fsencode("/tmp/raw") + b"\xff")
    assert b"not UTF-8" in b"".join(found)


def described(top: Path) -> dict[str, tuple[Any, ...]]:
    """All that must be the same afterwards; times of directories that others were made in are not."""
    found = {}
    for path in top.rglob("*"):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if kind == stat.S_IFREG:
            content = path.read_bytes()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in ("user.note",)
            if name in os.listxattr(path, follow_symlinks=False)
        }
        owner = (status.st_uid, status.st_gid, status.st_mode, status.st_rdev)
        same = status.st_nlink if kind == stat.S_IFREG else 0
        found[str(path.relative_to(top))] = (owner, status.st_mtime_ns, same, attributes, content)
    return found


# -- streams ----------------------------------------------------------------------------------------


class Download:
    """A client that reads when it is told to."""

    def __init__(self, agent: AgentUnderTest, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(agent.socket))
        self.socket.sendall(f"GET /v1.41{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.answer = http.client.HTTPResponse(self.socket)
        self.answer.begin()

    def close(self) -> None:
        self.answer.close()
        self.socket.close()


def opened(agent: AgentUnderTest) -> int:
    """Files and directories that the daemon has open: connections come and go."""
    found = 0
    for fd in os.listdir(f"/proc/{agent.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/{agent.pid}/fd/{fd}").startswith("/")
    return found


BIG = "dd if=/dev/zero of=/big bs=1M count=24 2>/dev/null"


@pytest.mark.parametrize("what", ["archive?path=/big", "export"])
def test_a_slow_reader_holds_nobody_up(agent: AgentUnderTest, what: str) -> None:
    box = run(agent, BIG, name="box")
    box.stop(timeout=0)
    before = opened(agent)
    slow = Download(agent, f"/containers/box/{what}")
    assert slow.answer.status == 200
    slow.answer.read(1024)
    box.start()
    box.remove(force=True)
    with pytest.raises(http.client.IncompleteRead):
        slow.answer.read()
    slow.close()
    eventually(lambda: opened(agent) <= before)


def test_a_reader_that_goes_leaves_nothing_open(agent: AgentUnderTest) -> None:
    run(agent, BIG, name="box")
    before = opened(agent)
    for path in ("archive?path=/big", "export", "archive?path=/"):
        gone = Download(agent, f"/containers/box/{path}")
        gone.answer.read(1024)
        gone.close()
    eventually(lambda: opened(agent) <= before)


def test_a_container_that_ends_meanwhile_cuts_the_stream_short(agent: AgentUnderTest) -> None:
    box = run(agent, BIG, name="box", volumes={"kept": {"bind": "/vol"}})
    slow = Download(agent, "/containers/box/archive?path=/")
    slow.answer.read(1024)
    box.stop(timeout=0)
    with pytest.raises(http.client.IncompleteRead):
        slow.answer.read()
    slow.close()


BUSY = """\
mkdir /busy; cd /busy
(while true; do mkdir -p a/b; echo x > a/b/f; ln a/b/f a/g; mv a c; rm -r c; done) &
(while true; do echo long > f; ln -sfn f l; : > f; rm f; mkfifo f; rm f; done) 2>/dev/null &
"""


def test_a_tree_that_changes_all_the_time(agent: AgentUnderTest) -> None:
    """Whole archives come of it, and no error."""
    box = run(agent, f"{{ {BUSY}}}", name="box")
    for _ in range(10):
        with read(box, "/busy") as tar:
            assert tar.getnames()[0] == "busy"
        assert all(change["Path"].startswith(("/busy", "/tmp")) for change in box.diff())
        with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
            assert {"bin/busybox", "busy"} <= set(tar.getnames())
        assert box.put_archive("/busy", archive(("in/to/f", b"put")))
    assert text(box, "/busy/in/to/f") == "put"


def test_memory_is_bounded(agent: AgentUnderTest) -> None:
    """A file of 128 MB out and in, with a reader that waits, needs some pieces of it at a time."""
    box = run(agent, "dd if=/dev/zero of=/big bs=1M count=128 2>/dev/null", name="box")

    def most() -> int:
        lines = Path(f"/proc/{agent.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    before = most()
    pieces, _ = box.get_archive("/big", chunk_size=1 << 20)
    assert box.put_archive("/tmp", pieces)
    assert most() - before < 48 << 20


def test_half_an_upload_changes_nothing_in_a_stopped_container(agent: AgentUnderTest) -> None:
    """And does not keep it from being started."""
    box = run(agent, name="box")
    box.stop(timeout=0)
    before = opened(agent)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(agent.socket))
        head = (
            "PUT /v1.41/containers/box/archive?path=/d HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        )
        client.sendall(head.encode() + archive(("early", b"x" * 70000))[:66000])
        eventually(lambda: opened(agent) > before)
        box.start()
    eventually(lambda: opened(agent) <= before)
    assert box.exec_run(["ls", "/d"]).output == b"f\nsub\n"


def test_a_daemon_that_is_killed_leaves_nothing_mounted(agent: AgentUnderTest) -> None:
    """The check for leaks after each test sees every mount."""
    box = run(agent, f"{BIG}; echo kept > /f", name="box")
    box.stop(timeout=0)
    slow = Download(agent, "/containers/box/archive?path=/big")
    slow.answer.read(1024)
    agent.kill()
    slow.close()
    agent.start()
    assert text(box, "/f") == "kept\n"


# -- diff and export --------------------------------------------------------------------------------


CHANGES = {
    # what a container does → what docker diff says, /tmp/ready apart.
    "true": [],
    "touch /new": ["A /new"],
    "mkdir -p /new/dir; touch /new/dir/f": ["A /new", "A /new/dir", "A /new/dir/f"],
    "echo more >> /etc/passwd": ["C /etc", "C /etc/passwd"],
    "chmod 644 /etc/passwd": [],  # copied up, and the same
    "chmod 700 /root": ["C /root"],
    "chown 5:5 /home/bob": ["C /home", "C /home/bob"],
    "touch /home/bob/x; rm /home/bob/x": [],
    "rm /bin/vi": ["C /bin", "D /bin/vi"],
    "rm -r /home": ["D /home"],
    "rm -r /home; mkdir /home; touch /home/x": ["C /home", "A /home/x", "D /home/bob"],
    "rm -r /home; echo file > /home": ["C /home"],
    "rm /bin/vi; mkdir -p /bin/vi/in": ["C /bin", "C /bin/vi", "A /bin/vi/in"],
    "ln -s /nowhere /link; mkfifo /pipe; mknod /node c 1 3": ["A /link", "A /node", "A /pipe"],
    "mv /etc/group /etc/moved": ["C /etc", "D /etc/group", "A /etc/moved"],
    "echo in > /vol/f; echo in > /etc/inner/f": [],
}


def test_docker_diff(agent: AgentUnderTest) -> None:
    """Mount points that were not there are additions, as with Docker; the engine's own are not."""
    volumes = {"one": {"bind": "/vol"}, "two": {"bind": "/etc/inner"}}
    for script, expected in CHANGES.items():
        mounted = volumes if "/vol" in script else {}
        box = run(agent, script, name="box", volumes=mounted)
        wanted = {*expected, "C /tmp", "A /tmp/ready"}
        if mounted:
            wanted |= {"A /vol", "C /etc", "A /etc/inner"}
        lines = agent.docker("diff", "box").stdout.splitlines()
        assert set(lines) == wanted and len(lines) == len(wanted), script
        assert [line[2:] for line in lines] == sorted(
            (line[2:] for line in lines), key=lambda p: p.split("/")
        )
        box.remove(force=True)


def test_diff_of_a_container_that_never_ran(agent: AgentUnderTest) -> None:
    box = agent.client.containers.create(BUSYBOX, ["true"])
    assert box.diff() == []
    box.put_archive("/tmp", archive(("put", b"")))
    assert box.diff() == [{"Path": "/tmp", "Kind": 0}, {"Path": "/tmp/put", "Kind": 1}]


def test_export_and_import(agent: AgentUnderTest, box: Container, tmp_path: Path) -> None:
    """The root without what is mounted on it, which becomes an image again."""
    box.put_archive("/vol", archive(("of the volume", b"")))
    exported = tmp_path / "root.tar"
    agent.docker("export", "-o", str(exported), "box")
    names = set(
        subprocess.run(["tar", "tf", exported], capture_output=True, text=True, check=True).stdout.split("\n")
    )
    assert {
        "d/",
        "d/f",
        "d/sub/g",
        "link",
        "bin/busybox",
        "vol/",
        "proc/",
        "dev/",
        "sys/",
        "etc/hosts",
    } <= names
    assert not any(name.startswith(("vol/o", "proc/s", "dev/n", "sys/f", "/", "./")) for name in names)
    assert b"".join(box.export())[:100] == exported.read_bytes()[:100]
    agent.docker("import", "-c", 'CMD ["cat", "/link/f"]', str(exported), "again:1")
    assert agent.client.containers.run("again:1", remove=True) == b"one\n"
    agent.client.images.remove("again:1")


def test_a_tree_deeper_than_a_path(agent: AgentUnderTest, tmp_path: Path) -> None:
    """All that reads a container's files reads those, and nothing of other containers' suffers."""
    box = run(agent, "mkdir /top", name="box", volumes={"deep": {"bind": "/vol"}})
    box.reload()
    for top in ("top", "vol"):
        deeptree.make(Path(f"/proc/{box.attrs['State']['Pid']}/root/{top}"), LEVELS)
    last = f"{deeptree.NAME}/" * LEVELS + "file"
    for state in ("running", "exited"):
        agent.docker("ps", "-as", "--format", "{{.Size}}")
        (shown,) = agent.client.api.containers(all=True, size=True)
        assert shown["State"] == state and shown["SizeRw"] >= LEVELS * 4096
        used = agent.client.df()
        assert used["Volumes"][0]["UsageData"]["Size"] >= LEVELS * 4096
        assert any(change["Path"] == f"/top/{last}" for change in box.diff())
        with read(box, "/vol") as tar:
            assert f"vol/{last}" in tar.getnames()
        exported = io.BytesIO(b"".join(box.export()))
        with tarfile.open(fileobj=exported) as tar:
            assert f"top/{last}" in tar.getnames()
        box.stop(timeout=0)
    pieces, _ = box.get_archive("/top")
    other = agent.client.containers.create(BUSYBOX, ["true"])
    other.put_archive("/", b"".join(pieces))
    assert deeptree.depth(upper(agent, other) / "top") == LEVELS
    box.commit("deep", "1")
    of_commit = agent.client.containers.create("deep:1", ["true"])
    with read(of_commit, "/top") as tar:
        assert f"top/{last}" in tar.getnames()
    of_commit.remove()
    agent.client.images.remove("deep:1")
    box.remove(v=True)


LEVELS = 500


def upper(agent: AgentUnderTest, container: Container) -> Path:
    return Path(agent.client.api.inspect_container(container.id)["GraphDriver"]["Data"]["UpperDir"])


def test_events_of_copies(agent: AgentUnderTest) -> None:
    box = run(agent, name="box")
    begin = int(time.time())
    list(box.get_archive("/d")[0])
    box.put_archive("/d", archive(("x", b"")))
    list(box.export())
    found = agent.client.api.events(
        since=begin - 1, until=int(time.time()) + 1, filters={"container": box.id}, decode=True
    )
    wanted = ["archive-path", "extract-to-dir", "export"]
    assert [event["Action"] for event in found if event["Action"] in wanted] == wanted


def test_removal_and_readers_do_not_disturb_each_other(agent: AgentUnderTest) -> None:
    def read(container_id: str, over: threading.Event) -> set[int]:
        found = set()
        while not over.is_set():
            download = Download(agent, f"/containers/{container_id}/archive?path=/etc")
            found.add(download.answer.status)
            with contextlib.suppress(http.client.IncompleteRead):
                download.answer.read()
            download.close()
        return found

    for _ in range(8):
        made, over = agent.client.containers.create(BUSYBOX, "true"), threading.Event()
        with ThreadPoolExecutor() as pool:
            readers = [pool.submit(read, str(made.id), over) for _ in range(3)]
            try:
                made.remove()
            finally:
                over.set()
            for reader in readers:
                assert reader.result() <= {200, 404, 409}
