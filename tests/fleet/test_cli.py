"""`hawse` as a person runs it, on two hosts with containers: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import stat
import subprocess
import sys
import tarfile
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import busybox, isolation
from tests.support.testhost import TestHost, TestNetwork

from hawse.cli.context import Context, Place
from hawse.cli.verb import Globals
from hawse.fleet.client import AgentClient

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

HAWSE = (sys.executable, "-m", "hawse")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A project folder for two hosts that run the container `app`."""

    directory: Path
    environment: dict[str, str]
    web1: TestHost
    web2: TestHost

    def hawse(self, command: str, *, code: int = 0, input: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*HAWSE, *shlex.split(command)],
            cwd=self.directory,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done

    def out(self, command: str, *, code: int = 0, input: str = "") -> str:
        return self.hawse(command, code=code, input=input).stdout

    def start(self, command: str, **options: int) -> subprocess.Popen[bytes]:
        words = [*HAWSE, *shlex.split(command)]
        return subprocess.Popen(
            words, cwd=self.directory, env=self.environment, start_new_session=True, **options
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory / "home"),
        "HAWSE_HOME": str(directory / "data"),
        "TERM": "xterm",
    }
    busybox.make_layer(directory / "layer")
    with tarfile.open(directory / "root.tar", "w") as tar:
        tar.add(directory / "layer", ".")
    with TestNetwork() as network:
        web1, web2 = network.host("web1"), network.host("web2")
        network.start()
        (directory / "hosts.ini").write_text(f"[web]\n{network.inventory()}")
        (directory / "hawse.toml").write_text('inventory = "hosts.ini"\n')
        site = Site(directory=directory, environment=environment, web1=web1, web2=web2)
        assert "bb:1" in site.out("image import root.tar bb:1 -c 'CMD [\"sh\"]'")
        assert site.out("image send bb:1 web").count(": bb:1 is sha256:") == 2
        on_agents(site, lambda agent: run_container(agent, "app", APP))
        yield site
        assert site.out("host remove web --volumes") == "web1: removed\nweb2: removed\n"


APP = {
    "Image": "bb:1",
    "Cmd": ["sh", "-c", "echo out; echo err >&2; exec sleep 10000"],
    "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
}
STORE = {
    "Image": "bb:1",
    "Cmd": ["sleep", "10000"],
    "StopSignal": "SIGKILL",
    "HostConfig": {"Binds": ["data:/data"], "NetworkMode": "none"},
}


def on_agents(site: Site, act: Callable[[AgentClient], object]) -> None:
    """Past the command line; waits until the connections are gone from the hosts."""
    options = Globals(inventory=(str(site.directory / "hosts.ini"),))
    with Context(options, environment={"HOME": site.environment["HOME"]}) as context:
        for host in context.hosts("web"):
            act(context.at(Place(name=host.name, host=host)))
    for web in (site.web1, site.web2):
        web.wait_for(lambda web=web: not web.pids("hawse-agent dial"), "connections end")
        web.wait_for(lambda web=web: not web.pids("@notty"), "sessions end")


def run_container(agent: AgentClient, name: str, body: object) -> None:
    made = agent.json("POST", f"/v1.44/containers/create?name={name}", data=body)
    agent.request("POST", f"/v1.44/containers/{made['Id']}/start")


@pytest.fixture
def store(site: Site) -> Iterator[None]:
    """A container `store` with a volume `data` on both hosts."""

    def clear(agent: AgentClient) -> None:
        agent.request("DELETE", "/v1.44/containers/store?force=1")
        agent.request("DELETE", "/v1.44/volumes/data")

    on_agents(site, lambda agent: run_container(agent, "store", STORE))
    yield
    on_agents(site, clear)


def test_plain_commands(site: Site) -> None:
    done = site.hawse("ssh all -- 'hostname; echo no >&2; exit 3'", code=3)
    assert sorted(done.stdout.splitlines()) == ["web1 | web1", "web2 | web2"]
    assert sorted(done.stderr.splitlines()) == ["web1 | no", "web2 | no"]
    assert site.out("ssh web1 -- cat", input="a\nb\n") == "a\nb\n"
    assert site.out("ssh web1 -- printf %s '$HOME two'") == "$HOME two"


def test_status(site: Site) -> None:
    shown = site.out("status")
    assert "2 hosts: 2 running" in shown and "8080:80/tcp" in shown
    report = json.loads(site.out("--json status web1"))
    assert report["web1"]["states"] == {"running": 1}


def test_facts(site: Site) -> None:
    assert site.out("facts web2 --filter hostname") == "web2:\n  ansible_hostname: web2\n"


