"""What a spec may say: a wrong field is refused by its name before anything is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hawse_agent.engine import checks, resolve
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.linux import mount as attributes
from hawse_agent.runtime import tmpfs as mounted
from hawse_agent.spec import tmpfs
from hawse_agent.spec.container import (
    ContainerSpec,
    Device,
    DeviceRate,
    EndpointSpec,
    PortMap,
    Resources,
    Ulimit,
)
from hawse_agent.spec.volume import Mount

PLAIN = ContainerSpec(name="c", image="i")


def tmpfs_with(*options: str) -> tuple[Mount, ...]:
    return (Mount(kind="tmpfs", target="/t", tmpfs_options=options),)


RIGHT: dict[str, list[Any]] = {
    "hostname": ["h", "web-1", "a.b.c", "UPPER_case", "x" * 64, "1"],
    "domainname": ["example.com"],
    "dns": [("1.1.1.1", "::1", "fe80::1")],
    "dns_search": [(".",), ("example.com", "a_b.c", "corp."), (".x",)],
    "dns_options": [("ndots:2", "use-vc", "timeout:3", "edns0")],
    "extra_hosts": [("a:1.2.3.4", "b.c:::1", "d:[::1]", "e_f:host-gateway")],
    "links": [("db", "db:alias")],
    "pid_mode": ["", "host", "container:a"],
    "ipc_mode": ["", "host", "none", "private", "shareable", "container:a"],
    "uts_mode": ["", "host"],
    "cap_add": [("NET_ADMIN", "cap_sys_time", "ALL")],
    "sysctls": [{"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "fs.mqueue.msg_max": "5"}],
    "ulimits": [(Ulimit(name="nofile", soft=1, hard=1), Ulimit(name="core", soft=5, hard=-1))],
    "devices": [(Device(host="/dev/null", target="/dev/x", access="mrw"),)],
    "ports": [(PortMap(container_port=1, host_ip="127.0.0.1"),)],
    "networks": [(EndpointSpec(network="n", ipv4="10.0.0.1", mac="02:00:00:00:00:01", aliases=("a_b.c",)),)],
    "mounts": [
        tmpfs_with("rw", "exec", "suid", "dev", "noatime", "nodiratime", "uid=5", "gid=6"),
        tmpfs_with("size=50%", "nr_inodes=1k", "nr_blocks=9"),
        (Mount(kind="volume", target="/v", subpath="a/b"),),
    ],
    "resources": [Resources(memory_swap=-1, memory=1 << 30, pids=1 << 22, cpu_shares=2)],
}


@pytest.mark.parametrize("field", RIGHT)
def test_what_is_right_is_taken(field: str) -> None:
    for value in RIGHT[field]:
        checks.check(replace(PLAIN, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("hostname", "a\nb", r"^Hostname: invalid name 'a\\nb': expected at most 64 of"),
        ("hostname", "a b", "^Hostname: invalid name 'a b'"),
        ("hostname", "x" * 65, "^Hostname: invalid name"),
        ("hostname", "é", "^Hostname"),
        ("hostname", "-a", "^Hostname"),
        ("domainname", "a\n127.0.0.1 evil", "^Domainname: invalid name"),
        ("dns", ("1.1.1.1\noptions x",), r"^Dns: '1.1.1.1\\noptions x' is not an ip address"),
        ("dns", ("ns.example.com",), "^Dns: 'ns.example.com' is not an ip address"),
        ("dns", ("fe80::1%eth0",), "^Dns"),
        ("dns", ("\u0661.1.1.1",), "^Dns"),
        ("dns_search", ("a b",), "^DnsSearch: 'a b' is not a valid domain"),
        ("dns_search", ("a\nnameserver 6.6.6.6",), "^DnsSearch: .* is not a valid domain"),
        ("dns_search", ("",), "^DnsSearch"),
        ("dns_options", ("ndots:1\nnameserver 6.6.6.6",), "^DnsOptions: .* is not an option of resolv.conf"),
        ("dns_options", ("ndots: 1",), "^DnsOptions"),
        ("extra_hosts", ("a",), '^ExtraHosts: bad format for add-host: "a": expected NAME:ADDRESS'),
        ("extra_hosts", (":1.1.1.1",), "^ExtraHosts: bad format for add-host"),
        ("extra_hosts", ("a b:1.1.1.1",), "^ExtraHosts: bad format for add-host"),
        ("extra_hosts", ("a:b",), '^ExtraHosts: invalid IP address in add-host: "b"'),
        ("extra_hosts", ("a:1.1.1.1\n6.6.6.6 bank",), "^ExtraHosts: invalid IP address in add-host"),
        ("links", ("db:a\nb",), "^Links: bad format for links"),
        ("pid_mode", "private", "^PidMode: invalid PID mode: private"),
        ("pid_mode", "container:", "^PidMode: invalid container format container:<name|id>"),
        ("ipc_mode", "x", "^IpcMode: invalid IPC mode: x"),
        ("uts_mode", "container:a", "^UTSMode: invalid UTS mode: container:a"),
        ("cap_add", ("NET_ADMIN", "FLY"), '^invalid CapAdd: unknown capability: "CAP_FLY"'),
        ("cap_drop", ("CAP_",), '^invalid CapDrop: unknown capability: "CAP_"'),
        ("sysctls", {"kernel.hostname": "x"}, "^Sysctls: sysctl 'kernel.hostname' is not allowed"),
        ("sysctls", {"net/../kernel.x": "x"}, "^Sysctls: sysctl .* is not a name"),
        ("sysctls", {"net.": "x"}, "^Sysctls: sysctl .* is not a name"),
        ("ulimits", (Ulimit(name="nofiles", soft=1, hard=1),), "^Ulimits: invalid ulimit type: 'nofiles'"),
        (
            "ulimits",
            (Ulimit(name="nofile", soft=5, hard=1),),
            "^Ulimits: nofile: ulimit soft limit must be less than or equal to hard limit: 5 > 1",
        ),
        ("ulimits", (Ulimit(name="core", soft=-1, hard=1),), "less than or equal to hard limit: -1 > 1"),
        ("ulimits", (Ulimit(name="core", soft=-2, hard=1),), "^Ulimits: core: Soft: -2: expected"),
        ("devices", (Device(host="/dev/null", target="/x", access="x"),), "^Devices.CgroupPermissions: 'x'"),
        ("devices", (Device(host="/dev/null", target="/x", access="rr"),), "^Devices.CgroupPermissions"),
        ("devices", (Device(host="null", target="/x"),), "^Devices.PathOnHost: 'null'"),
        ("devices", (Device(host="/dev/null", target="/."),), "^Devices.PathInContainer"),
        ("ports", (PortMap(container_port=80, host_ip="localhost"),), "invalid host address localhost"),
        (
            "networks",
            (EndpointSpec(network="n", ipv4="::1"),),
            "^IPAMConfig.IPv4Address: invalid IPv4 address",
        ),
        ("networks", (EndpointSpec(network="n", mac="x"),), "invalid MAC address x"),
        ("networks", (EndpointSpec(network="n", aliases=("a\nb",)),), "^Aliases: invalid alias"),
        ("networks", (EndpointSpec(network="n", links=("a:b c",)),), "^Links: bad format"),
        ("mounts", (Mount(kind="volume", target="/."),), "destination can't be '/'"),
        ("mounts", (Mount(kind="volume", target="/a/.."),), "destination can't be '/'"),
        ("mounts", (Mount(kind="volume", target="a"),), "mount path must be absolute"),
        ("mounts", (Mount(kind="volume", target="/a", subpath="../b"),), "must be a relative path within"),
        ("mounts", (Mount(kind="tmpfs", target="/a", tmpfs_mode=0o10000),), "a mode up to 07777"),
        ("mounts", tmpfs_with("fast"), r'^Tmpfs: invalid tmpfs option \["fast"'),
        ("mounts", tmpfs_with("size=²"), r'^Tmpfs: invalid tmpfs option \["size=²"'),
        ("mounts", tmpfs_with("size=5z"), r'^Tmpfs: invalid tmpfs option \["size=5z"'),
        ("mounts", tmpfs_with("uid=root"), r'^Tmpfs: invalid tmpfs option \["uid=root"'),
        ("mounts", tmpfs_with("exec=1"), r'^Tmpfs: invalid tmpfs option \["exec=1"'),
        ("mounts", tmpfs_with("huge=always"), "^tmpfs option 'huge' is not supported"),
        ("resources", Resources(memory_swap=-5), "^MemorySwap: -5: expected a size, or -1"),
        ("resources", Resources(cpu_shares=1), "^CpuShares: 1: expected a number from 2 to 262144"),
        ("resources", Resources(pids=1 << 23), "^PidsLimit: 8388608: expected at most 4194304"),
        (
            "resources",
            Resources(read_bps=(DeviceRate(path="/dev/null", rate=5),)),
            "^BlkioDeviceReadBps: /dev/null is not a block device",
        ),
        (
            "resources",
            Resources(write_iops=(DeviceRate(path="/no/such", rate=5),)),
            "^BlkioDeviceWriteIOps: no such device: '/no/such'",
        ),
        (
            "resources",
            Resources(write_bps=(DeviceRate(path="/dev/sda", rate=0),)),
            "^BlkioDeviceWriteBps: invalid rate for device /dev/sda: 0",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_name(field: str, value: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        checks.check(replace(PLAIN, **{field: value}))


@pytest.mark.parametrize(
    ("sysctl", "modes", "namespace"),
    [
        ("net.ipv4.ip_forward", {"network_mode": "host"}, "network"),
        ("net.ipv4.ip_forward", {"network_mode": "container:a"}, "network"),
        ("kernel.shmmax", {"ipc_mode": "host"}, "IPC"),
        ("fs.mqueue.msg_max", {"ipc_mode": "container:a"}, "IPC"),
    ],
)
def test_sysctls_of_a_shared_namespace(sysctl: str, modes: dict[str, Any], namespace: str) -> None:
    with pytest.raises(InputError, match=f"is not allowed without an own {namespace} namespace"):
        checks.check(replace(PLAIN, sysctls={sysctl: "1"}, **modes))


def test_hosts_have_one_address_each() -> None:
    spec = replace(PLAIN, extra_hosts=("a:1.2.3.4", "b:::1", "c:[::2]", "d:host-gateway"))
    lines = resolve.hosts_file(spec, "h", [], "10.0.0.1", None).splitlines()
    assert lines[-4:] == ["1.2.3.4\ta", "::1\tb", "::2\tc", "10.0.0.1\td"]


def test_flags_of_a_tmpfs_are_attributes_of_its_mount() -> None:
    assert set(mounted.FLAGS) == tmpfs.FLAGS
    assert mounted.parsed(()) == (mounted.DEFAULTS, ())
    assert mounted.parsed(("exec", "suid", "dev", "uid=5")) == (0, ("uid=5",))
    assert mounted.parsed(("noatime", "relatime"))[0] == mounted.DEFAULTS
    assert mounted.parsed(("strictatime", "noatime", "ro"))[0] == (
        mounted.DEFAULTS | attributes.MOUNT_ATTR_NOATIME | attributes.MOUNT_ATTR_RDONLY
    )


@pytest.mark.parametrize("name", ["²", "0", "65", "9" * 5000, "RTMIN+99", "RTMAX+1", "SIG", "RTMIN+²", "-1"])
def test_what_is_no_signal(name: str) -> None:
    with pytest.raises(InputError, match="Invalid signal"):
        resolve.signal_number(name)


@pytest.mark.parametrize(
    ("name", "number"), [("", 15), ("9", 9), ("usr1", 10), ("SIGRTMIN+1", 35), ("RTMAX-1", 63)]
)
def test_signals(name: str, number: int) -> None:
    assert resolve.signal_number(name) == number


def test_not_done_and_wrong_are_different_answers() -> None:
    with pytest.raises(NotSupported):
        tmpfs.check(["mpol=bind"])
