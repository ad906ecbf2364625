"""Facts of the machine that runs the tests: compared with what Python says of it."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from hawse_agent.paths import paths_for
from hawse_agent.provision import facts


def test_facts_have_ansibles_names_and_are_json(tmp_path: Path) -> None:
    found = facts.collect(paths_for(tmp_path))
    assert json.loads(json.dumps(found)) == found
    assert found["ansible_kernel"] == platform.release()
    assert found["ansible_architecture"] == platform.machine()
    assert found["ansible_hostname"] == platform.node().split(".")[0]
    assert found["ansible_processor_vcpus"] == os.cpu_count()
    assert found["ansible_memtotal_mb"] > 0
    assert "lo" in found["ansible_interfaces"]
    assert found["hawse_instance"] == paths_for(tmp_path).instance
    assert found["ansible_date_time"]["year"].isdigit()


def test_loopback_has_its_address(tmp_path: Path) -> None:
    ipv4 = facts.collect(paths_for(tmp_path))["ansible_lo"]["ipv4"]
    assert (ipv4["address"], ipv4["netmask"], ipv4["prefix"]) == ("127.0.0.1", "255.0.0.0", "8")
