"""Docker's own command line against the agent's socket, without change: what a newcomer types."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.agent import BUSYBOX, AgentUnderTest

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

TIMEOUT = 20.0


def out(agent: AgentUnderTest, *words: str, input: str = "") -> str:
    return agent.docker(*words, input=input).stdout.strip()


def inspect(agent: AgentUnderTest, name: str, template: str) -> str:
    return out(agent, "inspect", "-f", template, name)


def test_version_and_info(agent: AgentUnderTest) -> None:
    said = json.loads(out(agent, "version", "--format", "json"))
    assert said["Server"]["Platform"]["Name"] == "Hawse agent"
    info = json.loads(out(agent, "info", "--format", "json"))
    assert info["Driver"] == "overlay2"
    assert info["Swarm"]["LocalNodeState"] == "inactive"


def test_run_gives_output_and_exit_code(agent: AgentUnderTest) -> None:
    done = agent.docker("run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert out(agent, "ps", "-aq") == ""


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nosuchprogram"], 127, "executable file not found in $PATH"),
        (["/etc"], 126, "is a directory"),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, ""),
    ],
)
def test_exit_codes_of_failures(agent: AgentUnderTest, words: list[str], code: int, text: str) -> None:
    done = agent.docker("run", "--rm", BUSYBOX, *words, code=code)
    assert text in done.stderr


def test_an_option_that_is_not_supported_is_refused_by_name(agent: AgentUnderTest) -> None:
    done = agent.docker("run", "--rm", "--oom-kill-disable", BUSYBOX, "true", code=125)
    assert "OomKillDisable is not supported" in done.stderr
    for words, text in (
        (["--security-opt", "no-new-privileges=banana"], "neither true nor false"),
        (["-w", "relative"], "needs to be an absolute path"),
        (["-m", "5m"], "Minimum memory limit allowed is 6MB"),
        (["--uts", "host", "--hostname", "named"], "conflicting options"),
    ):
        assert text in agent.docker("run", "--rm", *words, BUSYBOX, "true", code=125).stderr
    done = agent.docker("run", "--rm", "--log-driver", "syslog", BUSYBOX, "true", code=125)
    assert "log driver 'syslog' is not supported" in done.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-u", "nobody2"], "unable to find user nobody2"),
        (["--ip", "10.1.2.3"], "10.1.2.3"),
        (["-v", "/dev/null:/etc/passwd/x"], ""),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    agent: AgentUnderTest, options: list[str], text: str
) -> None:
    """With a client that attached before the start, as `docker run` does."""
    done = agent.docker("run", "--rm", *options, BUSYBOX, "true", code=None)
    assert done.returncode in (125, 126, 127)
    assert text in done.stderr
    assert "supervisor ended" not in done.stderr
    assert out(agent, "ps", "-aq") == ""


def test_stdin_goes_through(agent: AgentUnderTest) -> None:
    text = "".join(f"line {number}\n" for number in range(5000))
    assert agent.docker("run", "--rm", "-i", BUSYBOX, "cat", input=text).stdout == text


def test_a_terminal(agent: AgentUnderTest) -> None:
    """`run -it` as a person does it: a terminal with a size, what is typed, the exit code."""
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=theirs, check=True)
    process = subprocess.Popen(
        ["docker", "-H", f"unix://{agent.socket}", "run", "--rm", "-it", BUSYBOX, "sh"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = _read_until(ours, b"# ")
    os.write(ours, b"stty size; tty; exit 4\n")
    seen += _read_until(ours, b"/dev/pts/0")
    assert b"33 99" in seen
    assert process.wait(TIMEOUT) == 4
    os.close(ours)


def _read_until(fd: int, wanted: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + TIMEOUT
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(fd, 4096)
    return seen


def test_detached_listed_stopped_started_removed(agent: AgentUnderTest) -> None:
    identity = out(agent, "run", "-d", "--name", "one", BUSYBOX, "sleep", "1000")
    assert len(identity) == 64
    assert out(agent, "ps", "--format", "{{.Names}} {{.Image}} {{.State}}") == f"one {BUSYBOX} running"
    assert out(agent, "ps", "-q", "--filter", "name=other") == ""
    assert re.match(r"Up .*second", out(agent, "ps", "--format", "{{.Status}}"))
    assert (
        "is already in use by container"
        in agent.docker("run", "-d", "--name", "one", BUSYBOX, "true", code=125).stderr
    )
    assert out(agent, "stop", "-t", "0", "one") == "one"
    assert out(agent, "ps", "-q") == ""
    assert out(agent, "ps", "-a", "--format", "{{.Status}}").startswith("Exited (137)")
    out(agent, "start", "one")
    assert inspect(agent, "one", "{{.State.Running}} {{.RestartCount}}") == "true 0"
    assert "cannot remove container" in agent.docker("rm", "one", code=1).stderr
    out(agent, "restart", "-t", "0", "one")
    out(agent, "kill", "one")
    assert out(agent, "wait", "one") == "137"
    out(agent, "rename", "one", "two")
    out(agent, "rm", "two")
    assert "No such container" in agent.docker("inspect", "--type", "container", "two", code=1).stderr


def test_logs(agent: AgentUnderTest) -> None:
    out(agent, "run", "-d", "--name", "talks", BUSYBOX, "sh", "-c", "seq 1 5; echo oops >&2; sleep 1000")
    deadline = time.monotonic() + TIMEOUT
    while (done := agent.docker("logs", "talks")).stderr != "oops\n":
        assert time.monotonic() < deadline
    assert done.stdout == "1\n2\n3\n4\n5\n"
    assert agent.docker("logs", "--tail", "2", "talks").stdout in ("5\n", "4\n5\n")
    stamped = agent.docker("logs", "-t", "talks").stdout.splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 1", stamped)


def test_logs_follow_to_the_end(agent: AgentUnderTest) -> None:
    out(
        agent,
        "run",
        "-d",
        "--name",
        "talks",
        BUSYBOX,
        "sh",
        "-c",
        "for n in 1 2 3; do echo $n; sleep 0.2; done",
    )
    assert agent.docker("logs", "-f", "talks").stdout == "1\n2\n3\n"


def test_exec(agent: AgentUnderTest) -> None:
    out(agent, "run", "-d", "--name", "host", "-e", "A=1", "-w", "/tmp", BUSYBOX, "sleep", "1000")
    assert out(agent, "exec", "host", "sh", "-c", "echo $A $PWD") == "1 /tmp"
    assert out(
        agent, "exec", "-e", "B=2", "-u", "bob", "-w", "/", "host", "sh", "-c", "echo $B; id -un; pwd"
    ) == ("2\nbob\n/")
    assert agent.docker("exec", "-i", "host", "cat", input="typed").stdout == "typed"
    agent.docker("exec", "host", "sh", "-c", "exit 9", code=9)
    agent.docker("exec", "host", "nosuch", code=127)
    out(agent, "exec", "-d", "host", "touch", "/tmp/made")
    assert "is not running" in agent.docker("exec", _created(agent), "true", code=1).stderr


def _created(agent: AgentUnderTest) -> str:
    return out(agent, "create", BUSYBOX, "true")


def test_limits_and_other_options(agent: AgentUnderTest) -> None:
    script = "cat /etc/hostname; id -u; grep CapEff /proc/self/status; ulimit -n; touch /x 2>&1 || true"
    said = out(
        agent,
        *(
            "run",
            "--rm",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "20",
            "--read-only",
            "--tmpfs",
            "/tmp",
        ),
        *("--hostname", "named", "-u", "1000", "--cap-drop", "ALL", "--ulimit", "nofile=128:128"),
        *("--label", "a=b", "--add-host", "far:192.0.2.1", "--dns", "192.0.2.53"),
        *(BUSYBOX, "sh", "-c", script),
    ).splitlines()
    assert said[:2] == ["named", "1000"]
    assert said[2].split() == ["CapEff:", "0000000000000000"]
    assert said[3] == "128"
    assert "Read-only file system" in said[4]


def test_inspect_says_what_was_asked_for(agent: AgentUnderTest) -> None:
    out(
        agent,
        *("create", "--name", "asked", "-m", "64m", "--cpus", "0.5", "--restart", "on-failure:3"),
        *("-p", "8081:80", "-v", "/srv:/data:ro", "--label", "k=v", BUSYBOX, "sleep", "1"),
    )
    (seen,) = json.loads(out(agent, "inspect", "asked"))
    host = seen["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 500_000_000)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8081"}]}
    assert seen["Config"]["Labels"] == {"k": "v"}
    assert seen["Mounts"][0]["Source"] == "/srv"
    assert seen["Mounts"][0]["RW"] is False
    assert seen["State"]["Status"] == "created"


def test_published_ports(agent: AgentUnderTest) -> None:
    script = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"
    out(agent, "run", "-d", "--name", "web", "-p", "127.0.0.1:8083:80", BUSYBOX, "sh", "-c", script)
    assert out(agent, "port", "web") == "80/tcp -> 127.0.0.1:8083"
    assert _fetch("http://127.0.0.1:8083/") == "page\n"
    taken = agent.docker("run", "-d", "-p", "127.0.0.1:8083:80", BUSYBOX, "true", code=125)
    assert "port is already allocated" in taken.stderr


def _fetch(url: str) -> str:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            assert time.monotonic() < deadline


def test_networks(agent: AgentUnderTest) -> None:
    out(agent, "network", "create", "--subnet", "172.28.77.0/24", "inner")
    assert "inner" in out(agent, "network", "ls", "--format", "{{.Name}}").split()
    out(
        agent,
        "run",
        "-d",
        "--name",
        "first",
        "--network",
        "inner",
        "--network-alias",
        "nick",
        BUSYBOX,
        "sleep",
        "1000",
    )
    (seen,) = json.loads(out(agent, "network", "inspect", "inner"))
    assert [c["Name"] for c in seen["Containers"].values()] == ["first"]
    assert out(agent, "run", "--rm", "--network", "inner", BUSYBOX, "ping", "-c", "1", "-w", "5", "nick")
    assert "has active endpoints" in agent.docker("network", "rm", "inner", code=1).stderr
    refused = agent.docker("network", "create", "-d", "overlay", "far", code=1)
    assert "overlay is not supported" in refused.stderr
    out(agent, "rm", "-f", "first")
    out(agent, "network", "rm", "inner")


def test_volumes(agent: AgentUnderTest) -> None:
    out(agent, "volume", "create", "data")
    out(agent, "run", "--rm", "-v", "data:/d", BUSYBOX, "sh", "-c", "echo kept > /d/file")
    assert out(agent, "run", "--rm", "-v", "data:/d:ro", BUSYBOX, "cat", "/d/file") == "kept"
    assert out(agent, "volume", "ls", "-q") == "data"
    point = out(agent, "volume", "inspect", "-f", "{{.Mountpoint}}", "data")
    assert (Path(point) / "file").read_text() == "kept\n"
    holder = out(agent, "create", "-v", "data:/d", BUSYBOX, "true")
    assert "volume is in use" in agent.docker("volume", "rm", "data", code=1).stderr
    out(agent, "rm", holder)
    out(agent, "volume", "rm", "data")


def test_a_bind_source_is_made_by_v_and_required_by_mount(agent: AgentUnderTest) -> None:
    source = agent.root / "made"
    out(agent, "run", "--rm", "-v", f"{source}:/d", BUSYBOX, "touch", "/d/file")
    assert (source / "file").exists()
    refused = agent.docker(
        "run", "--rm", "--mount", f"type=bind,src={agent.root}/missing,dst=/d", BUSYBOX, "true", code=125
    )
    assert "bind source path does not exist" in refused.stderr
    shutil.rmtree(source)


def test_images(agent: AgentUnderTest, tmp_path: Path) -> None:
    assert BUSYBOX in out(agent, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    out(agent, "tag", BUSYBOX, "other:1")
    archive = tmp_path / "saved.tar"
    out(agent, "save", "-o", str(archive), "other:1")
    assert "Untagged: other:1" in out(agent, "rmi", "other:1")
    assert "Loaded image: other:1" in out(agent, "load", "-i", str(archive))
    assert json.loads(out(agent, "inspect", "--type", "image", "other:1"))[0]["RepoTags"]
    assert out(agent, "history", "-q", "other:1")
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w") as tar:
        tar.add(busybox.make_layer(tmp_path / "layer"), ".")
    out(agent, "import", "-c", 'CMD ["echo", "imported"]', str(root), "imported:1")
    assert out(agent, "run", "--rm", "imported:1") == "imported"
    out(agent, "rmi", "other:1", "imported:1")
    assert "No such image" in agent.docker("rmi", "other:1", code=1).stderr


def test_pull(agent: AgentUnderTest, registry: str, pushed: str) -> None:
    name = pushed
    assert "Downloaded newer image" in out(agent, "pull", name)
    assert "Image is up to date" in out(agent, "pull", name)
    assert out(agent, "run", "--rm", name, "echo", "pulled") == "pulled"
    out(agent, "rmi", name)
    missing = agent.docker("pull", f"{registry}/team/nothing:1", code=1)
    assert "nothing" in missing.stderr


def test_events_and_stats(agent: AgentUnderTest) -> None:
    begin = time.time()
    out(agent, "run", "-d", "--name", "seen", BUSYBOX, "sleep", "1000")
    stats = json.loads(out(agent, "stats", "--no-stream", "--format", "json"))
    assert stats["Name"] == "seen"
    assert out(agent, "top", "seen").splitlines()[1].endswith("sleep 1000")
    out(agent, "rm", "-f", "seen")
    events = out(
        agent, "events", "--since", f"{begin:.3f}", "--until", f"{time.time():.3f}", "--format", "{{.Action}}"
    ).split()
    assert [event for event in events if event in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip


def test_housekeeping(agent: AgentUnderTest) -> None:
    out(agent, "run", "-d", "--name", "kept", "-v", "data:/d", BUSYBOX, "sleep", "1000")
    out(agent, "update", "-m", "64m", "--memory-swap", "-1", "--restart", "always", "kept")
    limits = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.RestartPolicy.Name}}"
    assert inspect(agent, "kept", limits) == "67108864 -1 always"
    assert inspect(agent, "kept", "{{.SizeRw}}") == "<nil>"
    assert out(agent, "inspect", "-s", "-f", "{{.SizeRw}}", "kept") == "0"
    out(agent, "run", "--name", "passing", "-v", "/anonymous", BUSYBOX, "sh", "-c", "echo x > /y")
    use = [json.loads(line) for line in out(agent, "system", "df", "--format", "json").splitlines()]
    assert [(row["Type"], row["TotalCount"], row["Active"]) for row in use] == [
        ("Images", "1", "1"),
        ("Containers", "2", "1"),
        ("Local Volumes", "2", "2"),
        ("Build Cache", "0", "0"),
    ]
    pruned = out(agent, "system", "prune", "-f", "--volumes")
    assert "Deleted Containers:" in pruned and "Deleted Volumes:" in pruned
    assert out(agent, "ps", "-a", "--format", "{{.Names}}") == "kept"
    assert out(agent, "volume", "ls", "-q") == "data"


def test_what_is_not_there_says_so(agent: AgentUnderTest) -> None:
    assert "swarm mode" in agent.docker("swarm", "init", code=1).stderr
    assert "does not support plugins" in agent.docker("plugin", "ls", code=1).stderr
