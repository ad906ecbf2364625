"""Full disks, damaged blobs and damaged backups: what was there stays, and once the cause is gone, the next
run does it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.project import Project
from tests.support.testhost import TestHost, TestNetwork

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

LIB = "/var/lib/hawse"
STACK = """\
name: stack
services:
  one:
    image: {image}
    command: [sleep, "1000"]
    stop_signal: SIGKILL
    network_mode: none
    volumes: [data:/data]
volumes: {{data: {{}}}}
"""
UP = ("up", "stack.yaml", "db1")


@pytest.fixture(scope="module")
def big(hawse: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root tar whose image is some MiB larger than busybox's."""
    directory = tmp_path_factory.mktemp("big")
    busybox.make_layer(directory / "layer")
    (directory / "layer/noise").write_bytes(os.urandom(6 << 20))
    with tarfile.open(directory / "root.tar", "w") as tar:
        tar.add(directory / "layer", ".")
    hawse.run("image", "import", str(directory / "root.tar"), "big:1")
    return directory / "root.tar"


@pytest.fixture(scope="module")
def tiny(hosts: TestNetwork, hawse: Project, bb: str) -> Iterator[TestHost]:
    """db1 with a small disk under the whole agent."""
    db1 = hosts.hosts[2]
    hawse.run("host", "remove", "db1", "--volumes")
    db1.small_disk(LIB, "48m")
    hawse.write("stack.yaml", STACK.format(image=bb))
    hawse.run(*UP)
    hawse.run("down", "stack", "db1", "--volumes")
    yield db1
    hawse.run("host", "remove", "db1", "--volumes")
    db1.unmount(LIB)


@pytest.fixture
def db1(hawse: Project, tiny: TestHost, big: Path, bb: str) -> Iterator[TestHost]:
    """With a container that has a volume with a file in it, which is there at the end of every test."""
    hawse.write("stack.yaml", STACK.format(image=bb))
    hawse.run(*UP)
    tiny.shell(f"echo precious > {LIB}/volumes/stack_data/_data/file")
    yield tiny
    assert kept(tiny)
    hawse.run("down", "stack", "db1", "--volumes")
    hawse.write("clean.yml", "- hosts: db1\n  tasks:\n    - image: {name: big:1, state: absent}\n")
    hawse.run("play", "clean.yml")


def kept(host: TestHost) -> bool:
    return host.path(f"{LIB}/volumes/stack_data/_data/file").read_text() == "precious\n"


def sleepers(host: TestHost) -> list[int]:
    return host.pids("sleep 1000")


def said(done: subprocess.CompletedProcess[str], *words: str) -> None:
    text = done.stdout + done.stderr
    print(text)
    assert [word for word in words if word not in text] == [], text


@contextmanager
def full(host: TestHost, *, leave: int = 0) -> Iterator[None]:
    host.fill_disk(LIB, leave=leave)
    try:
        yield
    finally:
        host.free_disk(LIB)


# -- full disks ------------------------------------------------------------------------------------


def test_no_room_for_an_image(hawse: Project, db1: TestHost) -> None:
    before = sleepers(db1)
    hawse.write("stack.yaml", STACK.format(image="big:1"))
    with full(db1, leave=2 << 20):
        said(hawse.run(*UP, code=1), "db1: send image big:1: ", "the disk is full", "then run again")
        assert sleepers(db1) == before and len(before) == 1
    said(hawse.run(*UP), "recreate container stack-one-1")


def test_no_room_for_a_restore(hawse: Project, db1: TestHost) -> None:
    data = db1.path(f"{LIB}/volumes/stack_data/_data")
    (data / "more").write_bytes(os.urandom(4 << 20))
    backup = hawse.directory / "big.tar.zst"
    hawse.run("-H", "db1", "volume", "backup", "stack_data", "-o", str(backup))
    (data / "more").unlink()
    with full(db1, leave=2 << 20):
        done = hawse.run("-H", "db1", "volume", "restore", "stack_data", str(backup), code=1)
        said(done, "db1: restore volume stack_data: the disk is full", "then run again")
        assert kept(db1) and len(sleepers(db1)) == 1
    hawse.run("-H", "db1", "volume", "restore", "stack_data", str(backup))
    assert (data.parent / "_data/more").stat().st_size == 4 << 20


