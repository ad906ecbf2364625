"""Facts about this host, under Ansible's names, read from files: no program is run, nothing is waited for."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import platform
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hawse_agent import __version__
from hawse_agent.paths import Paths

_FAMILIES = {
    "Debian": ("debian", "ubuntu", "linuxmint", "raspbian", "kali"),
    "RedHat": ("rhel", "centos", "fedora", "rocky", "almalinux", "ol", "amzn"),
    "Suse": ("opensuse", "sles", "suse"),
    "Alpine": ("alpine",),
    "Archlinux": ("arch", "manjaro"),
}
_NAMES = {
    "almalinux": "AlmaLinux",
    "amzn": "Amazon",
    "arch": "Archlinux",
    "centos": "CentOS",
    "ol": "OracleLinux",
    "opensuse-leap": "openSUSE Leap",
    "opensuse-tumbleweed": "openSUSE Tumbleweed",
    "raspbian": "Raspbian",
    "rhel": "RedHat",
    "sles": "SLES",
}
"""Where Ansible does not just write the ID with a capital."""
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "vfat", "overlay", "tmpfs", "jfs")
"""File systems whose statfs cannot hang on a network."""


def collect(paths: Paths, deadline: float = 2.0) -> dict[str, Any]:
    """`ansible_…` and `hawse_…` names. Mounts that do not answer within `deadline` seconds are left out."""
    facts: dict[str, Any] = {
        "system": platform.system(),
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "architecture": platform.machine(),
        "machine": platform.machine(),
        "python_version": platform.python_version(),
        "python": {"executable": sys.executable, "version": _version_info()},
        **_names(),
        **_distribution(),
        **_processor(),
        **_memory(),
        **_network(),
        **_time(),
        "mounts": _mounts(deadline),
        "env": {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
        "service_mgr": _service_manager(),
        "pkg_mgr": _package_manager(),
        "virtualization_type": _virtualization(),
    }
    found = {f"ansible_{name}": value for name, value in facts.items()}
    found["hawse_agent_version"] = __version__
    found["hawse_instance"] = paths.instance
    found["hawse_cgroup_version"] = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    return found


def _version_info() -> dict[str, int]:
    major, minor, micro = sys.version_info[:3]
    return {"major": major, "minor": minor, "micro": micro}


def _names() -> dict[str, str]:
    node = platform.node()
    name, _, domain = node.partition(".")
    if not domain:
        domain = _domain_from_hosts(node)
    full = f"{name}.{domain}" if domain else name
    return {"hostname": name, "nodename": node, "fqdn": full, "domain": domain}


def _domain_from_hosts(node: str) -> str:
    """Not by DNS, which may hang."""
    for line in _lines("/etc/hosts"):
        for word in line.partition("#")[0].split()[1:]:
            if word.startswith(f"{node}."):
                return word.partition(".")[2]
    return ""


def _distribution() -> dict[str, str]:
    release = dict(_assignments("/etc/os-release"))
    name, version = release.get("ID", "linux"), release.get("VERSION_ID", "")
    like = [name, *release.get("ID_LIKE", "").split()]
    family = next((f for f, names in _FAMILIES.items() if any(n in names for n in like)), name.capitalize())
    if name == "debian":
        version = (_text("/etc/debian_version").strip() or version) if version else version
    return {
        "distribution": _NAMES.get(name, name.capitalize()),
        "distribution_version": version,
        "distribution_major_version": version.partition(".")[0],
        "distribution_release": release.get("VERSION_CODENAME", "NA"),
        "os_family": family,
    }


def _assignments(path: str) -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            yield key, value.strip("'\"")


def _processor() -> dict[str, Any]:
    count = os.cpu_count() or 1
    models = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    return {
        "processor_vcpus": count,
        "processor_nproc": len(os.sched_getaffinity(0)),
        "processor": models[:1],
        "processor_count": 1,
    }


def _memory() -> dict[str, int]:
    values = {}
    for line in _lines("/proc/meminfo"):
        key, _, rest = line.partition(":")
        values[key] = int(rest.split()[0]) // 1024
    return {
        "memtotal_mb": values.get("MemTotal", 0),
        "memfree_mb": values.get("MemFree", 0),
        "memavailable_mb": values.get("MemAvailable", 0),
        "swaptotal_mb": values.get("SwapTotal", 0),
        "swapfree_mb": values.get("SwapFree", 0),
    }


def _network() -> dict[str, Any]:
    interface, gateway = _default_route()
    names = sorted(name for name in os.listdir("/sys/class/net") if os.path.isdir(f"/sys/class/net/{name}"))
    ipv6 = _ipv6_addresses()
    default = {"interface": interface, "gateway": gateway, **_ipv4(interface)} if interface else {}
    return {
        # As in templates: a name that is an identifier. Links of containers are not the host's own.
        **{name.replace("-", "_"): _interface(name, ipv6) for name in names if not _is_peer(name)},
        "interfaces": names,
        "all_ipv4_addresses": _local_addresses(),
        "all_ipv6_addresses": [
            a["address"] for found in ipv6.values() for a in found if a["scope"] != "host"
        ],
        "default_ipv4": default,
    }


def _is_peer(name: str) -> bool:
    """A link whose other end is in another network namespace, or is another link: `iflink` differs."""
    about = f"/sys/class/net/{name}"
    return _text(f"{about}/iflink") != _text(f"{about}/ifindex") and name.startswith("veth")


def _interface(name: str, ipv6: Mapping[str, list[dict[str, str]]]) -> dict[str, Any]:
    about = f"/sys/class/net/{name}"
    found: dict[str, Any] = {
        "device": name,
        "active": _text(f"{about}/operstate").strip() in ("up", "unknown"),
        "macaddress": _text(f"{about}/address").strip(),
        "mtu": int(_text(f"{about}/mtu") or 0),
    }
    if ipv4 := _ipv4(name):
        found["ipv4"] = ipv4
    if name in ipv6:
        found["ipv6"] = ipv6[name]
    return found


def _ipv4(interface: str) -> dict[str, str]:
    """The first address, by the ioctls of netdevice(7); empty when there is none."""
    request = struct.pack("16s24x", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            address, mask = (
                ipaddress.IPv4Address(fcntl.ioctl(sock.fileno(), call, request)[20:24])
                for call in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            )
        except OSError:  # it has none
            return {}
    network = ipaddress.IPv4Network(f"{address}/{mask}", strict=False)
    return {
        "address": str(address),
        "netmask": str(mask),
        "network": str(network.network_address),
        "prefix": str(network.prefixlen),
    }


def _ipv6_addresses() -> dict[str, list[dict[str, str]]]:
    scopes = {"00": "global", "10": "host", "20": "link", "40": "site"}
    found: dict[str, list[dict[str, str]]] = {}
    for line in _lines("/proc/net/if_inet6"):
        digits, _, prefix, scope, _, name = line.split()
        address = str(ipaddress.IPv6Address(int(digits, 16)))
        about = {"address": address, "prefix": str(int(prefix, 16)), "scope": scopes.get(scope, scope)}
        found.setdefault(name, []).append(about)
    return found


def _local_addresses() -> list[str]:
    """Every address that this host takes for its own, without loopback."""
    found: dict[str, None] = {}
    address = ""
    for line in _lines("/proc/net/fib_trie"):
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and not address.startswith("127."):
            found[address] = None
    return list(found)


def _default_route() -> tuple[str, str]:
    for line in _lines("/proc/net/route")[1:]:
        fields = line.split()
        if fields[1] == "00000000" and int(fields[3], 16) & 2:
            return fields[0], socket.inet_ntoa(struct.pack("<L", int(fields[2], 16)))
    return "", ""


def _time() -> dict[str, Any]:
    now = datetime.now(UTC)
    local = now.astimezone()
    return {
        "date_time": {
            "iso8601": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "epoch": str(int(now.timestamp())),
            "date": local.strftime("%Y-%m-%d"),
            "time": local.strftime("%H:%M:%S"),
            "tz": time.tzname[0],
            "year": local.strftime("%Y"),
            "month": local.strftime("%m"),
            "day": local.strftime("%d"),
            "hour": local.strftime("%H"),
            "minute": local.strftime("%M"),
            "second": local.strftime("%S"),
            "weekday": local.strftime("%A"),
        },
        "uptime_seconds": int(float(_text("/proc/uptime").split()[0])),
    }


def _mounts(deadline: float) -> list[dict[str, Any]]:
    """In a thread of its own: a dead disk makes statfs wait for ever."""
    found: list[dict[str, Any]] = []

    def look() -> None:
        seen = set()
        for line in _lines("/proc/self/mounts"):
            device, where, kind, options = (
                word.encode().decode("unicode_escape") for word in line.split()[:4]
            )
            if kind not in _LOCAL or device in seen or where.startswith(("/proc", "/sys", "/dev", "/run")):
                continue
            seen.add(device)
            try:
                status = os.statvfs(where)
            except OSError:
                continue
            found.append(
                {
                    "device": device,
                    "mount": where,
                    "fstype": kind,
                    "options": options,
                    "size_total": status.f_blocks * status.f_frsize,
                    "size_available": status.f_bavail * status.f_frsize,
                }
            )

    thread = threading.Thread(target=look, name="mounts", daemon=True)
    thread.start()
    thread.join(deadline)
    return list(found)


def _service_manager() -> str:
    if os.path.isdir("/run/systemd/system"):
        return "systemd"
    return _text("/proc/1/comm").strip() or "unknown"


def _package_manager() -> str:
    known = {
        "/usr/bin/apt-get": "apt",
        "/usr/bin/dnf": "dnf",
        "/sbin/apk": "apk",
        "/usr/bin/zypper": "zypper",
    }
    return next((name for path, name in known.items() if os.path.exists(path)), "unknown")


def _virtualization() -> str:
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return "container"
    vendor = _text("/sys/class/dmi/id/sys_vendor").lower()
    return next(
        (name for key, name in (("qemu", "kvm"), ("vmware", "VMware"), ("xen", "xen")) if key in vendor), "NA"
    )


def _lines(path: str) -> list[str]:
    return _text(path).splitlines()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
