"""Builds on a host whose owner decides: ids of their own for containers, a limit of the cache; and base
images that come from a registry."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import agent as agents
from tests.support import busybox, isolation
from tests.support.agent import AgentUnderTest
from tests.support.builds import FROM, Project

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]


@pytest.fixture(scope="module")
def strict() -> Iterator[AgentUnderTest]:
    session = isolation.current()
    assert session is not None
    root = agents.new_root(session.directory)
    (root / "etc").mkdir(parents=True)
    (root / "etc/agent.toml").write_text('[userns]\ndefault = "auto"\n[builds]\ncache_bytes = 60000\n')
    with AgentUnderTest(root) as agent:
        agent.load_busybox()
        yield agent


@pytest.fixture
def project(strict: AgentUnderTest, tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "context"
    directory.mkdir()
    tmp_path.chmod(0o755)
    project = Project(strict, directory)
    yield project
    project.clear()


def test_steps_count_ids_of_their_own_and_owners_are_what_they_see(project: Project) -> None:
    project.write({"f": "context"})
    listing = "ls /of | grep -x passwd"
    said = project.build(
        FROM + "RUN cat /proc/self/uid_map; echo > /mine; chown bob /mine\n"
        "COPY --chown=bob f /f\n"
        "RUN --mount=type=cache,target=/c,uid=1000 stat -c 'cache %u' /c; echo > /c/x; stat -c 'in %u' /c/x\n"
        "RUN --mount=source=f,target=/ctx cat /ctx\n"
        f"RUN --mount=from=busybox:test,source=/etc,target=/of {listing}\n"
        "USER bob\nRUN cat /f; id -u\n",
        *("-t", "t"),
    )
    assert "65536" in said and "cache 1000\nin 0\n" in said and "context" in said and "passwd\n" in said
    assert project.run("t", "stat", "-c", "%u %n", "/mine", "/f") == "1000 /mine\n1000 /f\n"


def test_the_cache_is_kept_within_its_limit(project: Project) -> None:
    """Two steps of 23 kB each; the third is an image's, too, when it is looked."""
    for number in range(5):
        project.build(FROM + f"RUN dd if=/dev/zero of=/f{number} bs=1k count=10 2>/dev/null\n")
        project.agent.client.images.prune()
    kept = [one["Description"][:26] for one in project.agent.client.df()["BuildCache"] if one["Size"]]
    assert kept == [f"RUN dd if=/dev/zero of=/f{number}" for number in (2, 3, 4)]


def test_base_images_are_pulled_when_they_are_missing_and_when_it_is_asked_for(
    project: Project, pushed: str
) -> None:
    said = project.build(f"FROM {pushed}\nRUN echo > /x\n")
    assert "Pulling from team/box" in said and "Status: Downloaded newer image" in said
    assert "Pulling" not in project.build(f"FROM {pushed}\nRUN echo > /x\n")
    assert "Status: Image is up to date" in project.build(f"FROM {pushed}\nRUN echo > /x\n", "--pull")
    digest = project.agent.client.images.get(pushed).attrs["RepoDigests"][0]
    assert " ---> Using cache" in project.build(f"FROM {digest}\nRUN echo > /x\n")
    copied = f"FROM scratch\nCOPY --from={pushed} /etc/passwd /\n"
    project.agent.client.images.remove(pushed, force=True)
    assert "Pulling from team/box" in project.build(copied)


def test_a_base_that_is_nowhere_is_named_with_its_place(project: Project, registry: str) -> None:
    said = project.build(f"FROM busybox:test AS a\nFROM {registry}/no:1\nRUN true\n", code=1)
    assert "Dockerfile:2: " in said and "no:1" in said


def test_credentials_reach_the_registry_and_nothing_else(project: Project, registry: str) -> None:
    """The command sends all that it has in its configuration; nothing of it is kept."""
    home = project.directory.parent / "docker"
    home.mkdir()
    secret = base64.b64encode(b"user:hidden-7c1d").decode()
    (home / "config.json").write_text(json.dumps({"auths": {registry: {"auth": secret}}}))
    done = project.agent.docker(
        "--config", str(home), "build", "-q", str(_written(project, FROM + "RUN env\n")), code=0
    )
    assert "sha256:" in done.stdout
    for path in project.agent.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
            assert b"hidden-7c1d" not in path.read_bytes() and secret.encode() not in path.read_bytes()


def _written(project: Project, dockerfile: str) -> Path:
    project.write({"Dockerfile": dockerfile})
    return project.directory
