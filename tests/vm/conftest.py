"""One virtual machine for all tests of a file, with the agent that `hawse host bootstrap` brought."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator

import docker
import pytest
from tests.support import busybox, machineimage
from tests.support.project import Project
from tests.support.virtualmachine import VirtualMachine

PUBLISHED = 8080
PATIENCE = 600.0
"""Seconds: an emulated machine is 20 times slower, and it shares its two cores with us."""


@pytest.fixture(scope="module")
def vm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    if "vm" not in request.config.option.markexpr:
        pytest.skip("takes a quarter of an hour: make test-vm")
    reason = machineimage.missing() or ("" if busybox.available() else "needs busybox-static")
    if reason:
        pytest.skip(reason)
    made = VirtualMachine(machineimage.make(), tmp_path_factory.mktemp("vm"), forwarded=(PUBLISHED,))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def hawse(vm: VirtualMachine, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose only host is the machine, with its agent and an image, bb:1."""
    directory = tmp_path_factory.mktemp("hawse")
    project = Project(directory, vm.inventory("machine"), patience=PATIENCE)
    project.run("host", "bootstrap", "machine")
    busybox.make_layer(directory / "layer")
    with tarfile.open(directory / "root.tar", "w") as tar:
        tar.add(directory / "layer", ".")
    project.run("image", "import", str(directory / "root.tar"), "bb:1", "-c", 'CMD ["sh"]')
    project.run("-H", "machine", "image", "send", "bb:1")
    return project


@pytest.fixture
def engine(vm: VirtualMachine, hawse: Project) -> Iterator[Callable[[], docker.DockerClient]]:
    """Gives a client of the agent's socket, through SSH; a new one after each boot."""
    made: list[docker.DockerClient] = []

    def connect() -> docker.DockerClient:
        socket = vm.forward("/run/hawse/agent.sock")
        made.append(docker.DockerClient(base_url=f"unix://{socket}", timeout=int(PATIENCE)))
        return made[-1]

    yield connect
    for client in made:
        client.close()
