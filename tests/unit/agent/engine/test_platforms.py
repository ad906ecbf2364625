"""Of an image for several platforms the host takes its own, and refuses to be sent a foreign one."""

from __future__ import annotations

import pytest

from hawse_agent.distribution.manifest import Platform
from hawse_agent.engine.platforms import suited
from hawse_agent.errors import InputError
from hawse_agent.spec import codec
from hawse_agent.spec.host import HostSpec, ImageSource, ImageVariant, Item, StackSpec, TaskSpec

M1, M2 = ("sha256:" + digit * 64 for digit in "12")
HOST = Platform(architecture="arm64", variant="v8")
OTHER = ImageVariant(platform="linux/arm64", id="i2", manifest=M2, blobs=(M2, "i2"), size=2)
SOURCE = ImageSource(
    reference="app:1", id="i1", manifest=M1, blobs=(M1, "i1"), platform="linux/amd64", others=(OTHER,)
)
FITTING = ImageSource(
    reference="app:1", id="i2", manifest=M2, blobs=(M2, "i2"), size=2, platform="linux/arm64"
)


def program(source: ImageSource, *, state: str = "present") -> HostSpec:
    stack = StackSpec(name="s", images=(source,), state="present" if state == "present" else "absent")
    task = TaskSpec(module="image", args={**codec.to_json(source), "state": state, "force": False})
    return HostSpec(items=(Item(id="1", name="s", stack=stack), Item(id="2", name="t", task=task)))


def test_the_host_takes_its_own() -> None:
    chosen = suited(program(SOURCE), HOST)
    assert chosen == program(FITTING) and suited(chosen, HOST) == chosen


def test_what_is_not_held_is_left_alone() -> None:
    unknown = program(ImageSource(reference="app:1"))
    assert suited(unknown, HOST) == unknown


def test_a_foreign_one_is_refused_before_it_is_sent() -> None:
    with pytest.raises(
        InputError, match="app:1 is for linux/amd64, linux/arm64, and this host is linux/s390x"
    ) as e:
        suited(program(SOURCE), Platform(architecture="s390x"))
    assert "hawse image pull --platform linux/s390x app:1" in e.value.hint
