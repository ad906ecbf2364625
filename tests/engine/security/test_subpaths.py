"""A part of a volume: whoever else has the volume cannot lead its mount out of it (CVE-2017-1002101)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.agent import BUSYBOX, AgentUnderTest


def mounted(path: str) -> tuple[str, ...]:
    return ("--mount", f"type=volume,src=vol,dst=/m,volume-subpath={path}")


@pytest.mark.parametrize("link", ["/", "../../../../../../../../..", "/proc/1/root"])
def test_a_link_of_a_volume_stays_in_it(agent: AgentUnderTest, tmp_path: Path, link: str) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    script = f"mkdir -p /v/real; touch /v/inside; ln -sfn {link} /v/sub"
    agent.docker("run", "--rm", "-v", "vol:/v", BUSYBOX, "sh", "-c", script)
    done = agent.docker("run", "--rm", *mounted("sub"), BUSYBOX, "ls", f"/m{marker}", "/m/inside", code=None)
    assert str(marker) not in done.stdout
    agent.docker("volume", "rm", "vol")


def test_a_link_that_changes_places_with_a_directory(agent: AgentUnderTest, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    flip = "mkdir -p /v/sub; ln -s / /v/out; until [ -e /v/stop ]; do mv -T /v/sub /v/x; mv -T /v/out /v/sub;"
    flip += " mv -T /v/sub /v/out; mv -T /v/x /v/sub; done"
    flipper = agent.client.containers.run(
        BUSYBOX, ["sh", "-c", flip], volumes=["vol:/v"], detach=True, init=True
    )
    try:
        for _ in range(8):
            done = agent.docker("run", "--rm", *mounted("sub"), BUSYBOX, "ls", f"/m{marker}", code=None)
            assert str(marker) not in done.stdout
    finally:
        flipper.exec_run(["touch", "/v/stop"])
        flipper.wait()
        flipper.remove(v=True)
    agent.docker("volume", "rm", "vol")


def test_a_part_of_a_volume(agent: AgentUnderTest) -> None:
    agent.docker("run", "--rm", "-v", "vol:/v", BUSYBOX, "sh", "-c", "mkdir -p /v/a/b; echo yes > /v/a/b/f")
    assert agent.docker("run", "--rm", *mounted("a/b"), BUSYBOX, "cat", "/m/f").stdout == "yes\n"
    agent.docker("create", "--name", "box", *mounted("a/b"), BUSYBOX, "true")
    assert b"yes" in agent.docker("cp", "box:/m/f", "-").stdout.encode()
    missing = agent.docker("run", "--rm", *mounted("nothing"), BUSYBOX, "true", code=125)
    assert "nothing" in missing.stderr and "No such file" in missing.stderr
    agent.docker("rm", "box")
    agent.docker("volume", "rm", "vol")
