"""inspect's `HostConfig`, which clients send back to make another container. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hawse_agent.api.docker.views.times import NANO
from hawse_agent.engine.resolve import masked_paths, readonly_paths
from hawse_agent.spec.container import ContainerSpec, DeviceRate, LogConfig, Resources
from hawse_agent.spec.volume import Mount


def host_config(spec: ContainerSpec, links: Sequence[str]) -> dict[str, Any]:
    """`links`: `name:alias` of those that it is linked to, with the names of today."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in spec.ports:
        last = f"-{port.host_port_last}" if port.host_port_last else ""
        entry = {
            "HostIp": port.host_ip,
            "HostPort": f"{port.host_port}{last}" if port.host_port else "",
        }
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(entry)
    security = ["no-new-privileges"] if spec.no_new_privileges else []
    if spec.seccomp != "default":
        security.append(f"seccomp={spec.seccomp}")
    mounts = [
        mount_json(mount) for mount in spec.mounts if mount.kind != "tmpfs" and not _is_bind_text(mount)
    ]
    tmpfs = {mount.target: _tmpfs_text(mount) for mount in spec.mounts if mount.kind == "tmpfs"}
    return {  # in the order of dockerd, which leaves out the same fields where they are empty
        "Binds": [bind_text(mount) for mount in spec.mounts if _is_bind_text(mount)] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": spec.log.driver, "Config": _log_options(spec.log)},
        "NetworkMode": spec.network_mode,
        "PortBindings": bindings,
        "RestartPolicy": {"Name": spec.restart.mode, "MaximumRetryCount": spec.restart.max_retries},
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": list(spec.volumes_from) or None,
        "ConsoleSize": [spec.console_height, spec.console_width],
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "CgroupnsMode": "private",
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": list(spec.group_add) or None,
        "IpcMode": spec.ipc_mode or "private",
        "Cgroup": "",
        "Links": [_link_text(spec.name, link) for link in links] or None,
        "OomScoreAdj": spec.oom_score_adj,
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security or None,
        **({"Tmpfs": tmpfs} if tmpfs else {}),
        "UTSMode": spec.uts_mode,
        "UsernsMode": spec.userns_mode,
        "ShmSize": spec.shm_size,
        **({"Sysctls": dict(spec.sysctls)} if spec.sysctls else {}),
        "Runtime": "hawse",
        "Isolation": "",
        **_resources(spec, spec.resources),
        **({"Mounts": mounts} if mounts else {}),
        "MaskedPaths": list(masked_paths(spec)) or (None if spec.masked_paths is None else []),
        "ReadonlyPaths": list(readonly_paths(spec)) or (None if spec.readonly_paths is None else []),
        **({"Init": spec.init} if spec.init is not None else {}),
    }


def _link_text(name: str, link: str) -> str:
    other, _, alias = link.partition(":")
    return f"/{other}:/{name}/{alias}"


def _log_options(log: LogConfig) -> dict[str, str]:
    """Those in force, since they are not Docker's own defaults."""
    if log.driver == "none":
        return {}
    options = {"max-size": str(log.max_size or -1), "max-file": str(log.max_files)}
    if log.buffer != LogConfig.buffer:
        options |= {"mode": "non-blocking", "max-buffer-size": str(log.buffer)}
    return options


def _resources(spec: ContainerSpec, limits: Resources) -> dict[str, Any]:
    """Limits; what is always empty here is refused when it is asked for."""
    return {
        "CpuShares": limits.cpu_shares or 0,
        "Memory": limits.memory or 0,
        "NanoCpus": 0 if limits.cpu_period else round((limits.cpus or 0) * NANO),
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": None,
        "BlkioDeviceReadBps": _rates(limits.read_bps),
        "BlkioDeviceWriteBps": _rates(limits.write_bps),
        "BlkioDeviceReadIOps": _rates(limits.read_iops),
        "BlkioDeviceWriteIOps": _rates(limits.write_iops),
        "CpuPeriod": limits.cpu_period or 0,
        "CpuQuota": round((limits.cpus or 0) * limits.cpu_period) if limits.cpu_period else 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "Devices": [
            {"PathOnHost": d.host, "PathInContainer": d.target, "CgroupPermissions": d.access}
            for d in spec.devices
        ],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "MemoryReservation": limits.memory_reservation or 0,
        "MemorySwap": limits.memory_swap or (2 * limits.memory if limits.memory else 0),
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": limits.pids,
        "Ulimits": [{"Name": u.name, "Hard": u.hard, "Soft": u.soft} for u in spec.ulimits],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _rates(rates: Sequence[DeviceRate]) -> list[dict[str, Any]] | None:
    return [{"Path": rate.path, "Rate": rate.rate} for rate in rates] or None


def _is_bind_text(mount: Mount) -> bool:
    """Whether `-v` says all of it; an anonymous volume is in Config.Volumes."""
    if mount.kind == "bind":
        return mount.create_source
    return mount.kind == "volume" and bool(mount.source) and not mount.subpath


def bind_text(mount: Mount) -> str:
    options = ["ro"] if mount.read_only else []
    if mount.propagation != "rprivate":
        options.append(mount.propagation)
    if mount.no_copy:
        options.append("nocopy")
    if mount.map_ids:
        options.append("idmap")
    return ":".join([mount.source, mount.target, *([",".join(options)] if options else [])])


def mount_json(mount: Mount) -> dict[str, Any]:
    """An entry of HostConfig.Mounts."""
    shown: dict[str, Any] = {"Type": mount.kind, "Target": mount.target}
    if mount.source:
        shown["Source"] = mount.source
    if mount.read_only:
        shown["ReadOnly"] = True
    if mount.kind == "bind" and mount.propagation != "rprivate":
        shown["BindOptions"] = {"Propagation": mount.propagation}
    options = {"NoCopy": mount.no_copy, "Subpath": mount.subpath, "Labels": dict(mount.labels)}
    if mount.kind == "volume" and any(options.values()):
        shown["VolumeOptions"] = {key: value for key, value in options.items() if value}
    return shown


def _tmpfs_text(mount: Mount) -> str:
    words = [*mount.tmpfs_options]
    if mount.read_only:
        words.append("ro")
    if mount.tmpfs_mode != Mount.tmpfs_mode:
        words.append(f"mode={mount.tmpfs_mode:o}")
    if mount.tmpfs_size:
        words.append(f"size={mount.tmpfs_size}")
    return ",".join(words)
