"""What a container with Docker's defaults can see, reach and do, told from inside."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support import mobyprofile, probes
from tests.support.agent import AgentUnderTest

from hawse_agent.linux import syscalls
from hawse_agent.runtime.defaults import DEFAULT_CAPABILITIES

CAPABILITIES = "00000000a80425fb"
NOTHING = "0000000000000000"
ABSTRACT = "hawse-test-of-the-host"
KEY = "hawse-test-key"
_FILTERED = """
unshare setns clone3 add_key request_key keyctl io_uring_setup io_uring_enter userfaultfd move_pages mount
umount2 move_mount open_tree settimeofday personality perf_event_open process_madvise kcmp quotactl_fd
socket_alg socket_vsock
"""
FILTERED = _FILTERED.split()
FILTERED_I386 = ("unshare", "keyctl", "clone3")
DEVICES = ("b,7,0", "b,8,0", "b,254,0", "c,1,1", "c,1,2", "c,1,4", "c,10,229", "c,4,0")


def read_only() -> list[str]:
    """Files that change the whole machine, of those that this kernel has."""
    fixed = (
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/profiling",
        "/sys/module/overlay/parameters/index",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory/release_agent",
        "/sys/fs/cgroup/memory/notify_on_release",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/devices/devices.allow",
        "/sys/fs/cgroup/pids/pids.max",
        "/sys/fs/cgroup/memory/cgroup.procs",
    )
    return [path for path in fixed if Path(path).exists()]


def empty() -> list[str]:
    """Masked files."""
    paths = ("/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/kcore", "/proc/latency_stats")
    return [path for path in paths if Path(path).exists()]


def empty_directories() -> list[str]:
    paths = ("/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap")
    return [path for path in paths if Path(path).is_dir()]


def all_probes() -> list[str]:
    words = [
        "capabilities",
        "environment",
        "descriptors",
        "processes",
        "links",
        "netlink",
        "climb",
        "identity",
    ]
    words += ["abstract_names", f"abstract:{ABSTRACT}", "directory:/dev"]
    words += [f"write:{path}" for path in read_only()]
    words += [f"read:{path}" for path in empty()]
    words += [f"directory:{path}" for path in empty_directories()]
    words += [f"node:{device}" for device in DEVICES]
    words += [f"signal:{os.getpid()}", f"trace:{os.getpid()}", "calls:getpid", "calls:future"]
    words += [f"calls:{name}" for name in FILTERED]
    if platform.machine() == "x86_64":
        words += [f"calls_i386:{name}" for name in ("getpid", *FILTERED_I386)]
    return words


@pytest.fixture(scope="module")
def listener() -> Iterator[None]:
    """An abstract socket of the host."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind("\0" + ABSTRACT)
        listening.listen()
        yield


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of the probes in the container's first process, and in one executed beside it."""

    first: dict[str, Any]
    executed: dict[str, Any]

    def __getitem__(self, word: str) -> list[Any]:
        return [self.first[word], self.executed[word]]


@pytest.fixture(scope="module")
def inside(daemon: AgentUnderTest, listener: None) -> Found:
    words = all_probes()
    container = daemon.client.containers.run(
        probes.IMAGE,
        ["sh", "-c", f"{' '.join(probes.arguments(*words))}; exec sleep 1000"],
        detach=True,
        hostname="box",
        **probes.options(),
    )
    try:
        first = next(container.logs(follow=True, stream=True))
        code, executed = container.exec_run(probes.arguments(*words))
        assert code == 0, executed
        return Found(first=json.loads(first), executed=json.loads(executed))
    finally:
        container.remove(force=True)


@pytest.fixture(scope="module")
def outside(listener: None) -> dict[str, Any]:
    """The same calls as the host's root: what they come to without a filter."""
    words = [f"calls:{name}" for name in FILTERED]
    if platform.machine() == "x86_64":
        words += [f"calls_i386:{name}" for name in ("getpid", *FILTERED_I386)]
    words += [f"abstract:{ABSTRACT}"]
    command = [sys.executable, str(probes.INSIDER), *words]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def test_capabilities(inside: Found) -> None:
    for found in inside["capabilities"]:
        assert found == {
            "CapInh": NOTHING,
            "CapPrm": CAPABILITIES,
            "CapEff": CAPABILITIES,
            "CapBnd": CAPABILITIES,
            "CapAmb": NOTHING,
            "NoNewPrivs": "0",
            "Seccomp": "2",
        }


