"""Who shares something of a container that is made anew is made anew, too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hawse_agent.plan.observed import ObservedContainer, ObservedHost
from hawse_agent.plan.planner import plan_stack
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.host import LABEL_STACK, StackSpec
from hawse_agent.spec.records import ContainerRecord

MODES = ("network_mode", "pid_mode", "ipc_mode")
OWNED = {LABEL_STACK: "shop"}
APP = ContainerSpec(name="app", image="x", labels=OWNED)


def observed(*specs: ContainerSpec) -> ObservedHost:
    return ObservedHost(
        images={"x": "sha256:1"},
        containers={
            spec.name: ObservedContainer(
                record=ContainerRecord(id=f"id-of-{spec.name}", spec=spec, image_id="sha256:1", created=0.0),
                status="running",
            )
            for spec in specs
        },
    )


def pinned(spec: ContainerSpec, donor: str) -> ContainerSpec:
    """As its record has it: with the other one's id."""
    modes = {name: f"container:{donor}" for name in MODES if getattr(spec, name) == "container:app"}
    return replace(spec, **modes)  # type: ignore[arg-type]


def plan(seen: ObservedHost, *wanted: ContainerSpec) -> list[tuple[str, str, str]]:
    """Action, container and fields that differ."""
    operations = plan_stack("1", StackSpec(name="shop", containers=wanted), seen)
    return [(o.action, o.name, ",".join(change.field for change in o.changes)) for o in operations]


@pytest.mark.parametrize(
    ("shared", "field"),
    [
        ({"network_mode": "container:app"}, "network_mode"),
        ({"pid_mode": "container:app"}, "pid_mode"),
        ({"ipc_mode": "container:app"}, "ipc_mode"),
        ({"volumes_from": ("app:ro",)}, "volumes_from"),
    ],
)
def test_sharer_follows_the_container_that_it_shares(shared: dict[str, object], field: str) -> None:
    side = replace(APP, name="side", depends_on={"app": "started"}, **shared)  # type: ignore[arg-type]
    other = replace(APP, name="other", depends_on={"app": "started"})
    seen = observed(APP, side, other)
    assert plan(seen, APP, side, other) == []
    changed = replace(APP, command=("new",))
    assert plan(seen, changed, side, other) == [("recreate", "app", "command"), ("recreate", "side", field)]
    assert plan(observed(side), APP, side) == [("create", "app", ""), ("recreate", "side", field)]


@pytest.mark.parametrize("field", MODES)
def test_records_know_others_by_id(field: str) -> None:
    """Who joins one that is gone is made anew, though another one has its name."""
    side = replace(APP, name="side", depends_on={"app": "started"}, **{field: "container:app"})  # type: ignore[arg-type]
    changed = replace(APP, command=("new",))
    seen = observed(APP, pinned(side, "id-of-app"))
    assert plan(seen, APP, side) == []
    assert plan(seen, APP, replace(side, **{field: "container:id-of-a"})) == []  # type: ignore[arg-type]
    assert plan(seen, changed, side) == [("recreate", "app", "command"), ("recreate", "side", field)]
    gone = pinned(side, "id-of-another")
    assert plan(observed(APP, gone), APP, side) == [("recreate", "side", field)]
    assert plan(observed(gone), APP, side) == [("create", "app", ""), ("recreate", "side", field)]
