"""Logs as Docker's clients read them: drivers, rotation under a reader, long lines, a disk that is full."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container
from docker.types import LogConfig
from tests.support import busybox, isolation, linux
from tests.support.agent import BUSYBOX, AgentUnderTest

from hawse_agent.linux.uring import Ring

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

TIMEOUT = 40.0


def run(agent: AgentUnderTest, script: str, **options: Any) -> Container:
    return agent.client.containers.run(BUSYBOX, ["sh", "-c", script], detach=True, **options)


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def test_a_follower_sees_every_line_over_rotations(agent: AgentUnderTest) -> None:
    """It begins in the middle, with a tail, and sees the end; with the client it is the real thing."""
    config = LogConfig(type="json-file", config={"max-size": "4k", "max-file": "100"})
    container = run(agent, "seq 1 40; read go; seq 41 1500", stdin_open=True, log_config=config)
    eventually(lambda: container.logs(tail=1) == b"40\n")
    command = ["docker", "-H", f"unix://{agent.socket}", "logs", "-f", "--tail", "10", container.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()
        stream = container.attach_socket(params={"stdin": 1, "stream": 1})
        stream._sock.sendall(b"go\n")
        rest = follower.stdout.read()
    stream.close()
    assert [int(line) for line in (first + rest).splitlines()] == list(range(31, 1501))
    assert [int(line) for line in container.logs(tail=1400).splitlines()] == list(range(101, 1501))
    directory = Path(container.attrs["LogPath"] or inspected(container)["LogPath"]).parent
    sizes = [path.stat().st_size for path in directory.glob(f"{container.id}-json.log*")]
    assert len(sizes) > 5 and max(sizes) <= 4096


def inspected(container: Container) -> dict[str, Any]:
    container.reload()
    return dict(container.attrs)


def test_a_follower_misses_nothing_however_fast_the_log_is_rotated(agent: AgentUnderTest) -> None:
    """Thousands of files, of which the log keeps two."""
    config = LogConfig(type="json-file", config={"max-size": "1k", "max-file": "2"})
    container = run(agent, "read go; seq 1 15000", stdin_open=True, log_config=config)
    command = ["docker", "-H", f"unix://{agent.socket}", "logs", "-f", container.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        log = Path(inspected(container)["LogPath"])
        eventually(lambda: log.exists() and is_locked(log))
        stream = container.attach_socket(params={"stdin": 1, "stream": 1})
        stream._sock.sendall(b"go\n")
        lines = follower.stdout.read().splitlines()
    stream.close()
    assert lines == [str(number) for number in range(1, 15001)]
    assert len(list(log.parent.glob(f"{log.name}*"))) == 2


def is_locked(path: Path) -> bool:
    """A follower has begun."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_drivers(agent: AgentUnderTest) -> None:
    kept = run(agent, "echo kept", log_config=LogConfig(type="local", config={"max-size": "10k"}))
    silent = run(agent, "echo lost", log_config=LogConfig(type="none"))
    plain = run(agent, "echo said")
    for container in (kept, silent, plain):
        container.wait()
    assert kept.logs() == b"kept\n"
    done = agent.docker("logs", silent.id, code=1)
    assert "configured logging driver does not support reading" in done.stderr
    assert inspected(silent)["HostConfig"]["LogConfig"] == {"Type": "none", "Config": {}}
    assert inspected(kept)["HostConfig"]["LogConfig"]["Config"]["max-size"] == "10240"
    assert inspected(kept)["LogPath"] == inspected(silent)["LogPath"] == ""
    line = json.loads(Path(inspected(plain)["LogPath"]).read_text())
    assert (line["log"], line["stream"]) == ("said\n", "stdout")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["max-file=0"], "max-file cannot be less than 1"),
        (["max-size=much"], "invalid size: 'much'"),
        (["mode=blocking"], "log mode 'blocking' is not supported"),
        (["mode=other"], "logging mode not supported: other"),
        (["compress=true"], "log option 'compress' is not supported"),
        (["tag=x"], "log option 'tag' is not supported"),
        (["nonsense=1"], "unknown log opt 'nonsense' for json-file log driver"),
    ],
)
def test_options_that_are_refused(agent: AgentUnderTest, options: list[str], text: str) -> None:
    words = [word for option in options for word in ("--log-opt", option)]
    assert text in agent.docker("create", *words, BUSYBOX, code=1).stderr


