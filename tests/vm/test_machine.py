"""The agent where it is at home: systemd is PID 1, cgroups are v2, the kernel is Debian's own.

What cannot be tried on the machine that tests run on: the unit, limits of cgroup v2 and its device filter,
modules that are loaded on demand, logins with a cgroup of their own, reboots and power cuts. About 5 minutes
(boot 25 s, reboot 45 s, upgrade 25 s), 60 s more when the machine's image is made first.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from tests.support.project import Project
from tests.support.virtualmachine import VirtualMachine
from tests.vm.conftest import PUBLISHED

import hawse_agent

pytestmark = pytest.mark.vm

Connect = Callable[[], docker.DockerClient]

CGROUPS = "/sys/fs/cgroup/system.slice/hawse"
SITE = """\
    name: site
    services:
      web:
        image: bb:1
        command: [httpd, -f, -p, "80", -h, /www]
        restart: always
        ports: ["8080:80", "10.0.2.15:8081:80"]
        mem_limit: {{ memory | default("32m") }}
        memswap_limit: 64m
        cpus: {{ cpus | default(0.5) }}
        cpu_shares: 2048
        cpuset: "1"
        pids_limit: 20
        stop_signal: SIGKILL
        configs: [{source: page, target: /www/index.html}]
        healthcheck: {test: [CMD, wget, -q, -O, "-", "http://127.0.0.1/"], interval: 2s, timeout: 30s}
      keeper:
        image: bb:1
        restart: unless-stopped
        command:
          - sh
          - -c
          - "cd /data; echo start >> log; trap 'echo stop >> log; exit' TERM USR1; sleep 9999 & wait"
        stop_signal: SIGUSR1
        volumes: ["data:/data"]
      once:
        image: bb:1
        command: [sleep, "9999"]
        stop_signal: SIGKILL
    volumes: {data: {}}
    configs: {page: {content: "page of {{ inventory_hostname }}\\n"}}
    """
UP = ("-H", "machine", "up", "templates/site.yaml.j2")


@pytest.fixture(scope="module")
def site(hawse: Project) -> Project:
    """The stack is up; tests leave it as it is."""
    hawse.write("templates/site.yaml.j2", SITE)
    hawse.run(*UP)
    return hawse


@pytest.fixture
def client(engine: Connect) -> docker.DockerClient:
    return engine()


@pytest.fixture
def sleeper(client: docker.DockerClient) -> Iterator[Callable[..., Container]]:
    """Runs containers in the background that are gone after the test."""
    made: list[Container] = []

    def run(*command: str, **options: Any) -> Container:
        made.append(client.containers.run("bb:1", command or ["sleep", "9999"], detach=True, **options))
        return made[-1]

    yield run
    for container in made:
        container.remove(force=True)


def page(vm: VirtualMachine, timeout: float = 60) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{vm.ports[PUBLISHED]}/", timeout=timeout) as answer:
        return str(answer.read().decode())


def cgroup(vm: VirtualMachine, container: Container, *files: str) -> list[str]:
    paths = " ".join(f"{CGROUPS}/{container.id}/{file}" for file in files)
    return vm.output(f"for file in {paths}; do tr '\\n' ' ' < $file; echo; done").splitlines()


def stripped(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines]


def pids(vm: VirtualMachine) -> list[str]:
    """PID 1 of all containers; health checks come and go beside it."""
    return vm.output(f"for file in {CGROUPS}/*/cgroup.procs; do sort -n $file | head -1; done").split()


def states(client: docker.DockerClient) -> dict[str, str]:
    return {str(container.name): container.status for container in client.containers.list(all=True)}


def main_pid(vm: VirtualMachine) -> str:
    return vm.output("systemctl show hawse-agent -p MainPID --value")


def wait(what: Callable[[], object], seconds: float = 120) -> None:
    """For what no event tells of: asked again until it is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


# -- the unit and the host ---------------------------------------------------------------------------


def test_the_agent_is_a_service(vm: VirtualMachine, hawse: Project) -> None:
    shown = vm.output(
        "systemctl show hawse-agent -p ActiveState,Type,UnitFileState,Delegate,KillMode --value"
    )
    assert sorted(shown.split()) == ["active", "enabled", "notify", "process", "yes"]
    assert vm.output("cat /proc/$(systemctl show hawse-agent -p MainPID --value)/cgroup") == (
        "0::/system.slice/hawse-agent.service"
    )
    found = json.loads(hawse.run("--json", "host", "doctor", "machine").stdout)["machine"]
    assert found["ok"] and {check["status"] for check in found["checks"]} == {"ok"}
    assert [check["detail"] for check in found["checks"] if check["name"] == "cgroups"] == ["version 2"]


