"""The pretended fleet, of three hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.fakefleet import FakeAgent, FakeReach, Scene

from hawse.inventory import load
from hawse.playbook import Run


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    (tmp_path / "hosts").write_text("[web]\nw1\nw2\nw3\n")
    inventory = load([tmp_path / "hosts"])
    agents = {host.name: FakeAgent(name=host.name) for host in inventory.hosts}
    run = Run(inventory=inventory, project=tmp_path)
    return Scene(directory=tmp_path, run=run, reach=FakeReach(agents=agents))
