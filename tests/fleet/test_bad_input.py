"""Whatever a person writes wrongly is said with its place, and before any host is touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import busybox, isolation
from tests.support.project import Project
from tests.support.testhost import TestHost, TestNetwork

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

PLAY = "- hosts: web1\n  tasks:\n    - file: {path: /srv/bad, state: directory}\n"
STACK = PLAY + "    - stack: stack.yaml.j2\n"
SERVICE = "services:\n  one:\n    image: bb:1\n    command: [sleep, '1000']\n    stop_signal: SIGKILL\n"


@pytest.fixture
def project(hawse: Project, hosts: TestNetwork, bb: str) -> Iterator[Project]:
    """Every test ends as it began: with nothing made on any host."""
    yield hawse
    for host in hosts.hosts:
        assert not host.path("/srv/bad").exists()


@pytest.fixture
def web1(hosts: TestNetwork) -> TestHost:
    return hosts.hosts[0]


def said(done: subprocess.CompletedProcess[str], *words: str) -> None:
    text = done.stdout + done.stderr
    print(text)
    assert [word for word in words if word not in text] == [], text


CASES = {
    "undefined variable": (
        {"play.yml": PLAY + "    - copy: {dest: /srv/bad/x, content: '{{ no_such }}'}\n"},
        ("play.yml:4", "'no_such' is undefined"),
    ),
    "undefined variable in a template": (
        {"play.yml": STACK, "templates/stack.yaml.j2": SERVICE + "    user: {{ no_such }}\n"},
        ("templates/stack.yaml.j2:6", "'no_such' is undefined"),
    ),
    "bad YAML": ({"play.yml": PLAY + "    - copy: {dest: [\n"}, ("play.yml:5",)),
    "bad YAML that a template makes": (
        {"play.yml": STACK, "templates/stack.yaml.j2": SERVICE + "    user: [root\n"},
        ("templates/stack.yaml.j2:",),
    ),
    "unknown key of a play": (
        {"play.yml": PLAY + "  taks: []\n"},
        ("play.yml:4", "taks", "tasks"),
    ),
    "unknown argument of a module": (
        {"play.yml": PLAY + "    - copy: {dst: /srv/bad/x, content: x}\n"},
        ("play.yml:4", "dst", "dest"),
    ),
    "unknown module": ({"play.yml": PLAY + "    - coppy: {}\n"}, ("play.yml:4", "coppy")),
    "unknown key of a stack": (
        {"play.yml": STACK, "templates/stack.yaml.j2": SERVICE + "    imgae: bb:1\n"},
        ("templates/stack.yaml.j2:6", "services.one", "imgae"),
    ),
    "wrong type in a playbook": (
        {"play.yml": PLAY + "    - copy: {dest: /srv/bad/x, content: x, backup: perhaps}\n"},
        ("play.yml:4", "backup"),
    ),
    "wrong type in a stack": (
        {"play.yml": STACK, "templates/stack.yaml.j2": SERVICE + "    mem_limit: lots\n"},
        ("templates/stack.yaml.j2:6", "mem_limit", "lots"),
    ),
    "template that renders to nothing": (
        {"play.yml": STACK, "templates/stack.yaml.j2": "{% if false %}\n" + SERVICE + "{% endif %}\n"},
        ("templates/stack.yaml.j2", "renders to nothing"),
    ),
    "template that is not there": (
        {"play.yml": STACK.replace("stack.y", "none.y")},
        ("play.yml:4", "none.yaml.j2"),
    ),
    "two services on one host port": (
        {
            "play.yml": STACK,
            "templates/stack.yaml.j2": SERVICE
            + "    ports: ['8080:80']\n  two:\n    image: bb:1\n    ports: ['8080:81']\n",
        },
        ("templates/stack.yaml.j2", "8080", "one", "two"),
    ),
    "no such host": ({"play.yml": PLAY.replace("web1", "web9")}, ("web9",)),
    "no such playbook": ({}, ("play.yml", "No such file")),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(project: Project, case: str) -> None:
    files, words = CASES[case]
    for name in ("play.yml", "templates/stack.yaml.j2"):
        (project.directory / name).unlink(missing_ok=True)
    for name, text in files.items():
        project.write(name, text)
    done = project.run("play", "play.yml", code=2)
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


# -- what only a host can say ----------------------------------------------------------------------


@pytest.fixture
def stacks(project: Project, web1: TestHost, warm: None) -> Iterator[None]:
    """Stacks may be brought up; they are taken down."""
    yield
    project.run("down", "stack", "web1")
    web1.shell("rm -rf /srv/*")


def test_an_image_that_is_nowhere(project: Project, web1: TestHost, stacks: None) -> None:
    project.write("templates/stack.yaml.j2", SERVICE.replace("bb:1", "10.213.0.1:5/no/such:1"))
    project.write("play.yml", STACK)
    done = project.run("play", "play.yml", code=1)
    said(done, "web1", "10.213.0.1:5/no/such:1", "hawse image import")
    project.write("templates/stack.yaml.j2", SERVICE)
    said(project.run("play", "play.yml"), "web1  changed  create container stack-one-1")


def test_a_bind_source_that_is_nowhere(project: Project, web1: TestHost, stacks: None) -> None:
    """Compose's short form makes the directory, and the long form does not unless it says so."""
    long = "    volumes: [{type: bind, source: /srv/none, target: /data}]\n"
    project.write("templates/stack.yaml.j2", SERVICE + long)
    done = project.run("up", "templates/stack.yaml.j2", "web1", code=2)
    said(done, "web1: create container stack-one-1: ", "bind source path does not exist: /srv/none")
    assert not web1.path("/srv/none").exists()
    project.write("templates/stack.yaml.j2", SERVICE + "    volumes: [/srv/none:/data]\n")
    said(project.run("up", "templates/stack.yaml.j2", "web1"), "stack-one-1")
    assert web1.path("/srv/none").is_dir()


def test_docker_api_binds(web1: TestHost, stacks: None) -> None:
    def create(host_config: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps({"Image": "bb:1", "HostConfig": host_config})
        path = "http://x/v1.44/containers/create?name=stack-api"
        curl = ["/usr/bin/curl", "-sS", "--unix-socket", "/run/hawse/agent.sock", "-d", data, path]
        return dict(json.loads(web1.run([*curl, "-H", "Content-Type: application/json"]).stdout))

    answer = create({"Mounts": [{"Type": "bind", "Source": "/srv/none", "Target": "/data"}]})
    assert "bind source path does not exist: /srv/none" in answer["message"]
    assert not web1.path("/srv/none").exists()
    assert "Id" in create({"Binds": ["/srv/none:/data"]})
    web1.shell("curl -sS --unix-socket /run/hawse/agent.sock -X DELETE http://x/v1.44/containers/stack-api")


def test_a_host_port_that_is_taken(project: Project, web1: TestHost, stacks: None) -> None:
    project.write("templates/stack.yaml.j2", SERVICE + "    ports: ['8080:80']\n")
    project.run("up", "templates/stack.yaml.j2", "web1")
    done = project.run("up", "templates/stack.yaml.j2", "web1", "--name", "other", code=1)
    said(done, "web1", "8080", "stack-one-1")
    project.run("down", "stack", "web1")
    said(project.run("up", "templates/stack.yaml.j2", "web1", "--name", "other"), "other-one-1")
    project.run("down", "other", "web1")
