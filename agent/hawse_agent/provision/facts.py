"""Facts about this host, under Ansible's names, read from files: no program is run, nothing is waited for."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
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
_SIOCGIFADDR = 0x8915
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
        "distribution": {"rhel": "RedHat"}.get(name, name.capitalize()),
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
    default = {"interface": interface, "gateway": gateway, "address": _primary_address(interface)}
    return {
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "all_ipv4_addresses": _local_addresses(),
        "default_ipv4": {key: value for key, value in default.items() if value},
    }


def _primary_address(interface: str) -> str:
    """By SIOCGIFADDR of netdevice(7)."""
    if not interface:
        return ""
    request = struct.pack("16s24x", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request)
        except OSError:  # it has none
            return ""
    return socket.inet_ntoa(answer[20:24])


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
