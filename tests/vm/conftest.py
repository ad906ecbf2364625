"""One virtual machine for all tests of a file, with the agent that `hawse host bootstrap` brought."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import machineimage
from tests.support.project import Project
from tests.support.virtualmachine import VirtualMachine

PUBLISHED = 8080


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    reason = machineimage.missing()
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
    project = Project(tmp_path_factory.mktemp("hawse"), vm.inventory("machine"))
    project.run("host", "bootstrap", "machine", timeout=300)
    return project
