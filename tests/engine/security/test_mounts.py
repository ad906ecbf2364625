"""Mounts that somebody inside tries to lead elsewhere: by links that change while a container starts, by a
/dev or a /proc of their own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import APIError, ContainerError
from tests.support import isolation, probes
from tests.support.agent import BUSYBOX, AgentUnderTest

STARTS = 8
"""Under each pair that is exchanged."""
MORE_STARTS = 60
"""Until the directory and the link have both been met, which each start does by chance."""
EXCHANGES = 100
"""During each start at least."""


@pytest.fixture
def canary() -> Iterator[Path]:
    """What must not get a mount, nor a directory to mount on."""
    session = isolation.current()
    assert session is not None
    path = session.directory / "canary-of-mounts"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []
    path.rmdir()


@pytest.mark.parametrize("kind", ["host", "proc", "root of a process"])
def test_links_exchanged_while_volumes_are_mounted(agent: AgentUnderTest, canary: Path, kind: str) -> None:
    """CVE-2021-30465, CVE-2019-19921: in one volume a directory and a link change places all the time;
    another volume is mounted below. It ends up below the container's root, or the start is refused."""
    out = {
        "host": f"../../../../../../..{canary}",
        "proc": "/proc",
        "root of a process": f"/proc/1/root{canary}",
    }[kind]
    client = agent.client
    client.containers.run(
        BUSYBOX,
        ["sh", "-c", f"mkdir /v/x; ln -s {out} /v/y"],
        volumes={"shared": {"bind": "/v"}},
        remove=True,
    )
    attacker = client.containers.run(
        probes.IMAGE,
        probes.arguments("swap:/v/x,/v/y"),
        detach=True,
        **probes.options(volumes={"shared": {"bind": "/v"}}),
    )
    assert next(attacker.logs(stream=True, follow=True)).strip() == b"swapping"
    counter = Path(client.volumes.get("shared").attrs["Mountpoint"], "exchanges")
    exchanges = int.from_bytes(counter.read_bytes(), "little")
    met = Counter[str]()
    volumes = {"shared": {"bind": "/mnt"}, "other": {"bind": "/mnt/x/inner"}}
    plain = None
    while met.total() < STARTS or (len(met) < 2 and met.total() < MORE_STARTS):
        before, exchanges = exchanges, int.from_bytes(counter.read_bytes(), "little")
        assert exchanges - before >= EXCHANGES or not met, "the attack was not made"
        try:
            output = client.containers.run(
                probes.IMAGE,
                probes.arguments("mounts"),
                network_mode="none",
                remove=True,
                **probes.options(volumes=volumes),
            )
        except (APIError, ContainerError) as error:
            assert "mount" in str(error), error
            met["the link"] += 1
            continue
        where = json.loads(output)["mounts"]
        inner = [path for path in where if path.endswith("/inner")]
        assert len(inner) == 1 and not inner[0].startswith("/proc"), where
        below_proc = sorted(path for path in where if path.startswith("/proc"))
        plain = plain or below_proc
        assert below_proc == plain
        met["the directory" if inner[0].startswith("/mnt/") else "the link"] += 1
    attacker.reload()
    assert attacker.status == "running"
    assert len(met) == 2, f"the attack never changed what a start met: {met}"


@pytest.mark.parametrize("content", ["a file", "a link to a file of the kernel", "nothing"])
def test_a_dev_of_ones_own_masks_nothing(agent: AgentUnderTest, content: str) -> None:
    """CVE-2025-31133: what is bound over masked files must be the null device."""
    make = {
        "a file": "echo forged > /d/null",
        "a link to a file of the kernel": "ln -s /proc/sys/kernel/core_pattern /d/null",
        "nothing": "true",
    }[content]
    agent.client.containers.run(
        BUSYBOX, ["sh", "-c", make], volumes={"dev": {"bind": "/d"}}, network_mode="none", remove=True
    )
    for options in ((), ("-t",)):
        done = agent.docker(
            "run", "--rm", *options, "--network", "none", "-v", "dev:/dev", BUSYBOX, "true", code=125
        )
        assert "/dev/null" in done.stderr, done.stderr


@pytest.mark.parametrize("content", ["a link", "a file"])
def test_a_console_of_ones_own_is_not_bound_over(agent: AgentUnderTest, canary: Path, content: str) -> None:
    """CVE-2025-52565: what is bound on /dev/console is the terminal's own descriptor, on our own /dev."""
    make = {"a link": f"ln -s {canary} /d/console", "a file": "echo mine > /d/console"}[content]
    agent.client.containers.run(
        BUSYBOX, ["sh", "-c", make], volumes={"pts": {"bind": "/d"}}, network_mode="none", remove=True
    )
    alone = ("--rm", "-t", "--network", "none")
    done = agent.docker("run", *alone, BUSYBOX, "stat", "-c", "%F", "/dev/console")
    assert done.stdout.strip() == "character special file"
    done = agent.docker("run", *alone, "-v", "pts:/dev/pts", BUSYBOX, "true", code=125)
    assert "/dev/pts" in done.stderr, done.stderr


FORGE = """
mount -t tmpfs none /proc
mkdir -p /proc/self/attr /proc/thread-self/attr /proc/sys/kernel
for name in self/oom_score_adj self/loginuid self/attr/exec self/attr/current thread-self/attr/exec; do
    echo forged > /proc/$name
done
echo ready
exec sleep 1000
"""


def test_nothing_is_written_to_a_forged_proc(agent: AgentUnderTest) -> None:
    """CVE-2025-52881: by one who may mount, for those who are executed beside it."""
    container = agent.client.containers.run(
        BUSYBOX,
        ["sh", "-c", FORGE],
        detach=True,
        cap_add=["SYS_ADMIN"],
        oom_score_adj=500,
        network_mode="none",
    )
    assert next(container.logs(stream=True, follow=True)).strip() == b"ready"
    code, output = container.exec_run(
        ["sh", "-c", "cd /proc; cat self/oom_score_adj self/attr/* thread-self/attr/*"]
    )
    assert (code, set(output.split())) == (0, {b"forged"})
    pid = container.exec_run(["sleep", "1000"], detach=True) and container.top()["Processes"][-1][1]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/1", "/"])
def test_no_volume_stands_in_for_proc(agent: AgentUnderTest, target: str) -> None:
    """CVE-2019-16884, CVE-2023-27561."""
    with pytest.raises(APIError):
        agent.client.containers.run(
            BUSYBOX, ["true"], volumes={"forged": {"bind": target}}, network_mode="none", remove=True
        )