def test_a_long_line_is_one_line(agent: AgentUnderTest) -> None:
    container = run(agent, "printf begin; head -c 100000 /dev/zero | tr '\\0' x; echo end; echo next >&2")
    container.wait()
    line = b"begin" + b"x" * 100_000 + b"end\n"
    assert container.logs(stderr=False) == container.logs(stderr=False, tail=1) == line
    stamped = agent.docker("logs", "-t", container.id).stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z beginx{100000}end\n", stamped)
    parts = Path(inspected(container)["LogPath"]).read_text().splitlines()
    assert len(parts) == 8  # seven of at most 16 KiB, and the other stream's


def test_following_goes_on_over_restarts_and_ends_with_the_run(agent: AgentUnderTest) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    again = run(agent, "echo run; exit 1", restart_policy=policy)
    assert b"".join(again.logs(stream=True, follow=True)) == b"run\n" * 3
    lasting = run(agent, "echo up; exec sleep 1000")
    follower = lasting.logs(stream=True, follow=True)
    assert next(follower) == b"up\n"
    lasting.restart(timeout=0)
    assert list(follower) in ([], [b"up\n"])  # with the run, whether it saw the next begin or not
    follower = lasting.logs(stream=True, follow=True)
    assert next(follower) + next(follower) == b"up\nup\n"
    lasting.remove(force=True)
    assert list(follower) == []


def test_following_ends_at_a_time(agent: AgentUnderTest) -> None:
    container = run(agent, "echo now; exec sleep 1000")
    eventually(lambda: container.logs() == b"now\n")
    shown = agent.docker("logs", "-f", "--until", f"{time.time() + 1:.3f}", container.id)
    assert shown.stdout == "now\n"
    assert inspected(container)["State"]["Running"]


def test_what_the_disk_does_not_take_is_counted_and_holds_nothing_up(agent: AgentUnderTest) -> None:
    container = agent.client.containers.create(
        BUSYBOX, ["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; echo done > /written; exec sleep 1000"]
    )
    assert inspected(container)["LogBytesDropped"] == 0
    log = Path(container.attrs["LogPath"])
    log.touch()
    linux.mount("/dev/full", str(log), None, linux.MS_BIND)
    try:
        container.start()
        eventually(lambda: container.exec_run(["cat", "/written"]).output == b"done\n")
        eventually(lambda: inspected(container)["LogBytesDropped"] >= 280_000)
    finally:
        linux.umount(str(log), linux.MNT_DETACH)


def test_a_flood_is_written_or_counted(agent: AgentUnderTest) -> None:
    """On a healthy disk nothing is dropped; how healthy this one is, the test does not know."""
    container = run(
        agent,
        "yes 012345678901234567890123456789012345678 | head -c 2000000",
        log_config=LogConfig(type="json-file", config={"max-size": "-1"}),
    )
    container.wait()
    kept = len(agent.docker("logs", container.id).stdout)
    assert kept + inspected(container)["LogBytesDropped"] == 2_000_000


def _waits_for_disks() -> bool:
    """Whether this kernel waits for them, and not the supervisor."""
    try:
        Ring().close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _waits_for_disks(), reason="this kernel has no io_uring")
def test_a_disk_that_is_stuck_holds_nothing_up(agent: AgentUnderTest) -> None:
    """A pipe that nobody reads takes a write as a dead disk does: never."""
    script = "head -c 8000000 /dev/zero | tr '\\0' x; echo done > /written; exec sleep 1000"
    container = agent.client.containers.create(BUSYBOX, ["sh", "-c", script])
    log = Path(inspected(container)["LogPath"])
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        container.start()
        eventually(lambda: container.exec_run(["cat", "/written"]).output == b"done\n")
        eventually(lambda: inspected(container)["LogBytesDropped"] > 0)
    finally:
        os.close(reader)
    container.remove(force=True)