def test_ps(site: Site) -> None:
    heading, one, two = site.out("-H web ps").splitlines()
    assert heading.split()[:3] == ["HOST", "CONTAINER", "ID"]
    for host, line in (("web1", one), ("web2", two)):
        assert (line.split()[0], line.split()[2], line.split()[-1]) == (host, "bb:1", "app")
    assert site.out("-H web ps --format '{{.Host}} {{.Names}}'") == "web1 app\nweb2 app\n"
    assert "HOST" not in site.out("-H web1 ps")
    assert len(site.out("-H web1 ps -q").strip()) == 12


def test_container_verbs_on_two_hosts(site: Site) -> None:
    one, two = sorted(site.out("-H web run -d --name extra --label a=b bb:1 sleep 1000").splitlines())
    assert one.startswith("web1 | ") and two.startswith("web2 | ")
    assert site.out("-H web ps -f label=a --format {{.Names}}") == "web1 | extra\nweb2 | extra\n"
    seen = site.out("-H web inspect -f '{{.State.Status}} {{.Name}}' extra")
    assert sorted(seen.splitlines()) == ["web1 | running /extra", "web2 | running /extra"]
    assert len(site.out("-H web stats --no-stream --format '{{.Host}} {{.Name}}'").splitlines()) == 4
    (held,) = [json.loads(line) for line in site.out("-H web2 ps --format json -f label=a").splitlines()]
    assert held["Names"] == "extra" and "Host" not in held
    (site.directory / "note").write_text("noted\n")
    site.out("-H web cp note extra:/tmp/")
    noted = site.out("-H web exec extra cat /tmp/note").splitlines()
    assert sorted(noted) == ["web1 | noted", "web2 | noted"]
    assert "one host at a time" in site.hawse("-H web cp extra:/tmp/note x", code=2).stderr
    site.out("-H web2 cp extra:/tmp/note back")
    assert (site.directory / "back").read_text() == "noted\n"
    assert site.out("-H web1 rm -f extra") == "extra\n"
    done = site.hawse("-H web stop -t 0 extra", code=1)
    assert (done.stdout, done.stderr) == ("web2 | extra\n", "web1: No such container: extra\n")
    assert site.out("-H web wait app extra --help").startswith("usage")
    done = site.hawse("-H web1 rm extra nothing", code=1)
    assert done.stderr == "hawse: No such container: extra\nhawse: No such container: nothing\n"
    events = site.out("-H web events --since 1 --until 0s -f container=extra --format {{.Action}}")
    assert events.count("web2 | create") == 1 and events.count("web1 | destroy") == 1
    removed = json.loads(site.out("--json -H web prune -f"))
    assert [len(answer["containers"]["ContainersDeleted"] or ()) for answer in removed.values()] == [0, 1]


def test_logs(site: Site) -> None:
    done = site.hawse("-H web1 logs app")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert sorted(site.out("-H web logs app").splitlines()) == ["web1 | out", "web2 | out"]


def test_following_ends_with_ctrl_c(site: Site) -> None:
    with site.start("-H web logs -f app", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert {process.stdout.readline() for _ in range(2)} == {b"web1 | out\n", b"web2 | out\n"}
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"hawse: interrupted: cut off on web1, web2" in errors


def test_exec(site: Site) -> None:
    done = site.hawse("-H web exec app sh -c 'echo hi; echo no >&2; exit 7'", code=7)
    assert sorted(done.stdout.splitlines()) == ["web1 | hi", "web2 | hi"]
    assert sorted(done.stderr.splitlines()) == ["web1 | no", "web2 | no"]
    command = "-H web1 exec -i -e A=b -u bob -w /tmp app sh -c 'cat; id -un; pwd; echo $A'"
    assert site.out(command, input="in\n") == "in\nbob\n/tmp\nb\n"
    site.hawse("-H web1 exec app nosuch", code=127)
    assert "No such container: nothere" in site.hawse("-H web1 exec nothere ls", code=1).stderr


def test_exec_with_a_terminal(site: Site) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (33, 77))
    with site.start("-H web1 exec -it app sh -c 'read x; stty size; exit 5'", stdin=theirs, stdout=theirs):
        os.close(theirs)
        os.write(ours, b"go\n")
        shown = read_all(ours)
    assert b"33 77" in shown


def test_run_on_hosts(site: Site) -> None:
    """Detached on each; attached on one, or on several without a terminal, with the worst exit code."""
    done = site.hawse(
        "-H web run --rm bb:1 sh -c 'hostname > /dev/null; echo hi; echo no >&2; exit 7'", code=7
    )
    assert sorted(done.stdout.splitlines()) == ["web1 | hi", "web2 | hi"]
    assert sorted(done.stderr.splitlines()) == ["web1 | no", "web2 | no"]
    assert site.out("-H web1 run --rm -i bb:1 cat", input="a\nb\n") == "a\nb\n"
    ids = [
        line.split(" | ")[1] for line in site.out("-H web run -d --name made bb:1 sleep 1000").splitlines()
    ]
    assert [len(identity) for identity in ids] == [64, 64]
    assert site.hawse("-H web run -d --name made bb:1 true", code=125).stderr.count("already in use") == 2
    assert sorted(site.out("-H web start made app").splitlines()) == [
        *("web1 | app", "web1 | made", "web2 | app", "web2 | made"),
    ]
    assert "one host" in site.hawse("-H web run -it bb:1 sh", code=125).stderr
    assert "one host" in site.hawse("-H web attach made", code=2).stderr
    site.hawse("-H web rm -f made")
    missing = site.hawse("-H web1 run --pull never nosuch:1 true", code=125).stderr
    assert missing == "hawse: web1: No such image: nosuch:1\n"