def test_a_published_port_and_health(vm: VirtualMachine, site: Project, client: docker.DockerClient) -> None:
    assert page(vm) == "page of machine\n"
    assert vm.output("curl -sS http://10.0.2.15:8081/") == "page of machine"
    web = client.containers.get("site-web-1")
    wait(lambda: client.api.inspect_container(web.id)["State"]["Health"]["Status"] == "healthy")


def test_exec_and_stats(vm: VirtualMachine, site: Project, client: docker.DockerClient) -> None:
    assert site.run("-H", "machine", "exec", "site-web-1", "cat", "/proc/self/cgroup").stdout == "0::/\n"
    web = client.containers.get("site-web-1")
    before = web.stats(stream=False)
    assert web.exec_run(["sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done"]).exit_code == 0
    after = web.stats(stream=False)
    assert after["memory_stats"]["limit"] == 32 << 20 and after["memory_stats"]["usage"] > 0
    assert after["pids_stats"]["limit"] == 20 and after["pids_stats"]["current"] >= 1
    used = [stats["cpu_stats"]["cpu_usage"]["total_usage"] for stats in (before, after)]
    assert used[1] > used[0] > 0
    assert after["cpu_stats"]["throttling_data"]["periods"] > 0


def test_a_terminal(sleeper: Callable[..., Container]) -> None:
    container = sleeper("sh", "-c", "tty; test -c /dev/console && echo console", tty=True)
    assert container.wait()["StatusCode"] == 0
    assert container.logs().split() == [b"/dev/pts/0", b"console"]


def test_the_container_sees_only_its_own_cgroup(sleeper: Callable[..., Container]) -> None:
    show = "cat /sys/fs/cgroup/pids.max; ls -d /sys/fs/cgroup/*.slice; mkdir /sys/fs/cgroup/x"
    container = sleeper("sh", "-c", show, pids_limit=7)
    container.wait()
    out = container.logs().decode()
    assert out.startswith("7\n") and "No such file" in out and "Read-only file system" in out


# -- limits ------------------------------------------------------------------------------------------

LIMITS = ("memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max")


def test_limits_are_in_the_cgroup(vm: VirtualMachine, site: Project, client: docker.DockerClient) -> None:
    web = client.containers.get("site-web-1")
    assert stripped(cgroup(vm, web, *LIMITS)) == [
        *(str(32 << 20), str(32 << 20), "50000 100000", "174", "1", "20"),
    ]
    assert "nothing to change" in site.run(*UP, "--check").stdout
    try:
        site.run("-e", "memory=48m", "-e", "cpus=0.7", *UP)
        assert stripped(cgroup(vm, web, *LIMITS))[:3] == [str(48 << 20), str(16 << 20), "70000 100000"]
        assert client.containers.get("site-web-1").id == web.id
        # What somebody changes behind our back is found, and put right.
        vm.run(f"echo 11 > {CGROUPS}/{web.id}/pids.max")
        planned = site.run("-e", "memory=48m", "-e", "cpus=0.7", *UP, "--check").stdout
        assert "cgroup pids  11 → 20" in planned
    finally:
        site.run(*UP)
    assert stripped(cgroup(vm, web, *LIMITS))[:3] == [str(32 << 20), str(32 << 20), "50000 100000"]
    assert stripped(cgroup(vm, web, "pids.max")) == ["20"]


def test_block_io_is_limited(vm: VirtualMachine, sleeper: Callable[..., Container]) -> None:
    rates = [{"Path": "/dev/vda", "Rate": 2 << 20}]
    container = sleeper(device_write_bps=rates, device_read_iops=[{"Path": "/dev/vda", "Rate": 50}])
    number = vm.output("stat -c %Hr:%Lr /dev/vda")
    (said,) = stripped(cgroup(vm, container, "io.max"))
    assert said == f"{number} rbps=max wbps={2 << 20} riops=50 wiops=max"
    started = time.monotonic()
    container.exec_run(["dd", "if=/dev/zero", "of=/file", "bs=1M", "count=8", "conv=fsync"])
    assert time.monotonic() - started > 2
    (written,) = [
        entry["value"]
        for entry in container.stats(stream=False)["blkio_stats"]["io_service_bytes_recursive"]
        if entry["op"].lower() == "write" and f"{entry['major']}:{entry['minor']}" == number
    ]
    assert written >= 8 << 20


