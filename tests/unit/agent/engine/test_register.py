"""The register of containers: no change of a record undoes another's."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hawse_agent.engine.register import Register
from hawse_agent.engine.views import ContainerState
from hawse_agent.errors import NotFound
from hawse_agent.paths import paths_for
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.records import ContainerRecord

ID = "1" * 64


class SlowShelf:
    """Whose first write lasts until it is told to go on."""

    def __init__(self) -> None:
        self.writing, self.go_on = threading.Event(), threading.Event()
        self.written: list[ContainerRecord] = []

    def put_container(self, record: ContainerRecord, *, releasing: bool = False) -> None:
        if not self.written:
            self.writing.set()
            assert self.go_on.wait(30)
        self.written.append(record)

    def delete_container(self, container_id: str) -> None:
        self.written.clear()


@pytest.fixture
def shelf() -> SlowShelf:
    return SlowShelf()


@pytest.fixture
def register(tmp_path: Path, shelf: SlowShelf) -> Register:
    register = Register(paths=paths_for(tmp_path), shelf=shelf)
    spec = ContainerSpec(name="one", image="x")
    record = ContainerRecord(id=ID, spec=spec, image_id="sha256:0", created=1.0)
    register.add(record, ContainerState())
    return register


def test_changes_at_the_same_time_are_all_kept(register: Register, shelf: SlowShelf) -> None:
    """A kill holds no lock of the container while somebody renames it."""
    changes = [
        threading.Thread(target=lambda: register.amend(ID, desired="running")),
        threading.Thread(
            target=lambda: register.rewrite(ID, lambda now: replace(now, spec=replace(now.spec, name="two")))
        ),
    ]
    changes[0].start()
    assert shelf.writing.wait(30)
    changes[1].start()
    assert register.record("one").desired == "stopped"  # readers do not wait
    shelf.go_on.set()
    for change in changes:
        change.join(30)
    for record in (register.record(ID), shelf.written[-1]):
        assert (record.spec.name, record.desired) == ("two", "running")


def test_one_that_is_gone(register: Register, shelf: SlowShelf) -> None:
    live = register.live(ID)
    waiter = live.removal()
    register.forget(ID)
    assert waiter.result(0) is not None and register.known(ID) is None and register.all() == []
    for look in (register.live, register.find, register.record, register.amend):
        with pytest.raises(NotFound, match="No such container"):
            look(ID)
    assert shelf.written == []
