"""A build that dies or fails at any of its steps leaves nothing, and the next one is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import isolation
from tests.support.agent import AgentUnderTest
from tests.support.builds import FROM, Project
from tests.support.failpoints import Failpoints

from hawse_agent import failpoints as registry

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]

STEPS = tuple(name for name in registry.names() if name.startswith("build: "))
FILE = FROM + "COPY f /f\nRUN --mount=type=cache,target=/c echo x > /x\n"


@pytest.fixture
def project(agent: AgentUnderTest, failpoints: Failpoints, tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "context"
    directory.mkdir()
    project = Project(agent, directory)
    project.write({"f": "content", "Dockerfile": FILE})
    yield project
    failpoints.clear()
    project.clear()


@pytest.mark.parametrize("what", ["die", pytest.param("ENOSPC", marks=pytest.mark.soak)])
@pytest.mark.parametrize("step", STEPS)
def test_what_was_begun_is_swept(
    project: Project, failpoints: Failpoints, agent: AgentUnderTest, step: str, what: str
) -> None:
    lib = agent.root / "lib"
    before = set(os.listdir(lib / "layers"))
    failpoints.order(step, what)
    project.build(None, "-t", "t", code=1)
    assert not failpoints.is_ordered(step)
    if what == "die":
        assert agent.ended(30)
        agent.start()
    project.nothing_is_left()
    kept = [one for one in agent.client.df()["BuildCache"] if one["Type"] == "regular"]
    assert len(set(os.listdir(lib / "layers")) - before) == len(kept)
    project.build(None, "-t", "t")
    assert project.run("t", "cat", "/f", "/x") == "contentx\n"