def test_a_process_that_is_killed_for_memory(
    client: docker.DockerClient, sleeper: Callable[..., Container]
) -> None:
    options: dict[str, Any] = {"mem_limit": "16m", "memswap_limit": "16m"}
    survivor = sleeper("sh", "-c", "tail /dev/zero; exec sleep 9999", **options)
    victim = sleeper(
        "tail", "/dev/zero", restart_policy={"Name": "on-failure", "MaximumRetryCount": 1}, **options
    )

    def state(container: Container) -> dict[str, Any]:
        return dict(client.api.inspect_container(container.id))

    wait(lambda: state(survivor)["State"]["OOMKilled"])
    assert state(survivor)["State"]["Status"] == "running"
    wait(lambda: state(victim)["RestartCount"] == 1 and state(victim)["State"]["Status"] == "exited")
    assert (state(victim)["State"]["OOMKilled"], state(victim)["State"]["ExitCode"]) == (True, 137)


def test_processes_are_limited(sleeper: Callable[..., Container]) -> None:
    container = sleeper("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 9999 & done; wait", pids_limit=5)
    assert container.wait()["StatusCode"] != 0
    assert b"can't fork" in container.logs()


def test_devices_are_forbidden(vm: VirtualMachine, sleeper: Callable[..., Container]) -> None:
    major, minor = vm.output("stat -c '%Hr %Lr' /dev/vda").split()
    script = f"mknod /disk b {major} {minor}; head -c 1 /disk | wc -c; echo x > /dev/null && echo null"
    closed = sleeper("sh", "-c", script, stderr=True)
    closed.wait()
    out = closed.logs().decode()
    assert "Operation not permitted" in out and out.split()[-2:] == ["0", "null"]
    opened = sleeper("sh", "-c", "head -c 1 /dev/vda | wc -c; : > /dev/vda", devices=["/dev/vda:/dev/vda:r"])
    opened.wait()
    out = opened.logs().decode()
    assert out.startswith("1\n") and "Operation not permitted" in out


def test_pause(vm: VirtualMachine, site: Project, client: docker.DockerClient) -> None:
    web = client.containers.get("site-web-1")
    web.pause()
    try:
        assert client.containers.get("site-web-1").status == "paused"
        assert cgroup(vm, web, "cgroup.freeze", "cgroup.events")[0].strip() == "1"
        assert "frozen 1" in cgroup(vm, web, "cgroup.events")[0]
        with pytest.raises(OSError):
            page(vm, timeout=3)
    finally:
        web.unpause()
    assert "frozen 0" in cgroup(vm, web, "cgroup.events")[0]
    assert page(vm) == "page of machine\n"
    paused = client.containers.get("site-once-1")
    paused.pause()
    paused.kill()
    assert paused.wait(timeout=60)["StatusCode"] == 137  # frozen processes die, too
    paused.start()


# -- the daemon comes and goes -----------------------------------------------------------------------


def test_a_killed_daemon(vm: VirtualMachine, site: Project, engine: Connect) -> None:
    before, daemon = pids(vm), main_pid(vm)
    vm.run(f"kill -KILL {daemon}")
    wait(lambda: main_pid(vm) not in (daemon, "0"))
    vm.run("systemctl start hawse-agent")  # returns when it is ready
    assert pids(vm) == before and page(vm) == "page of machine\n"
    assert engine().containers.get("site-web-1").status == "running"
    assert "nothing to change" in site.run(*UP, "--check").stdout


def test_a_restarted_and_a_stopped_service(vm: VirtualMachine, site: Project) -> None:
    before, daemon = pids(vm), main_pid(vm)
    vm.run("systemctl daemon-reload; systemctl restart hawse-agent")
    assert main_pid(vm) not in (daemon, "0")
    assert pids(vm) == before and page(vm) == "page of machine\n"
    vm.run("systemctl stop hawse-agent")
    assert pids(vm) == before and page(vm) == "page of machine\n"
    assert "nothing to change" in site.run(*UP, "--check").stdout  # dial has started the unit's daemon
    assert vm.output("systemctl is-active hawse-agent") == "active"
    assert pids(vm) == before


def test_an_upgrade(vm: VirtualMachine, site: Project, tmp_path: Path) -> None:
    before, daemon = pids(vm), main_pid(vm)
    installed = vm.output("readlink /usr/local/sbin/hawse-agent")
    shutil.copytree(Path(hawse_agent.__file__).parent, tmp_path / "hawse_agent")
    with (tmp_path / "hawse_agent/launch.py").open("a") as source:
        source.write("\n# another bundle\n")
    site.environment["PYTHONPATH"] = str(tmp_path)
    try:
        assert "upgrading the agent" in site.run("host", "upgrade", "machine").stderr
    finally:
        del site.environment["PYTHONPATH"]
    upgraded = vm.output("readlink /usr/local/sbin/hawse-agent")
    assert upgraded != installed
    assert main_pid(vm) not in (daemon, "0")
    assert pids(vm) == before and page(vm) == "page of machine\n"
    site.run("host", "upgrade", "machine")
    assert vm.output("readlink /usr/local/sbin/hawse-agent") != upgraded
    assert pids(vm) == before


