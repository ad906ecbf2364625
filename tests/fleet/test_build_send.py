"""Images that are built on one host and sent to others: by `build --send`, and by stacks with `build:`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support import busybox, isolation
from tests.support.project import Project
from tests.support.testhost import TestHost, TestNetwork

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
]

STACK = """\
name: shop
services:
  one:
    build:
      context: app
      args: {WORD: "{{ word | default('first') }}"}
      secrets: [token]
    command: [sleep, "1000"]
    stop_signal: SIGKILL
    network_mode: none
secrets: {token: {content: s3cret}}
"""
DOCKERFILE = """\
FROM bb:1
ARG WORD
COPY file /file
RUN --mount=type=secret,id=token echo "$WORD $(wc -c < /run/secrets/token)" > /word
"""


@pytest.fixture(scope="module")
def built(hawse: Project, bb: str) -> Project:
    """What a first build makes for good is there on the hosts, and the base image."""
    hawse.write("shop.yaml.j2", STACK)
    hawse.write("app/Dockerfile", DOCKERFILE)
    hawse.write("app/file", "of the context\n")
    hawse.run("-H", "all", "image", "send", bb)
    hawse.run("-H", "all", "build", "-q", "--secret", "id=token,src=hosts.ini", "app")
    hawse.run("-H", "all", "prune", "-f")
    return hawse


@pytest.fixture
def project(built: Project, hosts: TestNetwork) -> Iterator[Project]:
    built.write("app/Dockerfile", DOCKERFILE)
    for host in hosts.hosts:
        host.path("/var/lib/hawse/audit.log").write_text("")
    yield built
    built.run("-H", "all", "rmi", "-f", "shop-one", "sent:1")
    built.run("-H", "all", "prune", "-f")


def words(project: Project) -> dict[str, str]:
    done = project.run("-H", "web*", "exec", "shop-one-1", "cat", "/word")
    lines = (line.partition(" | ") for line in done.stdout.splitlines())
    return {host.strip(): word for host, _, word in lines}


def ids(project: Project, name: str) -> dict[str, set[str]]:
    images = json.loads(project.run("--json", "-H", "all", "images", name).stdout)
    return {host: {image["Id"] for image in found} for host, found in images.items()}


def builders(hosts: TestNetwork) -> list[str]:
    """Hosts that were asked for a build."""
    return [host.name for host in hosts.hosts if "/hawse/v1/build" in _audit(host)]


def _audit(host: TestHost) -> str:
    return host.path("/var/lib/hawse/audit.log").read_text()


def test_a_stack_is_built_once_and_sent(project: Project, hosts: TestNetwork) -> None:
    checked = project.run("up", "shop.yaml.j2", "web*", "--check").stdout
    assert "run build shop-one  (of app)" in checked and "pull image" not in checked
    assert builders(hosts) == []
    done = project.run("up", "shop.yaml.j2", "web*")
    assert "build shop-one" in done.stdout
    assert len(builders(hosts)) == 1 and words(project) == {"web1": "first 6", "web2": "first 6"}
    found = ids(project, "shop-one")
    [built] = set.union(*found.values())
    assert found == {"web1": {built}, "web2": {built}, "db1": set()}

    again = project.run("up", "shop.yaml.j2", "web*").stdout
    assert "2 hosts: 0 changed" in again

    project.write("app/Dockerfile", "FROM bb:1\nRUN echo on the way; exit 3\n")
    failed = project.run("up", "shop.yaml.j2", "web*", code=1).stdout
    assert "Dockerfile:2" in failed and "on the way" in failed
    assert words(project) == {"web1": "first 6", "web2": "first 6"}
    project.run("down", "shop", "web*")


def test_an_image_is_built_on_one_host_and_sent_to_others(project: Project) -> None:
    project.write("app/Dockerfile", "FROM bb:1\nCOPY file /file\n")
    done = project.run("-H", "db1", "build", "-t", "sent:1", "--send", "web*", "app")
    assert "Successfully tagged sent:1" in done.stdout
    assert "web1: sent:1 is sha256:" in done.stdout and "KiB sent" in done.stdout
    found = ids(project, "sent:1")
    assert len(set.union(*found.values())) == 1 and all(found.values())
