"""What Docker's clients ask for, as a spec; and what is refused, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.lowering.container import container_spec
from hawse_agent.api.docker.lowering.limits import resources
from hawse_agent.api.docker.lowering.supervision import restart_policy
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.container import (
    ContainerSpec,
    Device,
    DeviceRate,
    EndpointSpec,
    HealthCheck,
    LogConfig,
    PortMap,
    Resources,
    RestartPolicy,
    Ulimit,
)
from hawse_agent.spec.volume import Mount

MB = 1 << 20


def lowered(*, name: str = "", host: dict[str, Any] | None = None, **config: Any) -> ContainerSpec:
    return container_spec({"Image": "box", "HostConfig": host or {}, **config}, name)


# What `docker run box` (28.2) sends, without change.
CLI = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": True,
    "AttachStderr": True, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None,
    "Image": "box", "Volumes": {}, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
    "HostConfig": {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}},
        "NetworkMode": "default", "PortBindings": {},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False, "VolumeDriver": "",
        "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None, "CapDrop": None, "CgroupnsMode": "",
        "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None, "IpcMode": "",
        "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False,
        "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "",
        "UsernsMode": "", "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
        "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0,
        "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "",
        "Devices": [], "DeviceCgroupRules": None, "DeviceRequests": None, "MemoryReservation": 0,
        "MemorySwap": 0, "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [],
        "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": None,
        "ReadonlyPaths": None,
    },
    "NetworkingConfig": {
        "EndpointsConfig": {
            "default": {
                "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "DriverOpts": None,
                "GwPriority": 0, "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "",
                "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
                "DNSNames": None,
            }
        }
    },
}  # fmt: skip


def test_a_plain_run_asks_for_nothing() -> None:
    assert container_spec(CLI, "") == ContainerSpec(name="", image="box")


def test_the_process() -> None:
    spec = lowered(
        name="/web", Cmd=["a", "b"], Entrypoint=["e"], Env=["A=1=2", "B="], User="1:2", WorkingDir="/w",
        Hostname="h", Domainname="d", Tty=True, OpenStdin=True, StdinOnce=True, StopSignal="USR1",
        StopTimeout=0, Labels={"k": "v"}, host={"GroupAdd": ["3"], "Init": True},
    )  # fmt: skip
    assert spec == ContainerSpec(
        name="web", image="box", command=("a", "b"), entrypoint=("e",), environment={"A": "1=2", "B": ""},
        user="1:2", working_dir="/w", hostname="h", domainname="d", tty=True, stdin_open=True,
        stdin_once=True, stop_signal="USR1", stop_timeout=0, labels={"k": "v"}, group_add=("3",), init=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "entrypoint"), [(None, None), ([], None), ([""], ()), ("sh", ("sh",)), (["a", ""], ("a", ""))]
)
def test_an_empty_entrypoint_takes_the_images_away(given: Any, entrypoint: tuple[str, ...] | None) -> None:
    assert lowered(Entrypoint=given).entrypoint == entrypoint


def test_limits() -> None:
    rate = [{"Path": "/dev/sda", "Rate": 5}]
    asked = {
        "Memory": 64 * MB, "MemorySwap": -1, "MemoryReservation": 32 * MB, "NanoCpus": 500_000_000,
        "CpuShares": 512, "CpusetCpus": "0-1", "CpusetMems": "0", "PidsLimit": 20,
        "BlkioDeviceReadBps": rate, "BlkioDeviceWriteBps": rate,
        "BlkioDeviceReadIOps": rate, "BlkioDeviceWriteIOps": rate,
    }  # fmt: skip
    rates = (DeviceRate(path="/dev/sda", rate=5),)
    assert lowered(host=asked).resources == Resources(
        memory=64 * MB, memory_swap=-1, memory_reservation=32 * MB, cpus=0.5, cpu_shares=512,
        cpuset_cpus="0-1", cpuset_mems="0", pids=20,
        read_bps=rates, write_bps=rates, read_iops=rates, write_iops=rates,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "cpus"),
    [
        ({"CpuQuota": 50_000}, 0.5),
        ({"CpuQuota": 50_000, "CpuPeriod": 25_000}, 2.0),
        ({"CpuQuota": -1}, None),
        ({"CpuPeriod": 50_000}, None),
        ({}, None),
    ],
)
def test_quota_and_period_are_cpus(asked: dict[str, Any], cpus: float | None) -> None:
    assert resources(Fields(asked, "")).cpus == cpus


def test_an_update_changes_what_it_names() -> None:
    now = Resources(memory=8 * MB, pids=5, cpus=1.0)
    assert resources(Fields({"Memory": 0, "CpuShares": 2}, ""), now) == replace(now, cpu_shares=2)
    assert resources(Fields({"PidsLimit": -1, "CpuQuota": -1}, ""), now) == Resources(memory=8 * MB)
    with pytest.raises(InputError, match="smaller than already set memoryswap limit"):
        resources(Fields({"Memory": 9 * MB}, ""), replace(now, memory_swap=8 * MB))


def test_an_update_of_cpus_keeps_to_one_way_of_saying_it() -> None:
    period = resources(Fields({"CpuPeriod": 50_000, "CpuQuota": 20_000}, ""))
    assert period == Resources(cpus=0.4, cpu_period=50_000)
    assert resources(Fields({"CpuQuota": 30_000}, ""), period) == replace(period, cpus=0.6)
    assert resources(Fields({"CpuPeriod": 100_000}, ""), period) == Resources(cpus=0.2, cpu_period=100_000)
    assert resources(Fields({"CpuQuota": 30_000}, "")) == Resources(cpus=0.3, cpu_period=100_000)
    for asked, now, text in (
        ({"NanoCpus": 10**9}, period, "Nano CPUs cannot be updated as CPU Period has already been set"),
        ({"CpuQuota": 5000}, Resources(cpus=1), "CPU Quota cannot be updated as NanoCPUs has already"),
        ({"CpuPeriod": 5000}, Resources(cpus=1), "CPU Period cannot be updated as NanoCPUs has already"),
        ({"CpuPeriod": 999}, Resources(), "cannot be less than 1ms"),
        ({"CpuQuota": 999}, Resources(), "cannot be less than 1ms"),
        ({"CpusetCpus": "x"}, Resources(), "Invalid value x for cpuset cpus"),
        ({"CpusetCpus": "0,9999"}, Resources(), "Requested CPUs are not available - requested 0,9999"),
        ({"CpusetCpus": "0-99999999999"}, Resources(), "Requested CPUs are not available"),
        ({"CpusetCpus": "1-0"}, Resources(), "1-0 goes backwards"),
        ({"CpusetMems": "99"}, Resources(), "Requested memory nodes are not available - requested 99"),
    ):
        with pytest.raises(InputError, match=text):
            resources(Fields(asked, ""), now)


def test_without_a_stop_timeout() -> None:
    assert lowered().stop_timeout is None
    assert lowered(StopTimeout=-1).stop_timeout == -1  # for ever


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"NanoCpus": 1, "CpuQuota": 1}, "Nano CPUs and CPU Period cannot both be set"),
        ({"Memory": -5}, "Memory"),
        ({"NanoCpus": -5}, "NanoCpus"),
        ({"MemorySwap": MB}, "Memory limit when using Memoryswap"),
        ({"Memory": 8 * MB, "MemorySwap": MB}, "should be larger than memory limit"),
        ({"Memory": 8 * MB, "MemoryReservation": 9 * MB}, "larger than memory reservation"),
        ({"Memory": "8m"}, "Memory: expected a whole number"),
        ({"Memory": True}, "Memory: expected a whole number"),
    ],
)
def test_wrong_limits(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        lowered(host=asked)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", Mount(kind="bind", source="/a", target="/b", create_source=True)),
        ("/a:/b:ro", Mount(kind="bind", source="/a", target="/b", create_source=True, read_only=True)),
        (
            "/a:/b:ro,rshared,Z",
            Mount(
                kind="bind",
                source="/a",
                target="/b",
                create_source=True,
                read_only=True,
                propagation="rshared",
            ),
        ),
        (
            "/a:/b:idmap",
            Mount(kind="bind", source="/a", target="/b", create_source=True, map_ids=True),
        ),
        ("data:/b:nocopy", Mount(kind="volume", source="data", target="/b", no_copy=True)),
        ("/b", Mount(kind="volume", target="/b")),
    ],
)
def test_binds(text: str, mount: Mount) -> None:
    assert lowered(host={"Binds": [text]}).mounts == (mount,)


@pytest.mark.parametrize("text", ["a/b:/c", "/a:c", "/a:/", "/a:/b:/c:ro", "/a:/b:fast", "data:/b:idmap"])
def test_wrong_binds(text: str) -> None:
    with pytest.raises(InputError):
        lowered(host={"Binds": [text]})


def test_mounts() -> None:
    spec = lowered(
        host={
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/a",
                    "Target": "/b",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rslave", "CreateMountpoint": True},
                },
                {
                    "Type": "volume",
                    "Source": "data",
                    "Target": "/c",
                    "VolumeOptions": {"NoCopy": True, "Subpath": "sub"},
                },
                {
                    "Type": "tmpfs",
                    "Target": "/d",
                    "TmpfsOptions": {"SizeBytes": MB, "Mode": 0o700},
                },
            ],
            "Tmpfs": {"/e": "rw,noexec,size=2m,mode=755", "/f": ""},
        }
    )
    assert spec.mounts == (
        Mount(
            kind="bind", source="/a", target="/b", read_only=True, create_source=True, propagation="rslave"
        ),
        Mount(kind="volume", source="data", target="/c", no_copy=True, subpath="sub"),
        Mount(kind="tmpfs", target="/d", tmpfs_size=MB, tmpfs_mode=0o700),
        Mount(kind="tmpfs", target="/e", tmpfs_size=2 * MB, tmpfs_mode=0o755, tmpfs_options=("noexec",)),
        Mount(kind="tmpfs", target="/f"),
    )


def test_a_volume_of_the_config_is_anonymous_unless_it_is_bound() -> None:
    spec = lowered(Volumes={"/a": {}, "/b/": {}}, host={"Binds": ["data:/b"]})
    assert spec.mounts == (
        Mount(kind="volume", source="data", target="/b"),
        Mount(kind="volume", target="/a"),
    )


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ({"Type": "npipe", "Target": "/b"}, "mount type 'npipe' is not supported"),
        ({"Type": "bind", "Source": "a", "Target": "/b"}, "invalid mount path"),
        ({"Type": "bind", "Source": "/a", "Target": "b"}, "must be absolute"),
        (
            {
                "Type": "bind",
                "Source": "/a",
                "Target": "/b",
                "BindOptions": {"Propagation": "sideways"},
            },
            "propagation",
        ),
        (
            {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"NonRecursive": True}},
            "BindOptions.NonRecursive",
        ),
        ({"Type": "tmpfs", "Source": "/a", "Target": "/b"}, "field Source"),
        ({"Type": "volume", "Target": "/b", "TmpfsOptions": {"SizeBytes": 1}}, "TmpfsOptions"),
    ],
)
def test_wrong_mounts(mount: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        lowered(host={"Mounts": [mount]})


def test_two_mounts_at_one_place() -> None:
    with pytest.raises(InputError, match="Duplicate mount point: /b"):
        lowered(host={"Binds": ["/a:/b", "data:/b/"]})


def test_ports() -> None:
    spec = lowered(
        ExposedPorts={"80/tcp": {}, "53/udp": {}},
        host={
            "PortBindings": {
                "80/tcp": [
                    {"HostIp": "0.0.0.0", "HostPort": "8080"},
                    {"HostIp": "127.0.0.1", "HostPort": ""},
                ],
                "53/udp": None,
            },
            "PublishAllPorts": True,
        },
    )
    assert spec.ports == (
        PortMap(container_port=80, host_port=8080),
        PortMap(container_port=80, host_ip="127.0.0.1"),
        PortMap(container_port=53, protocol="udp"),
    )
    assert (spec.expose, spec.publish_all) == (("80/tcp", "53/udp"), True)


@pytest.mark.parametrize(
    ("port", "host_port", "text"),
    [
        ("80/tcp", "8010-8000", "invalid port"),
        ("80/tcp", "0-5", "invalid port"),
        ("80/tcp", "70000", "invalid port"),
        ("80/tcp", "x", "invalid port"),
        ("0/tcp", "", "invalid port"),
        ("x", "", "invalid port"),
        ("80/sctp", "", "sctp"),
    ],
)
def test_wrong_ports(port: str, host_port: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        lowered(host={"PortBindings": {port: [{"HostIp": "", "HostPort": host_port}]}})


@pytest.mark.parametrize(
    ("mode", "endpoints", "expected"),
    [
        ("", {}, ("default", ())),
        ("default", {"default": {}}, ("default", ())),
        ("host", {"host": {}}, ("host", ())),
        ("shop", {"shop": None}, ("shop", ())),
        (
            "shop",
            {"shop": {"Aliases": ["web"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}, "back": {}},
            (
                "shop",
                (
                    EndpointSpec(network="shop", aliases=("web",), ipv4="10.0.0.9"),
                    EndpointSpec(network="back"),
                ),
            ),
        ),
        ("container:web", {}, ("container:web", ())),
    ],
)
def test_networks(mode: str, endpoints: dict[str, Any], expected: Any) -> None:
    spec = lowered(host={"NetworkMode": mode}, NetworkingConfig={"EndpointsConfig": endpoints})
    assert (spec.network_mode, spec.networks) == expected


def test_a_mac_address_is_the_first_networks() -> None:
    spec = lowered(
        host={"NetworkMode": "shop"},
        NetworkingConfig={"EndpointsConfig": {"shop": {}, "back": {}}},
        MacAddress="02:00:00:00:00:01",
    )
    assert [endpoint.mac for endpoint in spec.networks] == ["02:00:00:00:00:01", ""]


@pytest.mark.parametrize(
    ("mode", "endpoints", "text"),
    [
        ("default", {"default": {"Aliases": ["a"]}}, "only supported for user-defined networks"),
        ("bridge", {"bridge": {"Links": ["a:b"]}}, "only supported for user-defined networks"),
        ("shop", {"shop": {"GwPriority": 1}}, "GwPriority is not supported"),
        ("shop", {"shop": {"IPAMConfig": {"IPv6Address": "fd::1"}}}, "IPv6Address is not supported"),
        ("host", {"host": {"Aliases": ["a"]}}, "host"),
        ("container:web", {"shop": {}}, "container:web"),
    ],
)
def test_wrong_networks(mode: str, endpoints: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        lowered(host={"NetworkMode": mode}, NetworkingConfig={"EndpointsConfig": endpoints})


@pytest.mark.parametrize(
    ("given", "health"),
    [
        (None, None),
        ({"Test": ["NONE"]}, HealthCheck(test=("NONE",))),
        (
            {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 5 * 10**8, "Retries": 2},
            HealthCheck(test=("CMD", "true"), interval=1, timeout=0.5, retries=2),
        ),
        (
            {"Test": ["CMD-SHELL", "x"], "StartPeriod": 10**9, "StartInterval": 10**9},
            HealthCheck(test=("CMD-SHELL", "x"), start_period=1, start_interval=1),
        ),
        (
            {"Interval": 10**9},
            HealthCheck(test=(), interval=1, timeout=0, start_interval=0, retries=0),
        ),
    ],
)
def test_health(given: dict[str, Any] | None, health: HealthCheck | None) -> None:
    assert lowered(Healthcheck=given).health == health


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, RestartPolicy()),
        ({"Name": "always"}, RestartPolicy(mode="always")),
        ({"Name": "on-failure", "MaximumRetryCount": 3}, RestartPolicy(mode="on-failure", max_retries=3)),
    ],
)
def test_restart_policies(given: dict[str, Any], policy: RestartPolicy) -> None:
    assert restart_policy(Fields(given, "")) == policy


def test_logs_devices_and_ulimits() -> None:
    spec = lowered(
        host={
            "LogConfig": {"Type": "local", "Config": {"max-size": "20k", "max-file": "5"}},
            "Devices": [
                {"PathOnHost": "/dev/fuse", "PathInContainer": "", "CgroupPermissions": ""},
                {"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"},
            ],
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        }
    )
    assert spec.log == LogConfig(driver="local", max_size=20480, max_files=5)
    assert spec.devices == (
        Device(host="/dev/fuse", target="/dev/fuse"),
        Device(host="/dev/null", target="/dev/x", access="r"),
    )
    assert spec.ulimits == (Ulimit(name="nofile", soft=10, hard=20),)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["no-new-privileges"], (True, "default")),
        (["no-new-privileges:false"], (False, "default")),
        (["seccomp=unconfined"], (False, "unconfined")),
        (["seccomp=builtin"], (False, "default")),
        (["seccomp:unconfined", "no-new-privileges=true"], (True, "unconfined")),
        (['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'], (False, '{"defaultAction":"SCMP_ACT_ALLOW"}')),
    ],
)
def test_security_options(options: list[str], expected: tuple[bool, str]) -> None:
    spec = lowered(host={"SecurityOpt": options})
    assert (spec.no_new_privileges, spec.seccomp) == expected


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"OomKillDisable": True}, "HostConfig.OomKillDisable is not supported"),
        ({"CgroupParent": "/x"}, "HostConfig.CgroupParent is not supported"),
        ({"DeviceRequests": [{"Driver": ""}]}, "HostConfig.DeviceRequests is not supported"),
        ({"MemorySwappiness": 10}, "HostConfig.MemorySwappiness is not supported"),
        ({"MemorySwappiness": 0}, "HostConfig.MemorySwappiness is not supported"),
        ({"Isolation": "hyperv"}, "HostConfig.Isolation is not supported"),
        ({"Runtime": "runsc"}, "HostConfig.Runtime is not supported"),
        ({"UsernsMode": "keep-id"}, "UsernsMode 'keep-id' is not supported: host and auto are"),
        ({"CgroupnsMode": "host"}, "CgroupnsMode host is not supported"),
        ({"SecurityOpt": ["apparmor=x"]}, "apparmor"),
        ({"LogConfig": {"Type": "syslog"}}, "log driver 'syslog' is not supported"),
        ({"LogConfig": {"Config": {"compress": "true"}}}, "log option 'compress'"),
        ({"VolumeDriver": "nfs"}, "volume drivers other than local"),
        ({"NoSuchField": {"a": 1}}, "HostConfig.NoSuchField is not supported"),
    ],
)
def test_refused_by_name(host: dict[str, Any], text: str) -> None:
    with pytest.raises(NotSupported, match=text):
        lowered(host=host)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"Image": ""}, "no image"),
        ({"Env": ["=x"]}, "invalid environment variable"),
        ({"Cmd": [1]}, "Cmd: expected a list of texts"),
        ({"Tty": "yes"}, "Tty: expected true or false"),
        ({"NetworkDisabled": True}, "NetworkDisabled is not supported"),
        ({"Healthcheck": {"Test": ["SOMETIMES"]}}, "Unknown healthcheck type"),
        ({"Healthcheck": {"Retries": -2}}, "Retries in Healthcheck cannot be negative"),
        ({"Healthcheck": {"StartPeriod": 1000}}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"HostConfig": {"Links": ["a:b"], "NetworkMode": "host"}}, "can't be used with links"),
        ({"HostConfig": {"Links": [":b"]}}, "bad format for links: :b"),
        ({"HostConfig": {"ShmSize": -1}}, "ShmSize: -1: SHM size can not be less than 0"),
        ({"HostConfig": {"OomScoreAdj": 2000}}, r"range for oom score adj is \[-1000, 1000\]"),
        ({"HostConfig": {"NanoCpus": 10**15}}, "range of CPUs is from 0.01 to"),
        ({"HostConfig": {"MaskedPaths": ["proc"]}}, "'proc' is not an absolute path"),
        ({"HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}, "--restart and --rm"),
        ({"HostConfig": {"RestartPolicy": {"Name": "often"}}}, "unknown policy 'often'"),
        (
            {"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}}},
            "only be used with 'on-failure'",
        ),
        ({"HostConfig": {"NetworkMode": "container:a"}, "Hostname": "h"}, "conflicting options"),
        ({"HostConfig": []}, "HostConfig: expected an object"),
    ],
)
def test_wrong(config: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        container_spec({"Image": "box", **config}, "")


def test_a_body_that_is_no_object() -> None:
    with pytest.raises(InputError, match="expected an object"):
        container_spec([], "")


def test_what_dockerd_takes_without_meaning_is_taken() -> None:
    spec = lowered(
        ExposedPorts={"80-82/udp": {}, "90/TCP": {}},
        host={
            "Binds": ["/a:/b:delegated", "/c:/d:"],
            "Tmpfs": {"/t": "defaults,mode=01777"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1.5MiB"}},
        },
    )
    assert spec.expose == ("80/udp", "81/udp", "82/udp", "90/tcp")
    assert [(mount.source, mount.target) for mount in spec.mounts[:2]] == [("/a", "/b"), ("/c", "/d")]
    assert spec.mounts[2] == Mount(kind="tmpfs", target="/t")
    assert spec.log.max_size == 3 << 19


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/a:/b:nocopy"]},
        {"Binds": ["/a:/b:ro,rw"]},
        {"Binds": ["/a:/b:ro,ro"]},
        {"Tmpfs": {"/t": "mode=99"}},
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "0.1b"}}},
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1x"}}},
    ],
)
def test_words_that_contradict_or_mean_nothing_here_are_refused(host: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        lowered(host=host)


def test_backward_range_of_ports_is_refused() -> None:
    with pytest.raises(InputError, match="goes backwards"):
        lowered(ExposedPorts={"90-80": {}})
