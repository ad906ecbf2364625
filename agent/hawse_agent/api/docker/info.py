"""`/version` and `/info`: the agent and its host in Docker's JSON, by what is true of them now."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from typing import Any

from hawse_agent import __version__
from hawse_agent.api.docker.views.times import stamp
from hawse_agent.cgroups.base import Ability, Base
from hawse_agent.engine.engine import Engine

_ABILITIES: dict[str, tuple[Ability, str]] = {
    "MemoryLimit": ("memory", "memory limit"),
    "SwapLimit": ("swap", "swap limit"),
    "CpuCfsPeriod": ("quota", "cpu cfs period"),
    "CpuCfsQuota": ("quota", "cpu cfs quota"),
    "CPUShares": ("shares", "cpu shares"),
    "CPUSet": ("cpuset", "cpuset"),
    "PidsLimit": ("pids", "pids limit"),
}
"""Fields of Docker's, and how a client is warned when they are false."""
_REGISTRY = {
    "AllowNondistributableArtifactsCIDRs": [],
    "AllowNondistributableArtifactsHostnames": [],
    "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
    "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}},
    "Mirrors": [],
}


def version(engine: Engine, *, newest: str, oldest: str) -> dict[str, Any]:
    about = {
        "ApiVersion": newest,
        "MinAPIVersion": oldest,
        "GitCommit": engine.bundle[:12],
        "GoVersion": "",
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "KernelVersion": platform.release(),
        "BuildTime": "",
    }
    details = {**about, "Experimental": "false", "Python": platform.python_version()}
    return {
        "Platform": {"Name": "Hawse agent"},
        "Version": __version__,
        **about,
        "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
    }


def info(engine: Engine) -> dict[str, Any]:
    states = Counter(view.state.status for view in engine.containers.list())
    base = engine.cgroup_base
    forwarding = _sysctl("net/ipv4/ip_forward") == "1"
    return {
        "ID": engine.paths.instance or "default",
        "Name": platform.node(),
        "ServerVersion": __version__,
        "Containers": sum(states.values()),
        "ContainersRunning": states["running"] + states["restarting"],
        "ContainersPaused": states["paused"],
        "ContainersStopped": states["created"] + states["exited"] + states["dead"],
        "Images": len(engine.images.list()),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", _file_system(str(engine.paths.lib))]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file", "local", "none"],
        },
        **{field: base.can(ability) for field, (ability, _) in _ABILITIES.items()},
        "OomKillDisable": False,
        "IPv4Forwarding": forwarding,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": False,
        "SystemTime": stamp(time.time()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(base.version),
        "KernelVersion": platform.release(),
        "OperatingSystem": _release().get("PRETTY_NAME", "Linux"),
        "OSVersion": _release().get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "GenericResources": None,
        "DockerRootDir": str(engine.paths.lib),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "DefaultRuntime": "hawse",
        "Runtimes": {"hawse": {"path": "hawse-agent"}},
        "InitBinary": "hawse-agent",
        "SecurityOptions": [
            "name=seccomp,profile=builtin",
            "name=cgroupns",
            *(["name=userns"] if engine.settings.userns.default == "auto" else []),
        ],
        "Swarm": {
            "LocalNodeState": "inactive",
            "NodeID": "",
            "NodeAddr": "",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "Labels": [],
        "ExperimentalBuild": False,
        "LiveRestoreEnabled": True,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _REGISTRY,
        "FirewallBackend": {"Driver": "nftables"},
        "Warnings": _warnings(base, forwarding) or None,
    }


def _warnings(base: Base, forwarding: bool) -> list[str]:
    warnings = [
        f"WARNING: No {words} support" for ability, words in _ABILITIES.values() if not base.can(ability)
    ]
    return warnings if forwarding else [*warnings, "WARNING: IPv4 forwarding is disabled"]


def _sysctl(name: str) -> str:
    with open(f"/proc/sys/{name}") as file:
        return file.read().strip()


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _file_system(path: str) -> str:
    """The type of what is mounted there, as mountinfo names it."""
    number = os.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            if line.split()[2] == device:
                return line.partition(" - ")[2].split()[0]
    return "unknown"
