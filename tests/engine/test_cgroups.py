"""cgroups of the real kernel: v1 as far as it is mounted, v2 even where its tree has no controllers."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import isolation

from hawse_agent.cgroups import Base, Cgroup, Tree, device_rules, find_base, release_base
from hawse_agent.errors import Conflict, InputError, NotFound
from hawse_agent.paths import Paths, paths_for
from hawse_agent.spec.container import Resources

pytestmark = pytest.mark.skipif(
    isolation.current() is None, reason="needs a session: python -m tests.support.isolation"
)


@dataclass(frozen=True, kw_only=True)
class Place:
    paths: Paths
    base: Base
    tree: Tree


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    paths = paths_for(tmp_path)
    base = find_base(paths)
    yield Place(paths=paths, base=base, tree=Tree(base))
    release_base(paths, base)


@pytest.fixture
def unified() -> Iterator[Tree]:
    """A v2 tree: the machine's own, or the empty one beside v1."""
    for mountpoint in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if Path(mountpoint, "cgroup.controllers").exists():
            directory = Path(mountpoint, f"hawse-test-{os.getpid()}")
            directory.mkdir()
            tree = Tree(Base(version=2, hierarchies={"unified": str(directory)}))
            yield tree
            tree.remove_base()
            return
    pytest.skip("no cgroup2 is mounted")


class Sleeper:
    """A process of ours inside a cgroup."""

    def __init__(self, cgroup: Cgroup) -> None:
        # SIGTERM waits for the process: by its default action v2 would end even one that is frozen.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self.pid = os.fork()
        if self.pid == 0:
            signal.sigwait([signal.SIGTERM])
            os._exit(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        cgroup.add(self.pid)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_base_is_found_again(place: Place) -> None:
    assert find_base(place.paths) == place.base
    assert all(place.paths.name() in directory for directory in place.base.directories())


def test_base_is_made_again_when_it_is_gone(place: Place) -> None:
    place.tree.remove_base()
    assert find_base(place.paths) == place.base
    assert all(Path(directory).is_dir() for directory in place.base.directories())


def test_life_of_a_cgroup(place: Place) -> None:
    cgroup = place.tree.create("one", Resources(pids=5))
    assert place.tree.names() == ["one"]
    sleeper = Sleeper(cgroup)
    assert cgroup.pids() == [sleeper.pid]
    assert cgroup.stats().pids_current == 1
    with pytest.raises(Conflict):
        place.tree.create("one", Resources())
    cgroup.kill()
    assert sleeper.wait() == -signal.SIGKILL
    cgroup.remove()
    assert place.tree.names() == []
    with pytest.raises(NotFound):
        place.tree.open("one")


def test_empty_leftover_is_replaced(place: Place) -> None:
    place.tree.create("one", Resources(pids=5))
    cgroup = place.tree.create("one", Resources())
    assert cgroup.limits() == Resources()
    cgroup.remove()


def test_frozen_processes_stand_still_and_can_be_killed(place: Place) -> None:
    cgroup = place.tree.create("one", Resources())
    sleeper = Sleeper(cgroup)
    cgroup.freeze()
    os.kill(sleeper.pid, signal.SIGTERM)
    pidfd = os.pidfd_open(sleeper.pid)
    assert not select.select([pidfd], [], [], 0.1)[0]
    cgroup.thaw()
    assert select.select([pidfd], [], [], 5)[0]
    os.close(pidfd)
    sleeper.wait()
    cgroup.remove()


def test_asked_limits_are_told_until_somebody_changes_them(place: Place) -> None:
    """33333333 is no multiple of a page: the kernel itself says less."""
    asked = Resources(memory=33_333_333, memory_swap=50_000_001, cpus=0.333, cpu_shares=777, pids=10)
    cgroup = place.tree.create("one", asked)
    assert cgroup.limits() == asked
    file = "memory.limit_in_bytes" if place.base.version == 1 else "memory.max"
    where = cgroup.directory("memory" if place.base.version == 1 else "unified")
    Path(str(where), file).write_text("20480000")
    assert cgroup.limits().memory == 20_480_000
    cgroup.apply(asked)
    assert cgroup.limits() == asked
    cgroup.remove()


@pytest.mark.parametrize(
    "steps",
    [
        [
            Resources(memory=50 << 20, memory_swap=60 << 20),
            Resources(memory=500 << 20, memory_swap=600 << 20),
        ],
        [
            Resources(memory=500 << 20, memory_swap=600 << 20),
            Resources(memory=50 << 20, memory_swap=60 << 20),
        ],
        [Resources(memory=50 << 20, memory_swap=-1), Resources(memory=60 << 20, memory_swap=60 << 20)],
        [Resources(memory=50 << 20, memory_swap=60 << 20), Resources(), Resources(cpus=1.0, cpuset_cpus="0")],
    ],
)
def test_limits_change_in_an_order_that_the_kernel_takes(place: Place, steps: list[Resources]) -> None:
    cgroup = place.tree.create("one", Resources())
    for wanted in steps:
        cgroup.apply(wanted)
        assert cgroup.limits() == wanted
    cgroup.remove()


def test_refused_value(place: Place) -> None:
    with pytest.raises(InputError, match="the kernel refuses cpuset_cpus '999'"):
        place.tree.create("one", Resources(cpuset_cpus="999"))
    assert place.tree.names() == []


def test_v2_freezes_and_kills(unified: Tree) -> None:
    cgroup = unified.create("one", Resources())
    sleeper = Sleeper(cgroup)
    cgroup.freeze()
    assert "frozen 1" in Path(cgroup.paths[0], "cgroup.events").read_text()
    cgroup.thaw()
    assert cgroup.pids() == [sleeper.pid]
    cgroup.kill()
    assert sleeper.wait() == -signal.SIGKILL
    assert cgroup.limits() == Resources()
    cgroup.remove()


def test_v2_device_filter(unified: Tree) -> None:
    cgroup = unified.create("one", Resources(), device_rules((), False))
    child = os.fork()
    if child == 0:
        try:
            cgroup.add(0)
            os.close(os.open("/dev/null", os.O_RDWR))
            try:
                os.close(os.open("/dev/loop-control", os.O_RDWR))
            except PermissionError:
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    cgroup.remove()