def test_a_daemon_without_a_unit_outlives_its_login(vm: VirtualMachine, hawse: Project) -> None:
    """In a login's cgroup it would be killed with it, and could not limit anything there."""
    dial = "hawse-agent dial --root /srv/own < /dev/null > /dev/null"
    vm.run(f"systemd-run --quiet --scope --slice=user-0.slice --unit=session-x {dial}")
    vm.run("systemctl stop session-x.scope", check=False)
    pid = vm.output("cut -d' ' -f1 /srv/own/run/daemon.lock")
    assert vm.output(f"cat /proc/{pid}/comm").startswith("hawse-agent")
    where = vm.output(f"cat /proc/{pid}/cgroup")
    assert where.startswith("0::/hawse-") and where.endswith("/daemon")
    vm.run("hawse-agent reset --root /srv/own")
    assert vm.run("ls -d /sys/fs/cgroup/hawse-* /srv/own", check=False).stdout == ""


# -- the machine goes down ---------------------------------------------------------------------------


def test_a_reboot(vm: VirtualMachine, site: Project, engine: Connect) -> None:
    client = engine()
    options: dict[str, dict[str, Any]] = {
        "halted": {"restart_policy": {"Name": "unless-stopped"}},
        "revived": {"restart_policy": {"Name": "always"}},
        "failing": {"restart_policy": {"Name": "on-failure"}},
        "removed": {"auto_remove": True},
    }
    for name, more in options.items():
        client.containers.run(
            "bb:1", ["sleep", "9999"], name=name, detach=True, stop_signal="SIGKILL", **more
        )
    for name in ("halted", "revived"):
        client.containers.get(name).stop()
    log = vm.output("cat /var/lib/hawse/volumes/site_data/_data/log").split()

    vm.reboot()
    assert vm.output("systemctl is-system-running --wait") == "running"
    client = engine()
    after = {"site-web-1": "running", "site-keeper-1": "running", "site-once-1": "exited"}
    after |= {"halted": "exited", "revived": "running", "failing": "running"}
    wait(lambda: states(client) == after)
    # Stopped by the signal of its own, once, by nobody else; and started again.
    wait(
        lambda: vm.output("cat /var/lib/hawse/volumes/site_data/_data/log").split() == [*log, "stop", "start"]
    )
    assert page(vm) == "page of machine\n"
    assert vm.output("curl -sS http://10.0.2.15:8081/") == "page of machine"
    for name in ("halted", "revived", "failing"):
        client.containers.get(name).remove(force=True)
    site.run(*UP)


def test_a_power_cut(vm: VirtualMachine, site: Project, engine: Connect) -> None:
    client = engine()
    client.containers.run(
        "bb:1", ["sleep", "9999"], name="new", detach=True, restart_policy={"Name": "always"}
    )
    log = vm.output("cat /var/lib/hawse/volumes/site_data/_data/log; sync").split()

    vm.cut_power()
    vm.start()
    assert vm.output("systemctl is-system-running --wait") == "running"
    client = engine()
    after = {"site-web-1": "running", "site-keeper-1": "running", "site-once-1": "exited", "new": "running"}
    wait(lambda: states(client) == after)
    once = client.api.inspect_container("site-once-1")["State"]
    assert (once["Status"], once["ExitCode"]) == ("exited", 137)
    wait(lambda: vm.output("cat /var/lib/hawse/volumes/site_data/_data/log").split() == [*log, "start"])
    assert page(vm) == "page of machine\n"
    client.containers.get("new").remove(force=True)


# -- the end -----------------------------------------------------------------------------------------


def test_remove_leaves_nothing(vm: VirtualMachine, site: Project) -> None:
    site.run("host", "remove", "machine", "--volumes")
    left = vm.run(
        "ls -d /var/lib/hawse /run/hawse /etc/hawse /usr/local/sbin/hawse-agent /sys/fs/cgroup/*/hawse*"
        " /sys/fs/cgroup/hawse* /etc/systemd/system/hawse* /etc/systemd/system/*/hawse*;"
        " grep -l hawse /proc/[0-9]*/comm; grep hawse /proc/self/mountinfo;"
        " ip -o link | grep -v -e lo: -e eth0",
        check=False,
    )
    assert left.stdout == ""
    assert vm.output("systemctl list-units --all --plain --no-legend 'hawse*'") == ""
    assert "hawse" not in vm.output("nft list tables")
