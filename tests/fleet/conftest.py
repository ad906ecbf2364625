"""Every fleet test is checked for leaks, on the hosts too; hosts, the command, and looks from outside."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host
from tests.support import busybox, isolation
from tests.support.project import Project
from tests.support.testhost import TestHost, TestNetwork


@pytest.fixture(scope="module")
def hosts() -> Iterator[TestNetwork]:
    """web1, web2 and db1, without an agent, for all tests of a file."""
    if isolation.current() is None:
        pytest.skip("needs a session (make test)")
    with TestNetwork() as network:
        for name in ("web1", "web2", "db1"):
            network.host(name)
        network.start()
        yield network


@pytest.fixture(scope="module")
def hawse(hosts: TestNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose inventory has them all, with their agents installed."""
    project = Project(tmp_path_factory.mktemp("hawse"), hosts.inventory())
    project.run("host", "bootstrap", "all")
    # What an agent makes once, at its first change, is there before the first test.
    project.write("first.yml", "- hosts: all\n  tasks:\n    - command: 'true'\n")
    project.run("play", "first.yml")
    yield project
    project.run("host", "remove", "all", "--volumes")


@pytest.fixture(scope="module")
def bb(hawse: Project, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image here, busybox; hosts get it when a play needs it."""
    directory = tmp_path_factory.mktemp("bb")
    busybox.make_layer(directory / "layer")
    with tarfile.open(directory / "root.tar", "w") as tar:
        tar.add(directory / "layer", ".")
    hawse.run("image", "import", str(directory / "root.tar"), "bb:1", "-c", 'CMD ["sh"]')
    return "bb:1"


@pytest.fixture(scope="module")
def warm(hawse: Project, bb: str) -> None:
    """What a first stack makes for good is there on web1: image, firewall, settings of the kernel."""
    service = f"{{image: {bb}, command: [sleep, '1000'], stop_signal: SIGKILL, ports: ['8080:80']}}"
    hawse.write("warm.yaml", f"services: {{warm: {service}}}\n")
    hawse.run("up", "warm.yaml", "web1", "--name", "warm")
    hawse.run("down", "warm", "web1")


@pytest.fixture(scope="module")
def outside(hosts: TestNetwork, tmp_path_factory: pytest.TempPathFactory) -> Callable[[TestHost], Host]:
    """Gives testinfra's look at a host, by OpenSSH and not by our own code."""
    config: Path = tmp_path_factory.mktemp("ssh") / "config"
    config.write_text(
        f"Host *\n  User root\n  IdentityFile {hosts.client_key}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {hosts.known_hosts}\n"
    )
    return lambda host: testinfra.get_host(f"ssh://{host.address}", ssh_config=str(config))


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(no_leaks: None) -> None:
    """See `no_leaks`."""
