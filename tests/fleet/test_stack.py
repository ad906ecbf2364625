"""`up`, `down`, kept plans and `report` on real hosts: an image sent, a stack changed, and taken down."""

from __future__ import annotations

import json
import stat
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host
from tests.support import busybox, isolation
from tests.support.project import Project
from tests.support.testhost import TestHost, TestNetwork

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

Outside = Callable[[TestHost], Host]

SITE = """\
    name: site
    services:
      web:
        image: bb:1
        command: ["httpd", "-f", "-p", "80", "-h", "/www"]
        ports: ["8080:80"]
        mem_limit: {{ memory | default("32m") }}
        volumes: ["www:/www"]
        configs: [{source: page, target: /www/index.html}]
        stop_signal: SIGKILL
    volumes: {www: {}}
    configs: {page: {content: "page of {{ inventory_hostname }}\\n"}}
    """


@pytest.fixture(scope="module")
def site(hawse: Project, bb: str) -> Project:
    """The stack has been up before: images and the name server that it left stay on the hosts."""
    hawse.write("templates/site.yaml.j2", SITE)
    hawse.write("site.yml", "- hosts: web\n  tasks:\n    - stack: {src: site.yaml.j2}\n")
    hawse.write("group.ini", "[web]\nweb1\nweb2\n")
    hawse.write("hawse.toml", 'inventory = ["hosts.ini", "group.ini"]\n')
    hawse.run(*UP)
    hawse.run(*DOWN)
    return hawse


@pytest.fixture
def project(site: Project) -> Iterator[Project]:
    yield site
    site.run(*DOWN)


UP = ("-H", "web", "up", "templates/site.yaml.j2")
DOWN = ("-H", "web", "down", "site", "--volumes")


def operations(project: Project, *words: str) -> dict[str, list[tuple[str, str]]]:
    plans = json.loads(project.run("--json", *words).stdout)["hosts"]
    return {host: [(op["action"], op["kind"]) for op in plan["operations"]] for host, plan in plans.items()}


def test_up_and_down(project: Project, hosts: TestNetwork, outside: Outside) -> None:
    planned = operations(project, *UP, "--check")
    assert set(planned) == {"web1", "web2"} and ("create", "container") in planned["web1"]
    project.run(*UP)
    web1, _, db1 = hosts.hosts
    page = outside(db1).check_output(f"curl -sS --max-time 5 http://{web1.address}:8080/")
    assert page == "page of web1"
    assert operations(project, *UP, "--check") == {"web1": [], "web2": []}

    project.run("-e", "memory=48m", "-l", "web1", *UP)
    assert operations(project, *UP, "--check") == {"web1": [("update", "container")], "web2": []}

    planned = operations(project, "-H", "web", "down", "site", "--check")
    assert ("remove", "container") in planned["web1"] and ("remove", "volume") not in planned["web1"]
    project.run("-H", "web", "down", "templates/site.yaml.j2")
    assert not outside(web1).socket("tcp://0.0.0.0:8080").is_listening
    assert project.run("-H", "web1", "volume", "ls").stdout.count("site_www") == 1
    project.run(*DOWN)
    assert "site_www" not in project.run("-H", "web1", "volume", "ls").stdout


def test_a_kept_plan_is_good_for_once(project: Project) -> None:
    project.run("plan", "site.yml", "-o", "kept")
    kept = project.directory / "kept"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    project.run("play", "--plan", "kept")
    assert operations(project, "plan", "site.yml") == {"web1": [], "web2": []}
    assert "changed since" in project.run("play", "--plan", "kept", code=1).stdout


def test_the_report_tells_of_runs_and_of_the_fleet(project: Project) -> None:
    project.run("play", "site.yml")
    fleet = json.loads(project.run("--json", "-l", "web", "report", "--sizes").stdout)
    assert fleet["last_run"]["command"] == "play site.yml"
    assert {host["outcome"] for host in fleet["last_run"]["hosts"]} == {"changed"}
    web1 = fleet["hosts"]["web1"]
    (container,) = web1["containers"]
    assert (container["status"], container["stack"], container["service"]) == ("running", "site", "web")
    assert container["limits"]["memory"] == 32 << 20
    assert [volume["size"] is not None for volume in web1["volumes"]] == [True]
    assert web1["disk_total"] and web1["agent_version"] and web1["states"] == {"running": 1}

    shown = project.run("report").stdout
    assert "last run: hawse play site.yml" in shown and "8080" in shown and "3 hosts: 2 running" in shown
    listed = project.run("report", "--runs").stdout.splitlines()
    run = next(line.split()[0] for line in listed if "play site.yml" in line)
    assert "create container site" in project.run("report", run).stdout


def test_what_init_makes_can_be_played(
    hawse: Project, hosts: TestNetwork, warm: None, tmp_path: Path
) -> None:
    """The first thing that a newcomer does, with an image that is here and the host's own address."""
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(busybox.make_layer(tmp_path / "layer"), ".")
    page = "/usr/share/nginx/html"
    run = ("-c", f"CMD httpd -f -p 80 -h {page}", "-c", "STOPSIGNAL SIGKILL")
    hawse.run("image", "import", str(tmp_path / "root.tar"), "httpd:1", *run)
    hawse.run("init", "shop")
    hawse.write("shop/hosts.ini", "[web]\n" + hosts.inventory().splitlines()[0] + "\n[web:vars]\nport=8086\n")
    chosen = ("--project", "shop", "-i", "shop/hosts.ini", "-e", "image=httpd:1")
    hawse.run(*chosen, "play", "shop/playbooks/site.yml", "--check")
    hawse.run(*chosen, "play", "shop/playbooks/site.yml")
    (web1, *_) = hosts.hosts
    with urllib.request.urlopen(f"http://{web1.address}:8086/", timeout=10) as answer:
        assert "Hello from web1" in answer.read().decode()
    assert "0 changed, 0 failed" in hawse.run(*chosen, "play", "shop/playbooks/site.yml").stdout
    hawse.run(*chosen, "down", "app", "--volumes")
    hawse.write("shop/gone.yml", "- hosts: web\n  tasks:\n    - image: {name: 'httpd:1', state: absent}\n")
    hawse.run(*chosen, "play", "shop/gone.yml")
    web1.shell("rm -r /srv/app")
