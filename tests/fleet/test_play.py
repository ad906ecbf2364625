"""Playbooks on real hosts, asserted from outside by testinfra: what is changed, and that nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from testinfra.host import Host
from tests.support import isolation
from tests.support.project import Project
from tests.support.testhost import TestHost, TestNetwork

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")

Outside = Callable[[TestHost], Host]

PLAYBOOK = """\
    - hosts: all
      vars:
        greeting: hello
      tasks:
        - name: directory
          file: {path: /srv/app, state: directory, mode: "0750"}
        - name: settings
          copy:
            dest: /srv/app/settings
            content: "{{ greeting }} from {{ inventory_hostname }}\\n"
            mode: "0640"
          notify: reload
        - name: kernel
          command: uname -r
          register: kernel
          changed_when: false
        - name: release
          copy: {dest: /srv/app/release, content: "{{ kernel.stdout }}"}
        - name: link
          file: {src: /srv/app/settings, dest: /srv/app/current, state: link}
      handlers:
        - name: reload
          shell: date +%s%N >> /srv/app/reloads
    """


@pytest.fixture
def project(hawse: Project, hosts: TestNetwork) -> Iterator[Project]:
    hawse.write("play.yml", PLAYBOOK)
    yield hawse
    for host in hosts.hosts:
        host.shell("rm -rf /srv/app")


def changed(project: Project, *words: str) -> int:
    """How many changes a play says it has made, on all hosts."""
    done = project.run(*words, code=None)
    assert done.returncode in (0, 2), done.stdout + done.stderr
    summary = done.stdout.strip().splitlines()[-1]
    return int(summary.split(" changed")[0].split()[-1])


def test_a_play_does_it_once(project: Project, hosts: TestNetwork, outside: Outside) -> None:
    assert changed(project, "play", "play.yml") == 15
    for host in hosts.hosts:
        look = outside(host)
        settings = look.file("/srv/app/settings")
        assert settings.content_string == f"hello from {host.name}\n"
        assert (settings.mode, settings.user) == (0o640, "root")
        assert look.file("/srv/app").mode == 0o750
        assert look.file("/srv/app/current").linked_to == "/srv/app/settings"
        assert look.file("/srv/app/release").content_string == look.check_output("uname -r")
        assert len(look.file("/srv/app/reloads").content_string.splitlines()) == 1
    assert changed(project, "play", "play.yml") == 0
    assert all(len(host.path("/srv/app/reloads").read_text().split()) == 1 for host in hosts.hosts)


def test_check_says_and_does_not(project: Project, hosts: TestNetwork) -> None:
    out = project.run("play", "play.yml", "--check", code=None).stdout
    assert "/srv/app" in out or "directory" in out
    assert not any(host.path("/srv/app").exists() for host in hosts.hosts)


def test_what_drifted_is_named_and_put_back(project: Project, hosts: TestNetwork, outside: Outside) -> None:
    project.run("play", "play.yml")
    web2 = hosts.hosts[1]
    web2.shell("chmod 0777 /srv/app; echo else > /srv/app/settings")
    out = project.run("play", "play.yml", "--diff").stdout
    assert "0777" in out and "-else" in out and "+hello from web2" in out
    assert "web1  changed  run copy" not in out and "web1  changed  run file" not in out
    assert outside(web2).file("/srv/app").mode == 0o750


def test_a_limit_leaves_the_others_alone(project: Project, hosts: TestNetwork) -> None:
    project.run("-l", "web*", "play", "play.yml")
    assert [host.path("/srv/app").exists() for host in hosts.hosts] == [True, True, False]


def test_a_kept_plan_is_what_is_done_or_nothing_is(project: Project, hosts: TestNetwork) -> None:
    project.write(
        "simple.yml",
        """\
        - hosts: web*
          tasks:
            - file: {path: /srv/app, state: directory}
            - copy: {dest: /srv/app/settings, content: planned}
        """,
    )
    project.run("plan", "simple.yml", "-o", "kept")
    project.write("simple.yml", "- hosts: web*\n  tasks: []\n")  # of no consequence any more
    web1, web2, _ = hosts.hosts
    web1.shell("mkdir -m 0711 /srv/app")
    done = project.run("play", "--plan", "kept", code=None)
    assert done.returncode != 0 and "changed since" in done.stdout + done.stderr
    assert not web1.path("/srv/app/settings").exists()
    assert web2.path("/srv/app/settings").read_text() == "planned"


NO_LOG = """\
    - hosts: all
      tasks:
        - name: make a password
          command: echo hunter2-{{ inventory_hostname }}
          register: made
          no_log: true
        - name: directory
          file: {path: /srv/app, state: directory}
        - name: keep it
          copy: {dest: /srv/app/password, content: "{{ made.stdout }}", mode: "0600"}
    """


def test_what_no_log_says_can_be_used_and_is_shown_nowhere(project: Project, hosts: TestNetwork) -> None:
    project.write("secret.yml", NO_LOG)
    done = project.run("play", "secret.yml", "-v")
    assert "hunter2" not in done.stdout + done.stderr
    kept = [path for path in project.directory.rglob("history.db*") if path.is_file()]
    assert kept
    assert all(b"hunter2" not in path.read_bytes() for path in kept)
    for host in hosts.hosts:
        assert host.path("/srv/app/password").read_text() == f"hunter2-{host.name}"
        journal = host.shell(
            "curl -sS --fail --unix-socket /run/hawse/agent.sock http://agent/hawse/v1/journal"
        )
        assert "keep it" in journal
        assert "hunter2" not in journal