def test_environment(inside: Found) -> None:
    """Nothing of the daemon's; the first process has gone through a shell, which adds its own."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    given = {"PATH": path, "HOSTNAME": "box", "HOME": "/root"}
    first, executed = inside["environment"]
    assert executed == given
    assert {name: first[name] for name in first if name not in ("SHLVL", "PWD", "OLDPWD")} == given


def test_descriptors(inside: Found) -> None:
    assert inside["descriptors"] == [["0", "1", "2"]] * 2


def test_sees_no_process_but_its_own(inside: Found) -> None:
    for found in inside["processes"]:
        assert found[0] == 1 and len(found) <= 4
    assert inside[f"signal:{os.getpid()}"] == ["ESRCH"] * 2
    assert inside[f"trace:{os.getpid()}"] == ["ESRCH"] * 2


def test_network_is_its_own(inside: Found) -> None:
    assert inside["links"] == [["eth0", "lo"]] * 2
    assert inside["netlink"] == ["EPERM"] * 2


def test_abstract_sockets_of_the_host_are_out_of_reach(inside: Found, outside: dict[str, Any]) -> None:
    assert outside[f"abstract:{ABSTRACT}"] == "connected"
    assert inside[f"abstract:{ABSTRACT}"] == ["ECONNREFUSED"] * 2
    assert inside["abstract_names"] == [[], []]


def test_a_chroot_leads_no_further_than_the_root(inside: Found) -> None:
    assert inside["climb"] == [True, True]


def test_the_kernels_switches_are_read_only(inside: Found) -> None:
    """CVE-2022-0492 among them: release_agent."""
    assert {path: inside[f"write:{path}"] for path in read_only()} == dict.fromkeys(
        read_only(), ["EROFS"] * 2
    )


def test_masked_paths_are_empty(inside: Found) -> None:
    assert {path: inside[f"read:{path}"] for path in empty()} == {word: ["", ""] for word in empty()}
    directories = empty_directories()
    assert {path: inside[f"directory:{path}"] for path in directories} == {
        path: [[], []] for path in directories
    }


def test_has_no_device_of_the_host(inside: Found) -> None:
    names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    for found in inside["directory:/dev"]:
        assert " ".join(name for name in found if name != "core") == names


def test_a_device_node_can_be_made_and_not_opened(inside: Found, daemon: AgentUnderTest) -> None:
    """What a privileged container can open, or is told otherwise of: it is the device cgroup that refuses."""
    words = [f"node:{device}" for device in DEVICES]
    everything = probes.attack(daemon, *words, privileged=True)
    telling = {word: answer for word, answer in everything.items() if answer != "EPERM"}
    assert "opened" in telling.values() and len(telling) >= 3, everything
    assert {device: inside[f"node:{device}"] for device in DEVICES} == {
        word: ["EPERM"] * 2 for word in DEVICES
    }


def test_the_kernel_refuses_what_the_filter_forbids(inside: Found, outside: dict[str, Any]) -> None:
    """As far as it answers otherwise without a filter."""
    expected = {name: "ENOSYS" if name == "clone3" else "EPERM" for name in FILTERED}
    telling = [name for name in FILTERED if outside[f"calls:{name}"] not in ("ENOSYS", expected[name])]
    assert len(telling) >= 10, outside
    assert {name: inside[f"calls:{name}"] for name in FILTERED} == {
        name: [expected[name]] * 2 for name in FILTERED
    }


def test_the_kernel_lets_pass_what_the_filter_allows(inside: Found) -> None:
    assert all(isinstance(found, int) for found in inside["calls:getpid"])
    assert inside["calls:future"] == ["ENOSYS"] * 2


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64 has another entry for 32-bit programs")
def test_the_entry_of_32_bit_programs_is_filtered_too(inside: Found, outside: dict[str, Any]) -> None:
    if not isinstance(outside["calls_i386:getpid"], int):
        pytest.skip("this kernel runs no 32-bit programs")
    assert all(isinstance(found, int) for found in inside["calls_i386:getpid"])
    for name in FILTERED_I386:
        expected = "ENOSYS" if name == "clone3" else "EPERM"
        assert (outside[f"calls_i386:{name}"] != expected, inside[f"calls_i386:{name}"]) == (
            True,
            [expected] * 2,
        )


def test_the_sample_is_one_of_what_the_profile_forbids() -> None:
    table = syscalls.table(syscalls.native())
    for name in FILTERED:
        if not name.startswith("socket_") and name != "personality":
            answer = mobyprofile.decide(name, table[name], mobyprofile.NEWEST, (), DEFAULT_CAPABILITIES)
            assert answer != mobyprofile.ALLOW, name


# Other containers


@pytest.mark.parametrize(
    ("options", "bounding", "effective"),
    [
        ({"user": "1000"}, CAPABILITIES, NOTHING),
        ({"user": "1000", "cap_add": ["SYS_PTRACE"]}, "00000000a80c25fb", NOTHING),
        ({"cap_add": ["NET_ADMIN"]}, "00000000a80435fb", "00000000a80435fb"),
        ({"cap_drop": ["ALL"]}, NOTHING, NOTHING),
        ({"cap_drop": ["ALL"], "cap_add": ["CHOWN"]}, "0000000000000001", "0000000000000001"),
        ({"cap_drop": ["MKNOD", "NET_RAW"]}, "00000000a00405fb", "00000000a00405fb"),
    ],
    ids=["user", "user and add", "add", "drop all", "drop all and add", "drop"],
)
def test_capabilities_asked_for(
    agent: AgentUnderTest, options: dict[str, Any], bounding: str, effective: str
) -> None:
    found = probes.attack(agent, "capabilities", **options)["capabilities"]
    assert (found["CapBnd"], found["CapPrm"], found["CapEff"]) == (bounding, effective, effective)
    assert (found["CapInh"], found["CapAmb"]) == (NOTHING, NOTHING)


def test_privileged_has_what_the_host_can_give(agent: AgentUnderTest) -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(line.split()[1] for line in lines if line.startswith("CapBnd"))
    found = probes.attack(agent, "capabilities", privileged=True)["capabilities"]
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"], found["Seccomp"]) == (own, own, own, "0")
    assert (found["CapInh"], found["CapAmb"]) == (NOTHING, NOTHING)


def test_the_supervisor_cannot_be_looked_into_with_the_hosts_pids(agent: AgentUnderTest) -> None:
    """Its root has the number of the host's root, but not its capabilities."""
    words = [f"read:/proc/{agent.pid}/{name}" for name in ("environ", "mem", "maps", "exe", "fd/0")]
    words += [f"directory:/proc/{agent.pid}/{name}" for name in ("root", "cwd")]
    found = probes.attack(agent, *words, f"trace:{agent.pid}", pid_mode="host")
    assert {word: answer for word, answer in found.items() if answer not in ("EACCES", "EPERM")} == {}


