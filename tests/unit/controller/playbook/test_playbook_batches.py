"""Batches, the failure budget, and the hosts of a play."""

from __future__ import annotations

from pathlib import Path

import pytest

from hawse.inventory import extra_variables
from hawse.inventory import load as load_inventory
from hawse.playbook import Play, Run, batches, load, over_budget, play_hosts
from hawse_agent.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "hosts").write_text("[web]\nw[1:7]\n")
    return Run(
        inventory=load_inventory([tmp_path / "hosts"]),
        project=tmp_path,
        extra=extra_variables(["n=2 where=web"]),
    )


def play(tmp_path: Path, keywords: str) -> Play:
    (tmp_path / "p.yml").write_text(f"- {{hosts: '{{{{ where }}}}', {keywords}}}\n")
    return load(tmp_path / "p.yml")[0]


@pytest.mark.parametrize(
    ("serial", "sizes"),
    [
        ("", [7]),
        ("serial: 3", [3, 3, 1]),
        ("serial: 30%", [2, 2, 2, 1]),
        ("serial: 1%", [1] * 7),
        ("serial: [1, 4]", [1, 4, 2]),
        ("serial: [1, 100%]", [1, 6]),
        ("serial: 0", [7]),
        ("serial: '{{ n }}'", [2, 2, 2, 1]),
    ],
)
def test_serial(tmp_path: Path, run: Run, serial: str, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches(play(tmp_path, serial), run, list(range(7)))] == sizes


@pytest.mark.parametrize(
    ("keywords", "size", "lost", "over"),
    [
        ("", 4, 0, False),
        ("", 4, 3, False),
        ("", 4, 4, True),
        ("any_errors_fatal: true", 4, 1, True),
        ("max_fail_percentage: 25", 4, 1, False),
        ("max_fail_percentage: 25", 4, 2, True),
        ("max_fail_percentage: 0", 4, 1, True),
        ("max_fail_percentage: '{{ n }}'", 100, 3, True),
    ],
)
def test_budget(tmp_path: Path, run: Run, keywords: str, size: int, lost: int, over: bool) -> None:
    assert over_budget(play(tmp_path, keywords), run, size=size, lost=lost) is over


def test_hosts_may_be_a_template_and_errors_name_their_line(tmp_path: Path, run: Run) -> None:
    assert len(play_hosts(play(tmp_path, ""), run)) == 7
    (tmp_path / "q.yml").write_text("- name: x\n  hosts: wbe\n")
    with pytest.raises(InputError, match=r"q.yml:2: no host and no group matches 'wbe'"):
        play_hosts(load(tmp_path / "q.yml")[0], run)
