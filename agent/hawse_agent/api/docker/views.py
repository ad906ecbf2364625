"""What there is, in Docker's JSON. One function a shape; pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hawse_agent.engine.resolve import masked_paths, readonly_paths
from hawse_agent.engine.views import ContainerState, ContainerView, Event, ExecView, HealthView
from hawse_agent.images.image import ImageConfig
from hawse_agent.images.store import Image
from hawse_agent.paths import Paths
from hawse_agent.spec.container import ContainerSpec, DeviceRate, HealthCheck, LogConfig, Resources
from hawse_agent.spec.records import ContainerRecord, EndpointRecord, NetworkRecord, PortRecord
from hawse_agent.spec.volume import Mount
from hawse_agent.volumes.store import VolumeInfo

NEVER = "0001-01-01T00:00:00Z"
_NANO = 1_000_000_000


def stamp(seconds: float) -> str:
    """RFC 3339 with nanoseconds."""
    if not seconds:
        return NEVER
    whole = int(seconds)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + (
        f".{int((seconds - whole) * _NANO):09d}Z"
    )


# containers


def summary(
    view: ContainerView,
    image: Image | None,
    networks: Mapping[str, NetworkRecord],
    size: int | None = None,
) -> dict[str, Any]:
    """An entry of `GET /containers/json`; `size` is of what the container has written, when asked for."""
    spec = view.record.spec
    return {
        **_sizes(image, size),
        "Id": view.id,
        "Names": [f"/{view.name}"],
        "Image": spec.image,
        "ImageID": view.record.image_id,
        "Command": " ".join(f"'{word}'" if " " in word else word for word in _argv(spec, image)),
        "Created": int(view.record.created),
        "Ports": [*_published(view.ports), *_exposed(spec, image, view.ports)],
        "Labels": labels(spec, image),
        "State": view.state.status,
        "Status": status_text(view.state),
        "HostConfig": {"NetworkMode": spec.network_mode},
        "NetworkSettings": {"Networks": _networks(view, networks)},
        "Mounts": mounts(view.record, None),
    }


def inspect(
    view: ContainerView,
    image: Image | None,
    networks: Mapping[str, NetworkRecord],
    paths: Paths,
    executions: Sequence[str],
    size: int | None = None,
) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    record, spec, state = view.record, view.record.spec, view.state
    argv = _argv(spec, image)
    directory = paths.container(view.id)
    return {
        "Id": view.id,
        "Created": stamp(record.created),
        "Path": argv[0] if argv else "",
        "Args": list(argv[1:]),
        "State": state_json(state),
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "etc" / "resolv.conf"),
        "HostnamePath": str(directory / "etc" / "hostname"),
        "HostsPath": str(directory / "etc" / "hosts"),
        "LogPath": str(directory / f"{view.id}-json.log") if spec.log.driver == "json-file" else "",
        "LogBytesDropped": state.dropped_log_bytes,
        "Name": f"/{view.name}",
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(executions) or None,
        "HostConfig": host_config(spec),
        **_id_mappings(record),
        "GraphDriver": {
            "Data": {"UpperDir": str(directory / "upper"), "WorkDir": str(directory / "work")},
            "Name": "overlay2",
        },
        "Mounts": mounts(record, paths),
        "Config": config(view, image),
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": view.id,
            "SandboxKey": f"/proc/{state.pid}/ns/net" if state.pid else "",
            "Ports": port_bindings(view, image),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            **_first_endpoint(view, networks),
            "Networks": _networks(view, networks),
        },
        **_sizes(image, size),
    }


def _sizes(image: Image | None, size: int | None) -> dict[str, int]:
    if size is None:
        return {}
    return {"SizeRw": size, "SizeRootFs": size + (image.size if image is not None else 0)}


def state_json(state: ContainerState) -> dict[str, Any]:
    return {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": stamp(state.started_at),
        "FinishedAt": stamp(state.finished_at),
        **({"Health": _health(state.health)} if state.health is not None else {}),
    }


def _health(health: HealthView) -> dict[str, Any]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": stamp(entry.start),
                "End": stamp(entry.end),
                "ExitCode": entry.exit_code,
                "Output": entry.output,
            }
            for entry in health.log
        ],
    }


def status_text(state: ContainerState, now: float | None = None) -> str:
    """`Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`."""
    now = time.time() if now is None else now
    if state.status == "created":
        return "Created"
    if state.status in ("exited", "dead"):
        if state.status == "dead":
            return "Dead"
        return f"Exited ({state.exit_code}) {duration(now - state.finished_at)} ago"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {duration(now - state.finished_at)} ago"
    text = f"Up {duration(now - state.started_at)}"
    if state.status == "paused":
        return f"{text} (Paused)"
    if state.health is not None:
        shown = "health: starting" if state.health.status == "starting" else state.health.status
        return f"{text} ({shown})"
    return text


def duration(seconds: float) -> str:
    """As Docker's clients expect to read it."""
    whole = max(0, int(seconds))
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(whole / 3600)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    return f"{days // 30} months" if days < 730 else f"{days // 365} years"