def test_a_setuid_program_gains_nothing_without_new_privileges(agent: AgentUnderTest) -> None:
    bob = "import os; os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)"
    run = "os.execv('/suid', ['/suid', '-IS', '/insider.py', 'identity'])"
    copy = f"cp {os.path.realpath(probes.PYTHON)} /suid; chmod 4755 /suid"
    script = f'{copy}; exec {probes.PYTHON} -c "{bob}; {run}"'

    def identity(**options: Any) -> list[int]:
        output = agent.client.containers.run(
            probes.IMAGE, ["sh", "-c", script], remove=True, **probes.options(**options)
        )
        return list(json.loads(output)["identity"])

    assert identity()[:3] == [1000, 0, 0]
    assert identity(security_opt=["no-new-privileges"])[:3] == [1000, 1000, 1000]


def test_keys_of_the_host_and_of_others_are_not_found(agent: AgentUnderTest) -> None:
    """Without the filter, which forbids all of it."""
    found = [probes.attack(agent, "session_keyring", security_opt=["seccomp=unconfined"]) for _ in range(2)]
    serials = [one["session_keyring"] for one in found]
    if serials[0] == "ENOSYS":
        pytest.skip("this kernel has no keyrings")
    assert all(isinstance(serial, int) for serial in serials)
    command = [sys.executable, str(probes.INSIDER), "session_keyring"]
    outside = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["session_keyring"]
    assert len({*serials, outside}) == 3


