"""Whatever a person writes wrongly is said with its place, and before any host is touched."""

from __future__ import annotations

from collections.abc import Iterator

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
SERVICE = "services:\n  one:\n    image: bb:1\n    command: [sleep, '1000']\n"


@pytest.fixture
def project(hawse: Project, hosts: TestNetwork, bb: str) -> Iterator[Project]:
    """Every test ends as it began: with nothing made on any host."""
    yield hawse
    for host in hosts.hosts:
        assert not host.path("/srv/bad").exists()


@pytest.fixture
def web1(hosts: TestNetwork) -> TestHost:
    return hosts.hosts[0]


CASES = {
    "undefined variable": (
        {"play.yml": PLAY + "    - copy: {dest: /srv/bad/x, content: '{{ no_such }}'}\n"},
        ("play.yml:4", "'no_such' is undefined"),
    ),
    "undefined variable in a template": (
        {"play.yml": STACK, "templates/stack.yaml.j2": SERVICE + "    user: {{ no_such }}\n"},
        ("templates/stack.yaml.j2:5", "'no_such' is undefined"),
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
        ("templates/stack.yaml.j2:5", "services.one", "imgae"),
    ),
    "wrong type in a playbook": (
        {"play.yml": PLAY + "    - copy: {dest: /srv/bad/x, content: x, backup: perhaps}\n"},
        ("play.yml:4", "backup"),
    ),
    "wrong type in a stack": (
        {"play.yml": STACK, "templates/stack.yaml.j2": SERVICE + "    mem_limit: lots\n"},
        ("templates/stack.yaml.j2:5", "mem_limit", "lots"),
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
