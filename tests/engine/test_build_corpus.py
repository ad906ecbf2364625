"""Each feature of Dockerfiles by a Dockerfile of its own (`tests/support/buildrows.py`): the same files and
the same configuration as dockerd's builder makes, or as the reference says of what only BuildKit has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import dockerd, imagecontents, isolation, randomcopies, recordbuilds
from tests.support.agent import AgentUnderTest
from tests.support.buildrows import BASE, ROWS
from tests.support.recordbuilds import Corpus


@pytest.fixture(scope="module")
def with_base(daemon: AgentUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(daemon.socket, tmp_path_factory.mktemp("corpus"))
    corpus.load_base()
    return corpus


@pytest.fixture
def corpus(with_base: Corpus, no_leaks: None) -> Iterator[Corpus]:
    yield with_base
    with_base.clear()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    session = isolation.current()
    if session is None or not dockerd.available():
        pytest.skip("needs dockerd, in a session (make test-peers)")
    with recordbuilds.of_dockerd(session.directory / "peer", tmp_path_factory.mktemp("peer")) as corpus:
        yield corpus


BY_DOCKERD = {name: row for name, row in ROWS.items() if row.judge == "dockerd"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak] if row.heavy else []) for name, row in BY_DOCKERD.items()],
)
def test_the_same_as_dockerd(name: str, corpus: Corpus) -> None:
    if not corpus.can_build(ROWS[name]):
        pytest.skip("needs an image that cannot be made here: see tests/support/buildapps.py")
    assert recordbuilds.difference(name, corpus.build(ROWS[name])) == ""


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.judge == "reference"])
def test_as_the_reference_says(name: str, corpus: Corpus) -> None:
    found = corpus.build(ROWS[name])
    expected = ROWS[name].expected
    assert found["tree"] == dict(sorted(expected["tree"].items()))
    assert found["whiteouts"] == expected["whiteouts"]
    assert {key: found["config"].get(key) for key in expected["config"]} == expected["config"]


def test_from_a_digest(registry: str, corpus: Corpus, tmp_path: Path) -> None:
    name = f"{registry}/corpus/base"
    corpus.docker("tag", BASE, f"{name}:1")
    (digest,) = set(re.findall(r"sha256:[0-9a-f]{64}", corpus.docker("push", f"{name}:1").splitlines()[-1]))
    corpus.docker("image", "rm", f"{name}:1")
    dockerfile = f"FROM {name}@{digest}\nRUN true > /made\n"
    corpus.docker("build", "-t", "corpus/row", "-", input=dockerfile.encode())
    archive = tmp_path / "row.tar"
    corpus.docker("save", "-o", str(archive), "corpus/row")
    assert imagecontents.read(archive, below=(1, 1)).tree == {"/made": 'file 0644 0:0 ""'}
    corpus.docker("image", "rm", "-f", "corpus/row", f"{name}@{digest}")


@pytest.mark.peers
@pytest.mark.parametrize("name", BY_DOCKERD)
def test_dockerd_makes_what_is_kept(name: str, peer: Corpus) -> None:
    if not peer.can_build(ROWS[name]):
        pytest.skip("needs an image that cannot be made here: see tests/support/buildapps.py")
    assert recordbuilds.difference(name, peer.build(ROWS[name])) == ""


@pytest.mark.peers
@pytest.mark.parametrize("of_a_stage", [False, True], ids=["context", "stage"])
@pytest.mark.parametrize("seed", [1, 2])
def test_both_copy_alike_whatever_is_copied(
    seed: int, of_a_stage: bool, corpus: Corpus, peer: Corpus
) -> None:
    """But for a layer of an empty directory's new time, which ours has not."""
    row = randomcopies.row(seed, of_a_stage=of_a_stage)
    theirs, ours = peer.build(row), corpus.build(row)
    for found in (theirs, ours):
        found["history"] = [one.removeprefix("+ ") for one in found["history"]]
    assert recordbuilds.unified(theirs, ours) == "", row.dockerfile
