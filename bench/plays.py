"""Rows about a fleet: a play with nothing to change, against ansible-playbook doing the like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.testhost import TestNetwork

from bench.table import Row, paired

TIMES = 3

PLAY = """\
- name: the same for both
  hosts: all
  gather_facts: true
  tasks:
{tasks}
"""

FILES = """\
    - name: directory {n}
      file: {{path: "/srv/bench{n}", state: directory, mode: "0755"}}
    - name: file {n}
      copy:
        dest: "/srv/bench{n}/motd"
        content: "host {{{{ inventory_hostname }}}} file {n}\\n"
        mode: "0644"
"""
COMMAND = """\
    - name: a command that has run
      command: {cmd: "touch /srv/bench0/done", creates: /srv/bench0/done}
"""


def rows(directory: Path) -> list[Row]:
    return [_row(directory, 3), _row(directory, 10)]


def _row(directory: Path, count: int) -> Row:
    """Eleven tasks on `count` hosts, all of which hold already."""
    project = directory / f"play{count}"
    project.mkdir()
    tasks = "".join(FILES.format(n=number) for number in range(5)) + COMMAND
    (project / "play.yml").write_text(PLAY.format(tasks=tasks))
    with TestNetwork() as network:
        for number in range(count):
            network.host(f"h{number}")
        network.start()
        (project / "hosts.ini").write_text(network.inventory())
        environment = {
            **os.environ,
            "HOME": str(project),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_FORKS": "10",
            "ANSIBLE_HOST_KEY_CHECKING": "1",
            "ANSIBLE_SSH_ARGS": f"-o UserKnownHostsFile={network.known_hosts} "
            "-o ControlMaster=auto -o ControlPersist=60s",
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            "LC_ALL": "C.UTF-8",
        }
        for name in list(environment):
            if name.startswith(("XDG_", "HAWSE_HOME")):
                del environment[name]
        bin_directory = Path(sys.executable).parent

        def hawse() -> None:
            _run([bin_directory / "hawse", "-i", "hosts.ini", "play", "play.yml"], project, environment)

        def ansible() -> None:
            _run([bin_directory / "ansible-playbook", "-i", "hosts.ini", "play.yml"], project, environment)

        ours, theirs = paired(hawse, ansible, TIMES)
    return Row(
        what=f"play of 11 tasks on {count} hosts, nothing to change",
        peer="ansible-playbook, pipelining, forks=10",
        theirs=theirs,
        ours=ours,
        unit="ms",
        budget=0.05,
    )


def _run(argv: list[str | Path], project: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(argv, cwd=project, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}")


def possible() -> str:
    """Why these rows cannot be measured here, or nothing."""
    if not (Path(sys.executable).parent / "ansible-playbook").exists():
        return "ansible-core is not installed"
    return ""