def test_no_room_for_the_state(hawse: Project, db1: TestHost) -> None:
    stack = STACK.format(image="bb:1")
    two = stack[stack.index("  one:") : stack.index("    volumes:")].replace("one:", "two:")
    hawse.write("stack.yaml", stack.replace("\nvolumes:", f"\n{two}volumes:"))
    before = sleepers(db1)
    with full(db1):
        said(hawse.run(*UP, code=1), "db1: ", "state.db: the disk is full")
        assert sleepers(db1) == before
        said(hawse.run("status", "db1"), "1 running")
        (pid,) = db1.pids("hawse-agent: daemon")
        db1.kill(pid)
        db1.wait_for(lambda: not db1.pids("hawse-agent: daemon"), "the daemon to end")
        said(hawse.run("status", "db1"), "1 running")
    said(hawse.run(*UP), "create container stack-two-1")
    assert len(sleepers(db1)) == 2


# -- damage ----------------------------------------------------------------------------------------


def test_a_damaged_blob_here(hawse: Project, db1: TestHost, big: Path) -> None:
    damage(layer(hawse))
    hawse.write("stack.yaml", STACK.format(image="big:1"))
    said(hawse.run(*UP, code=1), "db1: send image big:1: ", "is damaged", "import the image again")
    assert len(sleepers(db1)) == 1
    hawse.run("image", "import", str(big), "big:1")
    said(hawse.run(*UP), "recreate container stack-one-1")


def test_a_damaged_blob_on_the_host(hawse: Project, db1: TestHost) -> None:
    """As a disk leaves it between sending and unpacking."""
    there = db1.path(f"{LIB}/blobs/sha256/{layer(hawse).name}")
    shutil.copy(layer(hawse), there)
    damage(there)
    hawse.write("stack.yaml", STACK.format(image="big:1"))
    said(hawse.run(*UP, code=1), "db1: send image big:1: ", "is damaged")
    assert len(sleepers(db1)) == 1
    said(hawse.run(*UP), "recreate container stack-one-1")


def test_damaged_backups(hawse: Project, db1: TestHost) -> None:
    backup = hawse.directory / "backup.tar.gz"
    hawse.run("-H", "db1", "volume", "backup", "stack_data", "-o", str(backup))
    whole, manifest = backup.read_bytes(), backup.with_name("backup.tar.gz.manifest.json")
    described = json.loads(manifest.read_text())
    hawse.write(
        "restore.yml",
        "- hosts: db1\n  tasks:\n    - volume_restore: {name: stack_data, src: backup.tar.gz}\n",
    )
    restore = ("-H", "db1", "volume", "restore", "stack_data", str(backup))
    for data in (whole[:-9], whole[: len(whole) // 2], b"", whole[:40] + b"XX" + whole[42:]):
        backup.write_bytes(data)
        said(hawse.run(*restore, code=2), "db1: the backup for volume stack_data is damaged or incomplete")
        assert kept(db1) and len(sleepers(db1)) == 1
    done = hawse.run("play", "restore.yml", code=2)
    said(done, "db1: the backup for volume stack_data is damaged or incomplete")
    backup.write_bytes(whole)
    for broken in ("", "{", "[]", json.dumps({**described, "files": []})):
        manifest.write_text(broken)
        said(hawse.run(*restore, code=2), str(manifest) if len(broken) < 9 else "db1")
        assert kept(db1) and len(sleepers(db1)) == 1
    manifest.unlink()
    said(hawse.run(*restore, code=2), "has no manifest")
    manifest.write_text(json.dumps(described))
    said(hawse.run("play", "restore.yml"), "1 changed")


def layer(hawse: Project) -> Path:
    """The largest blob of big:1, as it is kept to be sent."""
    images = json.loads(hawse.run("--json", "image", "ls").stdout)
    ((variant,),) = (image["variants"] for image in images if "big" in image["reference"])
    blobs = Path(hawse.environment["HAWSE_HOME"]) / "images/blobs"
    paths: list[Path] = [blobs / digest.replace(":", "/") for digest in variant["blobs"]]
    return max(paths, key=lambda path: path.stat().st_size)


def damage(path: Path) -> None:
    """One byte in the middle is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