def config(view: ContainerView, image: Image | None) -> dict[str, Any]:
    spec = view.record.spec
    own = image.config if image is not None else None
    volumes: dict[str, Any] = {
        mount.target: {} for mount in spec.mounts if mount.kind == "volume" and not mount.source
    }
    exposed: dict[str, Any] = {port: {} for port in exposed_ports(spec, image)}
    environment = [*(own.env if own else ())]
    names = {entry.partition("=")[0] for entry in environment}
    merged = {entry.partition("=")[0]: entry for entry in environment}
    for key in spec.environment_unset:
        merged.pop(key, None)
    for key, value in spec.environment.items():
        merged[key] = f"{key}={value}"
    if "PATH" not in names and "PATH" not in merged:
        merged["PATH"] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    of_image = own.healthcheck if own else None
    health = of_image if spec.health is None else spec.health.over(of_image)
    return {
        "Hostname": spec.hostname or view.id[:12],
        "Domainname": spec.domainname,
        "User": spec.user or (own.user if own else ""),
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": exposed,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "StdinOnce": spec.stdin_once,
        "Env": list(merged.values()),
        "Cmd": _listed(spec.command if spec.command is not None else _image_command(spec, own)),
        **({"Healthcheck": healthcheck(health)} if health is not None else {}),
        "Image": spec.image,
        "Volumes": volumes or None,
        "WorkingDir": spec.working_dir or (own.working_dir if own else ""),
        "Entrypoint": _listed(_entrypoint(spec, own)),
        "OnBuild": None,
        "Labels": labels(spec, image),
        "StopSignal": spec.stop_signal or (own.stop_signal if own else "") or "SIGTERM",
        **({"StopTimeout": spec.stop_timeout} if spec.stop_timeout is not None else {}),
    }


def _entrypoint(spec: ContainerSpec, own: ImageConfig | None) -> tuple[str, ...] | None:
    if spec.entrypoint is not None:
        return spec.entrypoint
    return own.entrypoint if own is not None else None


def _image_command(spec: ContainerSpec, own: ImageConfig | None) -> tuple[str, ...] | None:
    return own.cmd if own is not None and spec.entrypoint is None else None


def _listed(words: Sequence[str] | None) -> list[str] | None:
    return list(words) if words is not None else None


def healthcheck(check: HealthCheck) -> dict[str, Any]:
    """As Docker, without what is left to its defaults."""
    numbers = {
        "Interval": int(check.interval * _NANO) if check.interval != HealthCheck.interval else 0,
        "Timeout": int(check.timeout * _NANO) if check.timeout != HealthCheck.timeout else 0,
        "StartPeriod": int(check.start_period * _NANO),
        "StartInterval": (
            int(check.start_interval * _NANO) if check.start_interval != HealthCheck.start_interval else 0
        ),
        "Retries": check.retries if check.retries != HealthCheck.retries else 0,
    }
    return {"Test": list(check.test), **{name: number for name, number in numbers.items() if number}}


def labels(spec: ContainerSpec, image: Image | None) -> dict[str, str]:
    return {**(image.config.labels if image is not None else {}), **spec.labels}


def _id_mappings(record: ContainerRecord) -> dict[str, Any]:
    """Docker has no word for it; not in HostConfig, which clients send back to make another one."""
    if record.ids is None:
        return {}
    shown = [f"0:{record.ids.first}:{record.ids.count}"]
    return {"IDMappings": {"UidMap": shown, "GidMap": shown}}


def host_config(spec: ContainerSpec) -> dict[str, Any]:
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
        "Links": [_link_text(spec.name, link) for link in spec.links] or None,
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
        "NanoCpus": 0 if limits.cpu_period else round((limits.cpus or 0) * _NANO),
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


def mounts(record: ContainerRecord, paths: Paths | None) -> list[dict[str, Any]]:
    """Binds and volumes; tmpfs mounts are in HostConfig."""
    explicit = {mount.target: mount for mount in record.spec.mounts}
    found = []
    for target, name in record.volumes.items():
        mount = explicit.get(target)
        read_only = mount is not None and mount.read_only
        found.append(
            {
                "Type": "volume",
                "Name": name,
                "Source": str(paths.volumes / name / "_data") if paths is not None else "",
                "Destination": target,
                "Driver": "local",
                "Mode": "ro" if read_only else "z",
                "RW": not read_only,
                "Propagation": "",
            }
        )
    for mount in record.spec.mounts:
        if mount.kind == "bind":
            found.append(
                {
                    "Type": "bind",
                    "Source": mount.source,
                    "Destination": mount.target,
                    "Mode": "ro" if mount.read_only else "",
                    "RW": not mount.read_only,
                    "Propagation": mount.propagation,
                }
            )
    return found