def test_a_memory_bound_of_its_own_for_shared_memory(agent: AgentUnderTest) -> None:
    assert probes.attack(agent, "fill:/dev/shm,64", shm_size="3m") == {"fill:/dev/shm,64": 3}
    assert probes.attack(agent, "fill:/dev/shm,80") == {"fill:/dev/shm,80": 64}


def test_forks_stop_at_the_limit(agent: AgentUnderTest) -> None:
    assert probes.attack(agent, "forks:100", pids_limit=20) == {"forks:100": 19}


def test_open_files_stop_at_the_limit(agent: AgentUnderTest) -> None:
    limit = {"Name": "nofile", "Soft": 50, "Hard": 50}
    assert probes.attack(agent, "open_files:100", ulimits=[limit]) == {"open_files:100": 47}


def test_a_flood_of_output_is_bounded(agent: AgentUnderTest) -> None:
    container = agent.client.containers.run(
        probes.IMAGE,
        ["sh", "-c", "yes 0123456789abcdef | head -c 1000000"],
        detach=True,
        log_config={"Type": "json-file", "Config": {"max-size": "50k", "max-file": "2"}},
    )
    assert container.wait(timeout=60)["StatusCode"] == 0
    container.reload()
    logs = list(Path(container.attrs["LogPath"]).parent.glob("*-json.log*"))
    assert len(logs) == 2 and sum(path.stat().st_size for path in logs) < 250_000


def test_a_health_check_is_confined_like_the_rest(agent: AgentUnderTest) -> None:
    words = ("capabilities", "environment", "descriptors")
    check = {"test": ["CMD", *probes.arguments(*words)], "interval": 10**8}
    container = agent.client.containers.run(
        probes.IMAGE, ["sleep", "1000"], detach=True, hostname="box", healthcheck=check, **probes.options()
    )
    deadline = time.monotonic() + 60
    while not container.attrs["State"].get("Health", {}).get("Log"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        container.reload()
    found = json.loads(container.attrs["State"]["Health"]["Log"][0]["Output"])
    assert found["descriptors"] == ["0", "1", "2"]
    assert sorted(found["environment"]) == ["HOME", "HOSTNAME", "PATH"]
    assert (found["capabilities"]["CapEff"], found["capabilities"]["Seccomp"]) == (CAPABILITIES, "2")


def test_the_name_server_of_all_is_not_confused_by_one(agent: AgentUnderTest) -> None:
    agent.client.networks.create("shop")
    victim = agent.client.containers.run(
        probes.IMAGE, ["sleep", "1000"], detach=True, name="victim", network="shop"
    )
    found = probes.attack(agent, "confuse_names:victim", network="shop")
    victim.reload()
    address = victim.attrs["NetworkSettings"]["Networks"]["shop"]["IPAddress"]
    assert found == {"confuse_names:victim": address}
    code, output = victim.exec_run(["nslookup", "victim", "127.0.0.11"])
    assert code == 0 and address.encode() in output


def test_the_name_server_of_all_is_not_taken_by_one(agent: AgentUnderTest) -> None:
    """By more streams than it serves at all."""
    agent.client.networks.create("shop")
    attacker = agent.client.containers.run(
        probes.IMAGE,
        probes.arguments("crowd_names:600"),
        detach=True,
        network="shop",
        name="attacker",
        **probes.options(),
    )
    assert next(attacker.logs(stream=True, follow=True)).strip() == b"crowded"
    found = probes.attack(agent, "ask_by_stream:attacker", network="shop")
    assert found["ask_by_stream:attacker"] > 30
