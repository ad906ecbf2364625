"""What goes wrong on the way and on the hosts: it is said with its place, nothing is lost, and the next run
repairs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support import busybox, isolation
from tests.support.project import Project
from tests.support.testhost import Python, TestHost, TestNetwork

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

TASKS = """\
- hosts: web*
  gather_facts: false
  tasks:
    - {name: first, file: {path: /srv/a, state: directory}}
    - {name: second, file: {path: /srv/b, state: directory}}
"""
HALFWAY = """\
- hosts: web1
  gather_facts: false
  tasks:
    - {name: first, file: {path: /srv/a, state: directory}}
    - {name: slow, shell: "while ! [ -e /srv/go ]; do sleep 0.05; done", changed_when: false}
    - {name: second, file: {path: /srv/b, state: directory}}
"""

STACK = """\
name: stack
services:
  one:
    image: {image}
    command: [sleep, "1000"]  # as PID 1 it ignores SIGTERM
    stop_grace_period: 1s
    network_mode: none
    volumes: [data:/data]
volumes: {{data: {{}}}}
"""
PYTHONS: dict[Python, str] = {
    "absent": "there is no Python",
    "old": "is Python 3.9",
    "minimal": "without json",
}


@pytest.fixture
def project(hawse: Project, hosts: TestNetwork, bb: str) -> Iterator[Project]:
    yield hawse
    for host in hosts.hosts:
        host.shell("rm -rf /srv/*")


@pytest.fixture
def web1(hosts: TestNetwork) -> TestHost:
    return hosts.hosts[0]


@pytest.fixture
def web2(hosts: TestNetwork) -> TestHost:
    return hosts.hosts[1]


def kill_daemon(host: TestHost) -> None:
    """SIGKILL, and the next connection starts another."""
    (pid,) = host.pids("hawse-agent: daemon")
    host.kill(pid)
    host.wait_for(lambda: not host.pids("hawse-agent: daemon"), "the daemon to end")


def srv(host: TestHost) -> list[str]:
    return sorted(path.name for path in host.path("/srv").iterdir())


def said(done: subprocess.CompletedProcess[str], *words: str) -> None:
    print(done.stdout, done.stderr, sep="")
    for word in words:
        assert word in done.stdout + done.stderr, done.stdout + done.stderr


# -- out of reach ----------------------------------------------------------------------------------


def test_unreachable(project: Project, web1: TestHost, web2: TestHost) -> None:
    project.write("play.yml", TASKS)
    web2.block_network()
    try:
        done = project.run("--timeout", "1", "play", "play.yml", code=4)
    finally:
        web2.unblock_network()
    said(done, f"web2: cannot connect to {web2.address} port 22", "1 unreachable")
    assert srv(web1) == ["a", "b"] and srv(web2) == []
    said(project.run("play", "play.yml"), "2 changed, 0 failed")
    assert srv(web2) == ["a", "b"]


def test_wrong_host_key(project: Project, web1: TestHost, web2: TestHost) -> None:
    project.write("play.yml", TASKS)
    pinned = project.directory.joinpath("hosts.ini").read_text()
    project.write("other.ini", pinned.replace(web2.host_keys()[0], web1.host_keys()[0]))
    said(project.run("-i", "other.ini", "play", "play.yml", code=4), "web2", "host key", "pins")
    assert srv(web1) == ["a", "b"] and srv(web2) == []
    said(project.run("play", "play.yml"), "2 changed, 0 failed")


@pytest.fixture(scope="module")
def users(hosts: TestNetwork, hawse: Project) -> None:
    web1 = hosts.hosts[0]
    web1.add_user("deploy", sudo="nopasswd", bashrc="echo NOISE; echo noise >&2")
    web1.add_user("pat", password="hunter2", sudo="password")
    web1.add_user("guest", password="guest")
    hawse.write("play.yml", TASKS)


@pytest.mark.parametrize(
    ("user", "password", "words"),
    [
        ("pat", "", ("sudo", "a password is required")),
        ("pat", "wrong", ("sudo", "the password is wrong")),
        ("guest", "", ("sudo", "a password is required")),
        ("guest", "guest", ("sudo", "not in the sudoers")),
        ("nobody9", "", ("cannot log in as nobody9", "id_ed25519: not accepted")),
    ],
)
def test_sudo_refuses(
    project: Project, users: None, web1: TestHost, user: str, password: str, words: tuple[str, ...]
) -> None:
    project.write("play.yml", TASKS)
    login = ("-l", "web1", "-e", f"ansible_user={user}", "-e", f"ansible_become_password={password}")
    done = project.run(*login, "play", "play.yml", code=4)
    said(done, "web1", *words)
    assert srv(web1) == []


@pytest.mark.parametrize(("user", "password"), [("deploy", ""), ("pat", "hunter2")])
def test_sudo_allows(project: Project, users: None, web1: TestHost, user: str, password: str) -> None:
    project.write("play.yml", TASKS.replace("tasks:", "become: true\n  tasks:"))
    login = ("-l", "web1", "-e", f"ansible_user={user}", "-e", f"ansible_become_password={password}")
    said(project.run(*login, "play", "play.yml"), "2 changed, 0 failed")
    assert srv(web1) == ["a", "b"]


@pytest.mark.parametrize("installed", [True, False], ids=["installed", "bare"])
def test_no_fitting_python(project: Project, web1: TestHost, installed: bool) -> None:
    project.write("play.yml", TASKS.replace("web*", "web1"))
    if installed:
        kill_daemon(web1)
    else:
        project.run("host", "remove", "web1")
    for how, word in PYTHONS.items():
        web1.hide_python(how)
        try:
            done = project.run("play", "play.yml", code=4)
        finally:
            web1.restore_python()
        said(done, "web1: ", "Python 3.11 or newer with its standard library", word)
        assert srv(web1) == []
    said(project.run("play", "play.yml"), "2 changed, 0 failed")


# -- interrupted -----------------------------------------------------------------------------------


def play(project: Project, *words: str) -> subprocess.Popen[str]:
    """A play that runs while the test does something."""
    return subprocess.Popen(
        [sys.executable, "-m", "hawse", *words],
        cwd=project.directory,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int) -> subprocess.CompletedProcess[str]:
    out, errors = process.communicate(timeout=40)
    assert "Traceback" not in errors
    assert process.returncode == code, out + errors
    return subprocess.CompletedProcess(process.args, code, out, errors)


@contextmanager
def halfway(project: Project, host: TestHost, playbook: str = HALFWAY) -> Iterator[subprocess.Popen[str]]:
    """A play whose first task is done, whose second runs and whose third is still to come."""
    project.write("play.yml", playbook)
    process = play(project, "play", "play.yml")
    try:
        host.wait_for(lambda: srv(host) == ["a"] and host.pids("/srv/go"), "the second task")
        yield process
    finally:
        process.kill()
        process.communicate()
        host.path("/srv/go").touch()
        host.wait_for(lambda: not host.pids("/srv/go"), "the second task to end")


def goes_on(project: Project, host: TestHost) -> None:
    """What was begun ends, nothing further began; and the next run does what is left, and only that."""
    assert srv(host) == ["a", "go"]
    said(project.run("play", "play.yml"), "1 changed, 0 failed")
    assert srv(host) == ["a", "b", "go"]


def test_connection_ended(project: Project, web1: TestHost) -> None:
    with halfway(project, web1) as process:
        web1.shell("pkill -f '[s]shd: root@notty'")
        said(ended(process, 4), "web1: the connection was lost at: run shell slow", "run again to go on")
    goes_on(project, web1)


def test_connection_cut(project: Project, web1: TestHost) -> None:
    with halfway(project, web1) as process:
        web1.block_network()
        try:
            said(ended(process, 4), "web1: the connection was lost at: run shell slow", "15 s")
        finally:
            web1.unblock_network()
        web1.wait_for(lambda: not web1.pids("hawse-agent dial"), "the host to notice")
    goes_on(project, web1)


def test_daemon_killed(project: Project, web1: TestHost) -> None:
    with halfway(project, web1) as process:
        kill_daemon(web1)
        said(ended(process, 4), "web1: the connection was lost at: run shell slow")
    goes_on(project, web1)


@pytest.fixture
def stack(project: Project, web1: TestHost, bb: str) -> Iterator[str]:
    """A stack that is up; its container leaves only when its grace of a second is over."""
    stack = STACK.format(image=bb)
    project.write("stack.yaml", stack)
    project.run("up", "stack.yaml", "web1")
    web1.shell("echo precious > /var/lib/hawse/volumes/stack_data/_data/file")
    yield stack
    project.run("down", "stack", "web1", "--volumes")


@pytest.mark.parametrize("lost", ["daemon", "connection"])
def test_lost_while_a_container_is_replaced(
    project: Project, web1: TestHost, warm: None, stack: str, lost: str
) -> None:
    (before,) = web1.pids("sleep 1000")
    project.write("stack.yaml", stack.replace("1000", "2000"))
    process = play(project, "up", "stack.yaml", "web1")
    web1.wait_for(lambda: containers(web1) == ["stack-one-1", "stack-one-1.aside"], "the replacement")
    if lost == "daemon":
        kill_daemon(web1)
    else:
        web1.shell("pkill -f '[s]shd: root@notty'")
    said(ended(process, 4), "web1: the connection was lost at: recreate container stack-one-1")
    project.run("up", "stack.yaml", "web1")
    assert containers(web1) == ["stack-one-1"]
    assert len(web1.pids("sleep 2000")) == 1 and before not in web1.pids("sleep")
    assert web1.path("/var/lib/hawse/volumes/stack_data/_data/file").read_text() == "precious\n"
    said(project.run("up", "stack.yaml", "web1"), "0 changed")


def containers(host: TestHost) -> list[str]:
    """Names, of which the end is cut that makes one unique."""
    answer = host.shell("curl -sS --unix-socket /run/hawse/agent.sock 'http://x/v1.44/containers/json?all=1'")
    names = [container["Names"][0].removeprefix("/") for container in json.loads(answer)]
    return sorted(re.sub(r"\.[0-9a-f]{6}$", ".aside", name) for name in names)


def test_ctrl_c(project: Project, web1: TestHost, web2: TestHost) -> None:
    web2.path("/srv/go").touch()  # here nothing is slow
    later = HALFWAY.replace("web1", "db1")
    with halfway(project, web1, HALFWAY.replace("web1", "web*") + later) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("web2  changed  2 changed"):
            assert process.poll() is None, "the other host was never done"
        process.send_signal(signal.SIGINT)
        said(
            ended(process, 130),
            "web1: interrupted at: run shell slow",
            "stopped: interrupted; nothing was done on db1",
        )
        assert srv(web2) == ["a", "b", "go"]
    project.write("play.yml", HALFWAY)
    goes_on(project, web1)
