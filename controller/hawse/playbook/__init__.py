"""Playbooks: read (`load`), sliced into batches, and turned into requests host by host (`Program`). No I/O
with hosts: the fleet runs the programs.
"""

from hawse.playbook.batches import batches, over_budget, play_hosts
from hawse.playbook.model import Play, Task, load
from hawse.playbook.program import Program
from hawse.playbook.requests import (
    Apply,
    Backup,
    GatherFacts,
    Outcome,
    Restore,
    Step,
    planned_result,
    planned_results,
)
from hawse.playbook.run import Memory, Run

__all__ = [
    "Apply",
    "Backup",
    "GatherFacts",
    "Memory",
    "Outcome",
    "Play",
    "Program",
    "Restore",
    "Run",
    "Step",
    "Task",
    "batches",
    "load",
    "over_budget",
    "planned_result",
    "planned_results",
    "play_hosts",
]
