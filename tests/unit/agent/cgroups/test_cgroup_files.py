"""What is written into and read from cgroup files, on directories that only look like cgroups.

xattrs of `trusted.` need root: a plain user's run leaves the remembered values out, and the parsers show.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hawse_agent.cgroups import base as base_module
from hawse_agent.cgroups import device_rules
from hawse_agent.cgroups.base import Base
from hawse_agent.cgroups.limits import Limit
from hawse_agent.cgroups.v1 import CgroupV1
from hawse_agent.cgroups.v2 import CgroupV2, shares_of, weight_of
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.paths import paths_for
from hawse_agent.spec import codec
from hawse_agent.spec.container import Device, DeviceRate, Resources

V1_FILES = {
    "memory.limit_in_bytes": "9223372036854771712",
    "memory.memsw.limit_in_bytes": "9223372036854771712",
    "memory.soft_limit_in_bytes": "9223372036854771712",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3",
    "memory.usage_in_bytes": "4096",
    "memory.stat": "cache 12\nrss 34",
    "cpu.cfs_quota_us": "-1",
    "cpu.shares": "1024",
    "cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 700",
    "cpuacct.usage": "9000",
    "cpuacct.usage_percpu": "4000 5000 ",
    "cpuset.cpus": "0-3",
    "cpuset.mems": "0",
    "pids.max": "max",
    "pids.current": "7",
    "blkio.throttle.read_bps_device": "",
    "blkio.throttle.write_bps_device": "",
    "blkio.throttle.read_iops_device": "",
    "blkio.throttle.write_iops_device": "",
    "blkio.throttle.io_service_bytes_recursive": "254:0 Read 100\n254:0 Write 200\nTotal 300",
}
V2_FILES = {
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.low": "0",
    "memory.current": "8192",
    "memory.events": "low 0\nmax 4\noom 1\noom_kill 2",
    "cpu.max": "max 100000",
    "cpu.weight": "100",
    "cpu.stat": "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 3",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "pids.max": "max",
    "pids.current": "1",
    "io.max": "8:0 rbps=1024 wbps=max riops=max wiops=5",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0",
}


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """tmpfs and plain users have no trusted xattrs; tests/engine shows the real thing."""
    monkeypatch.setattr(Limit, "_remember", lambda self, asked: None)
    monkeypatch.setattr(Limit, "_remembered", lambda self: (None, None))


def fill(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text + "\n")


def v1(tmp_path: Path) -> CgroupV1:
    fill(tmp_path / "base", {"cpuset.cpus": "0-3", "cpuset.mems": "0"})
    fill(tmp_path / "base/c", V1_FILES)
    controllers = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "freezer", "devices")
    return CgroupV1("c", dict.fromkeys(controllers, str(tmp_path / "base/c")))


def v2(tmp_path: Path) -> CgroupV2:
    fill(tmp_path / "c", V2_FILES)
    return CgroupV2("c", {"unified": str(tmp_path / "c")})


def test_v1_without_limits(tmp_path: Path) -> None:
    assert v1(tmp_path).limits() == Resources()


def test_v2_without_limits(tmp_path: Path) -> None:
    cgroup = v2(tmp_path)
    Path(cgroup.path, "io.max").write_text("")
    assert cgroup.limits() == Resources()


@pytest.mark.parametrize(
    ("file", "text", "field", "value"),
    [
        ("memory.limit_in_bytes", "67108864", "memory", 67108864),
        ("memory.soft_limit_in_bytes", "4096", "memory_reservation", 4096),
        ("cpu.cfs_quota_us", "150000", "cpus", 1.5),
        ("cpu.cfs_period_us", "50000", "cpu_period", 50_000),
        ("cpu.shares", "512", "cpu_shares", 512),
        ("cpuset.cpus", "1", "cpuset_cpus", "1"),
        ("pids.max", "10", "pids", 10),
    ],
)
def test_v1_reads_what_somebody_else_set(
    tmp_path: Path, file: str, text: str, field: str, value: object
) -> None:
    cgroup = v1(tmp_path)
    Path(cgroup.paths[0], "cpu.cfs_period_us").write_text("100000")
    Path(cgroup.paths[0], file).write_text(text)
    assert getattr(cgroup.limits(), field) == value


def test_v1_swap_is_unlimited_only_beside_a_memory_limit(tmp_path: Path) -> None:
    cgroup = v1(tmp_path)
    assert cgroup.limits().memory_swap is None
    Path(cgroup.paths[0], "memory.limit_in_bytes").write_text("4096")
    assert cgroup.limits().memory_swap == -1


def test_v2_swap_is_counted_with_memory(tmp_path: Path) -> None:
    cgroup = v2(tmp_path)
    Path(cgroup.path, "memory.max").write_text("1000")
    Path(cgroup.path, "memory.swap.max").write_text("500")
    assert (cgroup.limits().memory, cgroup.limits().memory_swap) == (1000, 1500)


def test_v2_devices_share_a_file(tmp_path: Path) -> None:
    limits = v2(tmp_path).limits()
    assert [rate.rate for rate in limits.read_bps] == [1024]
    assert [rate.rate for rate in limits.write_iops] == [5]
    assert (limits.write_bps, limits.read_iops) == ((), ())


def test_missing_swap_accounting_is_a_warning(tmp_path: Path) -> None:
    cgroup = v1(tmp_path)
    Path(cgroup.paths[0], "memory.memsw.limit_in_bytes").unlink()
    cgroup.set_limits(Resources(memory=4096, memory_swap=8192))
    assert cgroup.warnings == ("this kernel does not limit memory_swap: it is left unlimited",)


def test_missing_controller_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "c", V1_FILES)
    with pytest.raises(NotSupported, match="cannot limit pids"):
        CgroupV1("c", {"memory": str(tmp_path / "c")}).set_limits(Resources(pids=5))


def test_rate_of_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such device: /dev/nothing"):
        v1(tmp_path).set_limits(Resources(read_bps=(DeviceRate(path="/dev/nothing", rate=1),)))


def test_v1_stats(tmp_path: Path) -> None:
    stats = v1(tmp_path).stats()
    assert (stats.cpu_total_ns, stats.cpu_percpu_ns, stats.throttled_ns) == (9000, (4000, 5000), 700)
    assert (stats.memory_usage, stats.memory_limit, stats.memory_stat) == (4096, 0, {"cache": 12, "rss": 34})
    assert (stats.pids_current, stats.pids_limit) == (7, 0)
    assert [(io.major, io.operation, io.value) for io in stats.blkio_bytes] == [
        (254, "Read", 100),
        (254, "Write", 200),
    ]
    assert v1(tmp_path).oom_kills() == 3


def test_v2_stats(tmp_path: Path) -> None:
    stats = v2(tmp_path).stats()
    assert (stats.cpu_total_ns, stats.cpu_user_ns, stats.memory_usage) == (10_000, 6_000, 8192)
    assert [(io.operation, io.value) for io in stats.blkio_operations] == [("Read", 1), ("Write", 2)]
    assert (v2(tmp_path).oom_kills(), stats.memory_failures) == (2, 4)


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000)])
def test_weight_meets_shares_at_minimum_default_and_maximum(shares: int, weight: int) -> None:
    assert weight_of(shares) == weight
    assert weight_of(shares_of(weight)) == weight


def test_v2_writes(tmp_path: Path) -> None:
    cgroup = v2(tmp_path)
    for name in V2_FILES:
        Path(cgroup.path, name).write_text("")
    cgroup.set_limits(Resources(memory=1000, memory_swap=3000, cpus=0.25, cpu_shares=2048, pids=9))
    said = {name: Path(cgroup.path, name).read_text() for name in V2_FILES}
    assert {name: text for name, text in said.items() if text} == {
        "memory.max": "1000",
        "memory.swap.max": "2000",
        "cpu.max": "25000 100000",
        "cpu.weight": str(weight_of(2048)),
        "pids.max": "9",
    }


def test_device_rules() -> None:
    rules = [
        str(rule) for rule in device_rules((Device(host="/dev/null", target="/dev/x", access="r"),), False)
    ]
    assert rules[0] == "c *:* m"
    assert rules[-1] == "c 1:3 r"
    assert [str(rule) for rule in device_rules((), True)] == ["a *:* rwm"]


def test_base_is_remembered(tmp_path: Path) -> None:
    paths = paths_for(tmp_path)
    directory = tmp_path / "cgroup/hawse"
    fill(directory, {"cgroup.procs": ""})
    known = Base(version=2, hierarchies={"unified": str(directory)})
    paths.cgroup_base.parent.mkdir(parents=True)
    paths.cgroup_base.write_text(codec.dumps(known))
    assert base_module.find_base(paths) == known


@pytest.mark.parametrize(
    ("own", "parents"),
    [
        ("/cg/system.slice/hawse-agent.service/daemon", ["/cg/system.slice/hawse-agent.service", "/cg"]),
        ("/cg/system.slice/hawse-agent.service", ["/cg/system.slice", "/cg"]),
        ("/cg/user.slice/session-1.scope", ["/cg/user.slice/session-1.scope", "/cg"]),
        ("/cg", ["/cg"]),
    ],
)
def test_v2_places(own: str, parents: list[str]) -> None:
    assert base_module.v2_parents(own, "/cg") == parents
