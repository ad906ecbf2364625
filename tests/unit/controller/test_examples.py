"""The examples of the repository are right: inventory, playbooks, stacks, for every host."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from hawse import playbook, stack
from hawse.cli.context import Context
from hawse.cli.verb import Globals
from hawse.runner.fleet import validate
from hawse_agent.spec.host import ImageSource, StackSpec

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGE = ImageSource(reference="docker.io/library/guestbook:1", id="sha256:" + "0" * 64)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """As `make demo` runs it: the addresses come from a second inventory."""
    monkeypatch.chdir(REPOSITORY)
    hosts = [
        f"{name} ansible_host=192.0.2.{number}\n" for number, name in enumerate(("web1", "web2", "db1"), 1)
    ]
    (tmp_path / "addresses.ini").write_text("".join(hosts))
    return Context(Globals(inventory=("inventory/demo", str(tmp_path / "addresses.ini"))))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "playbooks").glob("*.yml")), ids=lambda path: path.name)
def test_playbooks_are_valid_for_every_host(context: Context, path: Path) -> None:
    plays = playbook.load(path)
    run = playbook.Run(inventory=context.inventory, project=Path(), images=lambda reference: IMAGE)

    validate(plays, run, context.connection)


def guestbook(context: Context, host: str) -> StackSpec:
    return stack.load(
        Path("templates/guestbook.yaml.j2"),
        variables=context.scope(context.inventory.host(host)),
        environment={},
        images=lambda reference: IMAGE,
        host_matches=lambda pattern: context.inventory.matches(pattern, host),
    )


@pytest.mark.parametrize(
    ("host", "services"), [("web1", {"app", "nginx"}), ("web2", {"app", "nginx"}), ("db1", {"redis"})]
)
def test_each_host_runs_its_own_services(context: Context, host: str, services: set[str]) -> None:
    spec = guestbook(context, host)

    assert {container.name for container in spec.containers} == {f"guestbook-{name}-1" for name in services}


def test_the_configuration_of_nginx_differs(context: Context) -> None:
    web1, web2 = (nginx_configuration(guestbook(context, host)) for host in ("web1", "web2"))

    assert "X-Served-By web1" in web1
    assert "X-Served-By web2" in web2


def nginx_configuration(spec: StackSpec) -> str:
    files = [file for container in spec.containers for file in container.files]
    (found,) = (file for file in files if file.target == "/etc/nginx/nginx.conf")
    return base64.b64decode(found.content).decode()