def test_a_terminal_on_a_host(site: Site) -> None:
    """Its size from the first moment, detach keys, back by attach, Ctrl-C as a key."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (33, 77))
    command = "-H web1 run --name one -it bb:1 sh -c 'stty size; exec cat'"
    with site.start(command, stdin=theirs, stdout=theirs) as process:
        read_until(ours, b"33 77")
        os.write(ours, b"\x10\x11")
        assert process.wait(60) == 0
    with site.start("-H web1 attach one", stdin=theirs, stdout=theirs) as process:
        os.write(ours, b"typed\n")
        read_until(ours, b"typed\r\ntyped")  # its echo, and what cat makes of it
        os.write(ours, b"\x03")
        assert process.wait(60) == 130
    os.close(theirs)
    os.close(ours)
    site.hawse("-H web1 rm one")


def test_signals_go_to_the_host(site: Site) -> None:
    script = 'trap "echo got; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
    with site.start(f"-H web1 run --rm bb:1 sh -c '{script}'", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"got\n"
        assert process.wait(60) == 5


def read_until(descriptor: int, wanted: bytes) -> None:
    shown = b""
    while wanted not in shown:
        ready, _, _ = select.select([descriptor], [], [], 60)
        assert ready, shown
        shown += os.read(descriptor, 4096)


def test_one_terminal_for_one_host(site: Site) -> None:
    assert "one host" in site.hawse("-H web exec -it app sh", code=2).stderr


def test_backup_and_restore(site: Site, store: None) -> None:
    site.hawse("-H web exec store sh -c 'hostname > /data/name'")
    names = site.out("-H web1 exec store hostname")
    assert site.out("-H web volume backup data -o backups").count("2 files") == 2
    tarballs = sorted((site.directory / "backups").glob("*.tar.zst"))
    assert [path.name.split("-")[:2] for path in tarballs] == [["web1", "data"], ["web2", "data"]]
    site.hawse("-H web1 volume backup data -o one.tar.gz")
    one = site.directory / "one.tar.gz"
    for path in (one, one.with_name("one.tar.gz.manifest.json")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(one) as tar:
        assert sorted(tar.getnames()) == [".", "./name"]

    site.hawse("-H web1 exec store rm /data/name")
    assert "restored, 2 files; restarted store" in site.out("-H web1 volume restore data one.tar.gz")
    assert site.out("-H web1 exec store cat /data/name") == names

    one.write_bytes(one.read_bytes()[:-9])
    assert "damaged or incomplete" in site.hawse("-H web1 volume restore data one.tar.gz", code=2).stderr
    assert site.out("-H web1 exec store cat /data/name") == names
    assert not list(site.directory.glob(".one*"))


def test_a_backup_that_fails_leaves_no_file(site: Site) -> None:
    errors = site.hawse("-H web volume backup nodata -o none", code=1).stderr
    assert errors.count("no such volume") == 2
    assert list((site.directory / "none").iterdir()) == []


def test_volumes_and_images(site: Site, store: None) -> None:
    assert site.out("-H web volume ls --sizes").count(" data ") == 2
    assert site.out("-H web2 image ls").count("bb:1") == 1
    assert "bb:1" in site.out("image ls")


def test_doctor_and_version(site: Site) -> None:
    answers = json.loads(site.out("--json host doctor web"))
    assert all(answers[host]["ok"] for host in ("web1", "web2"))
    assert site.out("-H web1 version").startswith("web1: hawse-agent ")


def test_one_host_out_of_reach(site: Site) -> None:
    site.web2.block_network()
    try:
        done = site.hawse("--timeout 2 status", code=4)
        assert "2 hosts (1 without an answer): 1 running" in done.stdout
        assert "unreachable (tcp)" in done.stdout
        done = site.hawse("--timeout 2 -H web ps", code=4)
        assert "app" in done.stdout
        assert done.stderr.startswith("web2: ")
    finally:
        site.web2.unblock_network()


def read_all(descriptor: int) -> bytes:
    """What comes to a terminal until its other end is closed."""
    shown = b""
    try:
        while data := os.read(descriptor, 4096):
            shown += data
    except OSError:  # Linux's way to say that
        pass
    os.close(descriptor)
    return shown
