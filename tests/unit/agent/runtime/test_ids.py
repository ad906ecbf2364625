"""Which ids a container gets."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hawse_agent.errors import Conflict
from hawse_agent.paths import paths_for
from hawse_agent.runtime.ids import COUNT, Ids, choose, forget, host_ids
from hawse_agent.spec.records import IdRange

POOL = IdRange(first=1_000_000, count=3 * COUNT)
ONE, TWO, THREE = (IdRange(first=1_000_000 + index * COUNT, count=COUNT) for index in range(3))


@pytest.mark.parametrize(
    ("taken", "after", "chosen"),
    [
        ([], 0, ONE),
        ([], ONE.first, TWO),  # in turn
        ([], THREE.first, ONE),
        ([ONE], 0, TWO),
        ([ONE, TWO], THREE.first, THREE),
        ([IdRange(first=TWO.first - 1, count=1)], 0, TWO),  # one user of the host inside the first range
        ([IdRange(first=TWO.first - 1, count=2)], 0, THREE),
        ([IdRange(first=ONE.first - 1, count=1), IdRange(first=TWO.first, count=1)], 0, ONE),
    ],
)
def test_choice(taken: list[IdRange], after: int, chosen: IdRange) -> None:
    assert choose(POOL, taken, after=after) == chosen


@pytest.mark.parametrize("pool", [POOL, IdRange(first=POOL.first, count=COUNT - 1)])
def test_none_left(pool: IdRange) -> None:
    with pytest.raises(Conflict, match="no ids are left"):
        choose(pool, [ONE, TWO, THREE])


def test_ids_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/:/bin/sh\n+::::::\n# none\n")
    (tmp_path / "subgid").write_text("alice:100000:65536\n")
    assert list(host_ids(tmp_path)) == [IdRange(first=0, count=1), IdRange(first=100000, count=65536)]


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    return tmp_path / "ids"


def container(tmp_path: Path, agent: str, name: str) -> Path:
    directory = tmp_path / agent / name
    directory.mkdir(parents=True)
    return directory


def ids(tmp_path: Path) -> Ids:
    (tmp_path / "etc").mkdir(exist_ok=True)
    return Ids(POOL, claims=tmp_path / "ids", etc=tmp_path / "etc")


def test_two_agents_share_a_pool(tmp_path: Path, claims: Path) -> None:
    one, other = ids(tmp_path), ids(tmp_path)
    mine, theirs = container(tmp_path, "a", "1"), container(tmp_path, "b", "2")
    assert (one.take(mine), other.take(theirs)) == (ONE, TWO)
    one.give_back(TWO, mine)  # not its own
    assert {link.name for link in claims.iterdir()} == {str(ONE.first), str(TWO.first)}
    one.give_back(ONE, mine)
    other.give_back(TWO, theirs)
    assert not claims.exists()


def test_a_range_is_free_when_its_container_is_gone(tmp_path: Path, claims: Path) -> None:
    gone = container(tmp_path, "a", "1")
    ids(tmp_path).take(gone)
    gone.rmdir()
    assert ids(tmp_path).take(container(tmp_path, "b", "2")) == ONE


def test_a_range_is_taken_before_its_container_is_complete(tmp_path: Path) -> None:
    paths = paths_for(tmp_path / "a")
    paths.new_container("1").mkdir(parents=True)
    ids(tmp_path).take(paths.container("1"))
    assert ids(tmp_path).take(container(tmp_path, "b", "2")) == TWO


def test_what_a_killed_daemon_has_left_is_tidied_up(tmp_path: Path, claims: Path) -> None:
    gone, mine, theirs = (container(tmp_path, agent, agent + "1") for agent in ("a", "a/b", "c"))
    pool = ids(tmp_path)
    for directory in (gone, mine, theirs):
        pool.take(directory)
    for directory in (mine, gone, theirs):
        directory.rmdir()
    pool.tidy(gone.parent)
    assert {link.name for link in claims.iterdir()} == {str(TWO.first), str(THREE.first)}


def test_kept_after_a_reboot_unless_somebody_was_faster(tmp_path: Path) -> None:
    mine, theirs = container(tmp_path, "a", "1"), container(tmp_path, "b", "2")
    assert ids(tmp_path).keep(ONE, mine) == ONE
    assert ids(tmp_path).keep(ONE, mine) == ONE
    assert ids(tmp_path).keep(ONE, theirs) == TWO


def test_an_heir_lives_on_in_a_range(tmp_path: Path) -> None:
    first, heir = container(tmp_path, "a", "1"), container(tmp_path, "a", "2")
    pool = ids(tmp_path)
    pool.give_back(pool.take(first), first, heir)
    assert ids(tmp_path).take(container(tmp_path, "a", "3")) == TWO


def test_a_removed_agent_is_forgotten(tmp_path: Path, claims: Path) -> None:
    mine, theirs = container(tmp_path, "a", "1"), container(tmp_path, "b", "2")
    pool = ids(tmp_path)
    pool.take(mine)
    pool.take(theirs)
    forget(mine.parent, claims)
    assert [link.name for link in claims.iterdir()] == [str(TWO.first)]
    forget(theirs.parent, claims)
    assert not claims.exists()


def test_many_at_once(tmp_path: Path) -> None:
    """Also while others take the directory away again."""
    taken: list[IdRange] = []
    failed: list[BaseException] = []

    def work(number: int) -> None:
        pool = ids(tmp_path)
        directory = container(tmp_path, "a", str(number))
        try:
            for _ in range(20):
                mine = pool.take(directory)
                taken.append(mine)
                pool.give_back(mine, directory)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(taken) == 60
