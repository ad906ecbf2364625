"""Plans in files: the whole plan or none, applied exactly, refused once the host has changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.support.fakefleet import Scene, outcomes

from hawse.runner import kept
from hawse.runner.fleet import Finished
from hawse_agent.errors import InputError, Unreachable

COPY = "- copy: {dest: /a, content: new}"


def keep(scene: Scene, tasks: str) -> Path:
    path = scene.directory / "plan.json"
    kept.write(path, scene.tasks(tasks, check=True))
    return path


def apply(scene: Scene, path: Path) -> Finished:
    plan = kept.read(path)
    hosts = [scene.run.inventory.host(name) for name in plan.hosts]
    return scene.new_runner(run_id="run-2").apply_kept(plan.hosts, hosts)


def test_a_kept_plan_is_applied_exactly_and_by_its_own_run(scene: Scene) -> None:
    path = keep(scene, COPY)
    finished = apply(scene, path)
    assert finished.exit_code == 0
    assert outcomes(finished) == {"w1": "changed", "w2": "changed", "w3": "changed"}
    assert scene["w1"].files == {"/a": "new"}
    assert [spec.run_id for spec in scene["w1"].specs] == ["run-2"]


def test_it_is_for_its_owner_alone(scene: Scene) -> None:
    path = scene.directory / "plan.json"
    path.write_text("older, and longer " * 1000)
    os.chmod(path, 0o644)
    keep(scene, COPY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(kept.read(path).hosts) == {"w1", "w2", "w3"}


def test_a_host_that_has_changed_is_left_alone(scene: Scene) -> None:
    path = keep(scene, COPY)
    scene["w2"].files["/a"] = "of someone else"
    finished = apply(scene, path)
    assert outcomes(finished) == {"w1": "changed", "w2": "failed", "w3": "changed"}
    assert finished.exit_code == 1
    assert finished.report.hosts[1].message == "w2: the host has changed since the plan was made"
    assert scene["w2"].files["/a"] == "of someone else" and scene["w2"].asked == ["plan", "plan"]


def test_long_files_are_sent_as_they_were_planned(scene: Scene) -> None:
    long = scene.directory / "long"
    long.write_bytes(b"x" * (2 << 20))
    path = keep(scene, f"- copy: {{src: {long}, dest: /long}}")
    assert outcomes(apply(scene, path))["w1"] == "changed"
    assert [len(blob) for blob in scene["w1"].blobs.values()] == [2 << 20]


@pytest.mark.parametrize("content", [b"y" * (2 << 20), None], ids=["changed", "removed"])
def test_a_long_file_that_is_no_longer_there(scene: Scene, content: bytes | None) -> None:
    long = scene.directory / "long"
    long.write_bytes(b"x" * (2 << 20))
    path = keep(scene, f"- copy: {{src: {long}, dest: /long}}")
    if content is None:
        long.unlink()
    else:
        long.write_bytes(content)
    finished = apply(scene, path)
    assert finished.exit_code == 2 and str(long) in finished.report.hosts[0].message
    assert not scene["w1"].files


RESULT = '- command: id\n  register: r\n- name: t\n  command: "a {{ r.stdout }}"'
BACKUP = "- copy: {dest: /a, content: new}\n- volume_backup: {volume: data, dest: b.tar}"
TWICE = (
    "- copy: {dest: /a, content: new}\n  failed_when: false\n  register: r\n"
    "- copy: {dest: /b, content: '{{ r.changed }}'}"
)


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        (RESULT, "'t' can be planned only once what precedes it has run"),
        (BACKUP, "can be planned only once what precedes it has run"),
        (TWICE, "asks the host more than once"),
    ],
)
def test_half_a_plan_is_not_kept(scene: Scene, tasks: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        keep(scene, tasks)
    assert not (scene.directory / "plan.json").exists()


def test_no_plan_is_kept_while_a_host_has_none(scene: Scene) -> None:
    scene.reach.lost["w3"] = Unreachable("w3: no", stage="tcp")
    with pytest.raises(InputError, match="w3 has no plan"):
        keep(scene, COPY)
    scene.reach.lost.clear()
    scene.reach.bare = {"w3"}
    with pytest.raises(InputError, match=r"w3: .* can be planned only once"):
        keep(scene, COPY)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "command": "x", "made": 0, "hosts": []}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p").write_text(text)
    with pytest.raises(InputError, match="not a plan that hawse has kept"):
        kept.read(tmp_path / "p")


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope: cannot read the plan: No such file"):
        kept.read(tmp_path / "nope")