def port_bindings(view: ContainerView, image: Image | None) -> dict[str, Any]:
    """`NetworkSettings.Ports`: null for a port that is exposed and not published."""
    found: dict[str, Any] = dict.fromkeys(exposed_ports(view.record.spec, image))
    for port in view.ports:
        key = f"{port.container_port}/{port.protocol}"
        entry = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}
        found[key] = [*(found.get(key) or []), entry]
    return found


def _published(ports: Sequence[PortRecord]) -> list[dict[str, Any]]:
    return [
        {
            "IP": port.host_ip or "0.0.0.0",
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
        for port in ports
    ]


def _exposed(spec: ContainerSpec, image: Image | None, ports: Sequence[PortRecord]) -> list[dict[str, Any]]:
    published = {f"{port.container_port}/{port.protocol}" for port in ports}
    found = []
    for port in exposed_ports(spec, image):
        number, _, protocol = port.partition("/")
        if port not in published and number.isdigit():
            found.append({"PrivatePort": int(number), "Type": protocol})
    return found


def exposed_ports(spec: ContainerSpec, image: Image | None) -> list[str]:
    """`80/tcp`: of the image, exposed or published."""
    own = image.config.exposed_ports if image is not None else ()
    mapped = [f"{port.container_port}/{port.protocol}" for port in spec.ports]
    words = [port if "/" in port else f"{port}/tcp" for port in (*own, *spec.expose)]
    return list(dict.fromkeys([*words, *mapped]))


def _argv(spec: ContainerSpec, image: Image | None) -> tuple[str, ...]:
    own = image.config if image is not None else None
    entrypoint = _entrypoint(spec, own)
    command = spec.command if spec.command is not None else _image_command(spec, own)
    return (*(entrypoint or ()), *(command or ()))


def _networks(view: ContainerView, networks: Mapping[str, NetworkRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for endpoint in view.endpoints:
        network = networks.get(endpoint.network)
        if network is not None:
            found[network.name] = endpoint_json(endpoint, network)
    if found:
        return found
    by_name = {network.name: network for network in networks.values()}
    return {name: _no_endpoint(by_name.get(name)) for name in _wanted_networks(view.record.spec)}


def network_names(view: ContainerView, networks: Mapping[str, NetworkRecord]) -> list[str]:
    """Of the networks that it is on, or will be on when it starts."""
    found = [networks[e.network].name for e in view.endpoints if e.network in networks]
    return found or _wanted_networks(view.record.spec)


def _wanted_networks(spec: ContainerSpec) -> list[str]:
    if spec.network_mode in ("host", "none"):
        return [spec.network_mode]
    if spec.network_mode.startswith("container:"):
        return []
    first = "bridge" if spec.network_mode == "default" else spec.network_mode
    return [wanted.network for wanted in spec.networks] or [first]


def endpoint_json(endpoint: EndpointRecord, network: NetworkRecord) -> dict[str, Any]:
    address, _, prefix = endpoint.ipv4.partition("/")
    return {
        "IPAMConfig": None,
        "Links": list(endpoint.links) or None,
        "Aliases": None if network.default else list(endpoint.names),
        "MacAddress": endpoint.mac,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network.id,
        "EndpointID": f"{network.id[:32]}{endpoint.container[:32]}",
        "Gateway": network.gateway,
        "IPAddress": address,
        "IPPrefixLen": int(prefix or 0),
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None if network.default else list(endpoint.names),
    }


def _no_endpoint(network: NetworkRecord | None) -> dict[str, Any]:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network.id if network is not None else "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _first_endpoint(view: ContainerView, networks: Mapping[str, NetworkRecord]) -> dict[str, Any]:
    """The old place of the default network's address, which clients still read."""
    for endpoint in view.endpoints:
        network = networks.get(endpoint.network)
        if network is not None and network.default:
            shown = endpoint_json(endpoint, network)
            return {key: shown[key] for key in _OF_FIRST}
    shown = _no_endpoint(None)
    return {key: shown[key] for key in _OF_FIRST}


_OF_FIRST = (
    *("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen"),
    *("IPv6Gateway", "MacAddress"),
)


def execution(view: ExecView) -> dict[str, Any]:
    return {
        "ID": view.id,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "ProcessConfig": {
            "tty": view.tty,
            "entrypoint": view.argv[0],
            "arguments": list(view.argv[1:]),
            "privileged": view.privileged,
            **({"user": view.user} if view.user else {}),
        },
        "OpenStdin": view.stdin,
        "OpenStderr": view.stderr,
        "OpenStdout": view.stdout,
        "CanRemove": False,
        "ContainerID": view.container,
        "DetachKeys": view.detach_keys,
        "Pid": view.pid,
    }


# images


def shared_sizes(images: Sequence[Image]) -> dict[str, int]:
    """Image id → bytes of the layers that other images have, too."""
    holders = Counter(diff_id for image in images for diff_id in set(image.diff_ids))
    return {
        image.id: sum(layer.content_size for layer in image.layers if holders[layer.diff_id] > 1)
        for image in images
    }


def image_summary(image: Image, users: int, shared: int = -1) -> dict[str, Any]:
    """`shared` is -1 when it was not asked for."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": epoch(image.created),
        "Size": image.size,
        "SharedSize": shared,
        "VirtualSize": image.size,
        "Labels": dict(image.config.labels) or None,
        "Containers": users,
    }


def image_inspect(image: Image) -> dict[str, Any]:
    own = image.config
    return {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": image.comment,
        "Created": image.created or NEVER,
        "DockerVersion": "",
        "Author": image.author,
        "Architecture": image.architecture,
        "Variant": image.variant,
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Data": {}, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": stamp(image.added)},
        "Config": {
            "User": own.user,
            "ExposedPorts": {port: {} for port in own.exposed_ports} or None,
            "Env": list(own.env) or None,
            "Entrypoint": _listed(own.entrypoint),
            "Cmd": _listed(own.cmd),
            "Volumes": {path: {} for path in own.volumes} or None,
            "WorkingDir": own.working_dir,
            "Labels": dict(own.labels) or None,
            "StopSignal": own.stop_signal,
            "Healthcheck": healthcheck(own.healthcheck) if own.healthcheck is not None else None,
            "Shell": list(own.shell) or None,
            "OnBuild": list(own.onbuild) or None,
        },
    }


def image_history(image: Image) -> list[dict[str, Any]]:
    steps = list(zip(image.history, image.history_sizes, strict=True))
    found: list[dict[str, Any]] = [
        {
            "Id": "<missing>",
            "Created": epoch(step.created),
            "CreatedBy": step.created_by,
            "Comment": step.comment,
            "Size": size,
            "Tags": None,
        }
        for step, size in reversed(steps)
    ]
    if found:
        found[0] |= {"Id": image.id, "Tags": list(image.repo_tags) or None}
    return found


def epoch(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return 0


# networks and volumes


def network(record: NetworkRecord, members: Sequence[tuple[EndpointRecord, str]]) -> dict[str, Any]:
    """`members` are the endpoints with the names of their containers."""
    pool = {"Subnet": record.subnet, "Gateway": record.gateway, "IPRange": record.ip_range}
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": stamp(record.created),
        "Scope": "local",
        "Driver": "null" if record.driver == "none" else record.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{key: value for key, value in pool.items() if value}] if record.subnet else [],
        },
        "Internal": record.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            endpoint.container: {
                "Name": name,
                "EndpointID": f"{record.id[:32]}{endpoint.container[:32]}",
                "MacAddress": endpoint.mac,
                "IPv4Address": endpoint.ipv4,
                "IPv6Address": "",
            }
            for endpoint, name in members
        },
        "Options": {**(_default_options(record) if record.default else {}), **record.options},
        "Labels": dict(record.labels),
    }


def _default_options(record: NetworkRecord) -> dict[str, str]:
    """Where clients look for the name of the default bridge."""
    prefix = "com.docker.network"
    return {
        f"{prefix}.bridge.default_bridge": "true",
        f"{prefix}.bridge.enable_icc": "true" if record.icc else "false",
        f"{prefix}.bridge.enable_ip_masquerade": "true",
        f"{prefix}.bridge.host_binding_ipv4": "0.0.0.0",
        f"{prefix}.bridge.name": record.bridge,
        f"{prefix}.driver.mtu": str(record.mtu),
    }


def volume(info: VolumeInfo) -> dict[str, Any]:
    return {
        "CreatedAt": stamp(info.created).split(".")[0] + "Z",
        "Driver": info.spec.driver,
        "Labels": dict(info.spec.labels) or None,
        "Mountpoint": str(info.path),
        "Name": info.spec.name,
        "Options": dict(info.spec.options) or None,
        "Scope": "local",
    }


# events


def event(happened: Event) -> dict[str, Any]:
    attributes = dict(happened.attributes)
    old_names = {"status": happened.action, "id": happened.id}
    if happened.kind == "container":
        old_names["from"] = attributes.get("image", "")
    return {
        **(old_names if happened.kind in ("container", "image") else {}),
        "Type": happened.kind,
        "Action": happened.action,
        "Actor": {"ID": happened.id, "Attributes": attributes},
        "scope": "local",
        "time": int(happened.time),
        "timeNano": int(happened.time * _NANO),
    }
