"""The agent where it is at home: systemd is PID 1, cgroups are v2, the kernel is Debian's own."""

from __future__ import annotations

import pytest
from tests.support.project import Project
from tests.support.virtualmachine import VirtualMachine

pytestmark = pytest.mark.vm


def test_the_agent_is_a_service(vm: VirtualMachine, hawse: Project) -> None:
    shown = vm.output("systemctl show hawse-agent -p ActiveState,Type,UnitFileState,Delegate --value")
    assert sorted(shown.split()) == ["active", "enabled", "notify", "yes"]
    hawse.run("host", "doctor", "machine")
