"""The controller needs no privilege on its own machine: a plain user provisions a host from it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import isolation, linux
from tests.support.testhost import TestHost, TestNetwork

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)")

NOBODY = 65534
CHECKOUT = Path(__file__).parents[2]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def host() -> Iterator[TestHost]:
    with TestNetwork() as network:
        network.host("web1")
        network.start()
        network.hosts[0].add_user("deploy", sudo="nopasswd")
        yield network.hosts[0]


@pytest.fixture(scope="module")
def hawse(host: TestHost) -> Iterator[Command]:
    """The command as a user who owns a project folder and a key, and nothing else.

    Interpreter and checkout may lie where only root can walk to (/root): they are mounted where he can.
    """
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nobody")))
        home.chmod(0o755)
        sources = {
            "python": sys.base_prefix,
            "checkout": str(CHECKOUT),
            "packages": sysconfig.get_path("purelib"),
        }
        for name, source in sources.items():
            (home / name).mkdir()
            linux.mount(source, home / name, None, linux.MS_BIND)
            stack.callback(linux.umount, home / name, linux.MNT_DETACH)
        project = home / "project"
        project.mkdir()
        key = project / "key"
        shutil.copy(host.network.client_key, key)
        (project / "hawse.toml").write_text('inventory = "hosts.ini"\n')
        (project / "hosts.ini").write_text(
            f"web1 ansible_host={host.address} ansible_user=deploy ansible_become=true"
            f" ansible_ssh_private_key_file={key} hawse_host_key='{host.host_keys()[0]}'\n"
        )
        (project / "play.yml").write_text(
            "- hosts: all\n  tasks:\n    - copy: {content: from nobody, dest: /root/made}\n"
        )
        for path in (project, *project.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        interpreter = home / "python" / Path(sys.executable).resolve().relative_to(sys.base_prefix)
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(project),
            "LANG": "C.UTF-8",
            "PYTHONHOME": str(home / "python"),
            "LD_LIBRARY_PATH": str(home / "python" / "lib"),
            "PYTHONPATH": ":".join(
                str(home / part) for part in ("checkout/controller", "checkout/agent", "packages")
            ),
        }

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(
                [interpreter, "-m", "hawse", *words],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd=project,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, f"hawse {words}:\n{done.stdout}{done.stderr}"
            return done

        run("host", "bootstrap", "web1")
        run("play", "play.yml", "--check")  # what is made once is there before the test
        yield run
        run("host", "remove", "web1")


def test_a_plain_user_provisions_a_host(host: TestHost, hawse: Command) -> None:
    assert "1 changed" in hawse("play", "play.yml").stdout
    assert host.path("/root/made").read_text() == "from nobody"
    assert "web1" in hawse("status").stdout
    host.path("/root/made").unlink()
