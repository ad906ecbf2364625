"""The engine's own tests in the virtual machine: cgroup v2 alone, an older kernel, another Python build.

About 12 minutes: it is emulated, and 10 to 20 times slower than the machine that emulates it.
"""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest
from tests.support.virtualmachine import VirtualMachine

pytestmark = pytest.mark.vm

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ("agent", "controller", "tests", "pyproject.toml")
LEFT_OUT = ("__pycache__", "*.pth", "ansible*", "mypy*", "ruff*")
MODULES = "overlay nf_tables nf_conntrack"
"""Loaded beforehand: what a module brings to /proc would count as left behind by the test that needed it."""


@pytest.fixture(scope="module")
def checkout(vm: VirtualMachine) -> str:
    """The command that runs pytest there, in a session."""
    _copy(vm, REPOSITORY, SOURCES, "/srv/hawse")
    _copy(vm, Path(sysconfig.get_path("purelib")), (".",), "/srv/site")
    vm.run(f"modprobe -a {MODULES}")
    path = "/srv/site:/srv/hawse/agent:/srv/hawse/controller"
    session = "python3 -m tests.support.isolation -- python3 -m pytest -q -p no:cacheprovider"
    return f"cd /srv/hawse && PYTHONPATH={path} {session} -m 'not soak and not peers'"


SUBJECTS = (
    *("cgroups", "runtime", "userns", "supervise", "network", "lifecycle", "daemon"),
    "security/test_inside",
)
"""The last one: here are /proc/kcore and /proc/sysrq-trigger, which not every kernel has."""


@pytest.mark.parametrize("subject", SUBJECTS)
def test_engine(vm: VirtualMachine, checkout: str, subject: str) -> None:
    file = subject if "/" in subject else f"test_{subject}"
    done = vm.run(f"{checkout} tests/engine/{file}.py", check=False, timeout=1800)
    assert done.returncode == 0 and " passed" in done.stdout, f"{done.stdout}{done.stderr}"


def _copy(vm: VirtualMachine, directory: Path, names: tuple[str, ...], target: str) -> None:
    exclude = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    packed = subprocess.run(
        ["tar", "-C", directory, "-c", *exclude, *names], check=True, stdout=subprocess.PIPE
    )
    vm.run(f"mkdir {target} && tar -C {target} -x", input=packed.stdout)
