"""Docker's create request → ContainerSpec. Refuses by name what is not done; asks how many CPUs there are."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hawse_agent.api.docker.fields import Fields
from hawse_agent.engine.resolve import masked_paths, readonly_paths
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
from hawse_agent.spec.volume import Mount, MountKind, Propagation

_CPU_PERIOD = 100_000
_NANO = 1_000_000_000
_LEAST_TIME = 1_000_000
_SHM = 64 * 1024 * 1024
_LEAST_MEMORY = 6 * 1024 * 1024
_UNLIMITED = Resources()
_PLAIN = ContainerSpec(name="", image="")
_PROPAGATIONS: tuple[Propagation, ...] = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def container_spec(body: Any, name: str) -> ContainerSpec:
    """Raises InputError for what is wrong and NotSupported for what is not done."""
    config = Fields(body, "")
    config.ignore(
        {
            "AttachStdin": "what the client will attach to says nothing about the container",
            "AttachStdout": "as above",
            "AttachStderr": "as above",
            "ArgsEscaped": "Windows",
            "OnBuild": "for builds",
            "Shell": "for builds",
        }
    )
    host = config.inner("HostConfig")
    host.ignore({"ContainerIDFile": "the client writes it"})
    if host.text("Isolation") not in ("", "default"):
        raise NotSupported("HostConfig.Isolation is not supported by hawse-agent")
    if host.number("MemorySwappiness", -1) != -1:  # 0 asks for something, too
        raise NotSupported("HostConfig.MemorySwappiness is not supported by hawse-agent")
    networking = config.inner("NetworkingConfig")
    links = tuple(_link(text) for text in host.texts("Links"))
    mode, networks = _networks(host, networking, config.text("MacAddress"), links)
    environment, unset = variables(config.texts("Env"))
    console = _console(host.objects("ConsoleSize"))
    security = _security(host.texts("SecurityOpt"))
    stop_timeout = config.number("StopTimeout") if config.given("StopTimeout") else None
    spec = ContainerSpec(
        name=name.removeprefix("/"),
        image=config.text("Image"),
        command=config.command("Cmd") or None,
        entrypoint=_entrypoint(config),
        environment=environment,
        environment_unset=unset,
        user=config.text("User"),
        group_add=host.texts("GroupAdd"),
        working_dir=config.text("WorkingDir"),
        hostname=config.text("Hostname"),
        domainname=config.text("Domainname"),
        labels=config.labels("Labels"),
        tty=config.flag("Tty"),
        console_height=console[0],
        console_width=console[1],
        stdin_open=config.flag("OpenStdin"),
        stdin_once=config.flag("StdinOnce"),
        stop_signal=config.text("StopSignal"),
        stop_timeout=stop_timeout,
        restart=restart_policy(host.inner("RestartPolicy")),
        health=_health(config.mapping("Healthcheck")),
        resources=resources(host),
        mounts=_with_volumes(
            config,
            _distinct((*_binds(host), *_mounts(host.objects("Mounts")), *_tmpfs(host.labels("Tmpfs")))),
        ),
        volumes_from=host.texts("VolumesFrom"),
        network_mode=mode,
        networks=networks,
        ports=_ports(host.mapping("PortBindings")),
        publish_all=host.flag("PublishAllPorts"),
        expose=tuple(config.mapping("ExposedPorts")),
        dns=host.texts("Dns"),
        dns_search=host.texts("DnsSearch"),
        dns_options=host.texts("DnsOptions"),
        links=() if _is_own(mode) else links,
        extra_hosts=host.texts("ExtraHosts"),
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        privileged=host.flag("Privileged"),
        no_new_privileges=security[0],
        seccomp=security[1],
        masked_paths=_inner_paths(host, "MaskedPaths", masked_paths(_PLAIN)),
        readonly_paths=_inner_paths(host, "ReadonlyPaths", readonly_paths(_PLAIN)),
        read_only=host.flag("ReadonlyRootfs"),
        sysctls=host.labels("Sysctls"),
        ulimits=_ulimits(host.objects("Ulimits")),
        devices=_devices(host.objects("Devices")),
        shm_size=_limit(host, "ShmSize") or _SHM,
        oom_score_adj=_score(host.number("OomScoreAdj")),
        init=host.flag("Init") if host.given("Init") else None,
        pid_mode=host.text("PidMode"),
        ipc_mode=_own(host.text("IpcMode"), "private"),
        uts_mode=host.text("UTSMode"),
        userns_mode=_userns(host.text("UsernsMode")),
        log=_log(host.inner("LogConfig")),
        auto_remove=host.flag("AutoRemove"),
    )
    _refuse_combinations(spec, host)
    host.rest()
    config.rest()
    return spec


def resources(given: Fields, now: Resources = _UNLIMITED) -> Resources:
    """Limits of a create request, or of an update: what is not given stays as it is `now`."""
    memory, reservation = _limit(given, "Memory"), _limit(given, "MemoryReservation")
    swap, pids = given.number("MemorySwap"), given.number("PidsLimit")
    if now.memory_swap is not None and not swap and 0 < now.memory_swap < memory:
        raise InputError(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the "
            "same time"
        )
    cpus, period = _cpus(given, now)
    limits = Resources(
        memory=memory or now.memory,
        memory_swap=swap or now.memory_swap,
        memory_reservation=reservation or now.memory_reservation,
        cpus=cpus,
        cpu_period=period,
        cpu_shares=_limit(given, "CpuShares") or now.cpu_shares,
        cpuset_cpus=_cpuset(given, "CpusetCpus") or now.cpuset_cpus,
        cpuset_mems=_cpuset(given, "CpusetMems") or now.cpuset_mems,
        pids=(pids or now.pids) if pids >= 0 else None,
        read_bps=_rates(given.objects("BlkioDeviceReadBps")) or now.read_bps,
        write_bps=_rates(given.objects("BlkioDeviceWriteBps")) or now.write_bps,
        read_iops=_rates(given.objects("BlkioDeviceReadIOps")) or now.read_iops,
        write_iops=_rates(given.objects("BlkioDeviceWriteIOps")) or now.write_iops,
    )
    _check_memory(limits)
    return limits


def _score(number: int) -> int:
    if not -1000 <= number <= 1000:
        raise InputError(f"Invalid value {number}, range for oom score adj is [-1000, 1000]")
    return number


def _limit(given: Fields, key: str) -> int:
    number = given.number(key)
    if number < 0:
        raise InputError(f"{key}: {number} is not a limit")
    return number


def _cpus(given: Fields, now: Resources) -> tuple[float | None, int | None]:
    """How many, and the period in which they are counted when it is a container's own."""
    nano, quota, period = _limit(given, "NanoCpus"), given.number("CpuQuota"), _limit(given, "CpuPeriod")
    if nano and (quota or period):
        raise InputError("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nano:
        available = len(os.sched_getaffinity(0))
        if not _NANO // 100 <= nano <= available * _NANO:
            raise InputError(
                f"range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
            )
        if now.cpu_period is not None:
            raise InputError(
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"
            )
        return nano / _NANO, None
    if not quota and not period:
        return now.cpus, now.cpu_period
    if quota < 0 and not period:
        return None, now.cpu_period
    if now.cpus is not None and now.cpu_period is None:
        name = "CPU Quota" if quota else "CPU Period"
        raise InputError(f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set")
    if period and not 1_000 <= period <= 1_000_000:
        raise InputError(
            "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1_000:
        raise InputError("CPU cfs quota cannot be less than 1ms (i.e. 1000)")
    before = now.cpu_period or _CPU_PERIOD
    period = period or before
    if not quota and now.cpus is not None:
        quota = round(now.cpus * before)
    return (quota / period if quota > 0 else None), period


def _cpuset(given: Fields, key: str) -> str:
    """`0-2,4`, of those that the machine has."""
    text = given.text(key)
    kind = key.removeprefix("Cpuset")
    if not re.fullmatch(r"(\d+(-\d+)?(,\d+(-\d+)?)*)?", text):
        raise InputError(f"Invalid value {text} for cpuset {kind.lower()}")
    try:
        available = _ONLINE[key].read_text().strip()
    except FileNotFoundError:  # a machine without NUMA has one node
        available = "0"
    if not _numbers(text) <= _numbers(available):
        noun = {"Cpus": "CPUs", "Mems": "memory nodes"}[kind]
        raise InputError(f"Requested {noun} are not available - requested {text}, available: {available}")
    return text


_ONLINE = {
    "CpusetCpus": Path("/sys/devices/system/cpu/online"),
    "CpusetMems": Path("/sys/devices/system/node/online"),
}


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise InputError(f"{text}: {part} goes backwards")
        found.update(range(low, min(high, _MOST_NUMBERS) + 1))
        found.update((low, high))
    return found


_MOST_NUMBERS = 8191
"""Of processors that a kernel can be built for."""


def _check_memory(limits: Resources) -> None:
    swap = limits.memory_swap
    if swap is not None and swap > 0 and limits.memory is None:
        raise InputError("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory is None:
        return
    if limits.memory < _LEAST_MEMORY:
        raise InputError("Minimum memory limit allowed is 6MB")
    if swap is not None and 0 < swap < limits.memory:
        raise InputError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory_reservation is not None and limits.memory_reservation > limits.memory:
        raise InputError("Minimum memory limit should be larger than memory reservation limit, see usage")


def restart_policy(policy: Fields) -> RestartPolicy:
    name, retries = policy.text("Name") or "no", policy.number("MaximumRetryCount")
    policy.rest()
    if retries < 0:
        raise InputError("invalid restart policy: maximum retry count cannot be negative")
    if retries and name != "on-failure":
        raise InputError("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    for mode in ("no", "always", "unless-stopped", "on-failure"):
        if name == mode:
            return RestartPolicy(mode=mode, max_retries=retries)
    raise InputError(f"invalid restart policy: unknown policy '{name}'")


def _entrypoint(config: Fields) -> tuple[str, ...] | None:
    """An empty one takes the image's away, as `--entrypoint ""` does."""
    given = config.command("Entrypoint")
    return () if given == ("",) else (given or None)


def variables(entries: tuple[str, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Those that are given, and the names of those that shall not be there: `NAME` without `=`."""
    found: dict[str, str] = {}
    unset: list[str] = []
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key:
            raise InputError(f"invalid environment variable: {entry}")
        if equals:
            found[key] = value
        else:
            found.pop(key, None)
            unset.append(key)
    return found, tuple(name for name in dict.fromkeys(unset) if name not in found)


def _console(given: list[Any]) -> tuple[int, int]:
    if len(given) == 2 and all(isinstance(number, int) and 0 <= number < 65536 for number in given):
        return given[0], given[1]
    if given:
        raise InputError("HostConfig.ConsoleSize: expected height and width")
    return 0, 0


def _is_own(mode: str) -> bool:
    """A network that a person has made."""
    return mode not in ("default", "bridge", "host", "none") and not mode.startswith("container:")


def _link(text: str) -> str:
    """`name`, `name:alias`, and as inspect shows it: `/name:/own/alias`."""
    name, _, alias = text.partition(":")
    name = name.removeprefix("/")
    alias = alias.rpartition("/")[2] or name
    if not name:
        raise InputError(f"bad format for links: {text}")
    return f"{name}:{alias}"


def _networks(
    host: Fields, networking: Fields, mac: str, links: tuple[str, ...]
) -> tuple[str, tuple[EndpointSpec, ...]]:
    mode = host.text("NetworkMode") or "default"
    given = networking.mapping("EndpointsConfig")
    networking.rest()
    if mode in ("host", "none") or mode.startswith("container:"):
        if links:
            raise InputError(f"conflicting options: network mode {mode} can't be used with links")
        if mac or any(
            name != mode or _endpoint(name, settings, "") != EndpointSpec(network=name)
            for name, settings in given.items()
        ):
            raise InputError(f"conflicting options: network mode {mode} and settings for a network")
        return mode, ()
    first = "bridge" if mode == "default" else mode
    by_name = {("bridge" if name == "default" else name): settings for name, settings in given.items()}
    names = [first, *(name for name in by_name if name != first)]
    endpoints = tuple(_endpoint(name, by_name.get(name), mac if name == first else "") for name in names)
    if links and _is_own(mode) and not endpoints[0].links:
        endpoints = (replace(endpoints[0], links=links), *endpoints[1:])
    plain = EndpointSpec(network=first)
    return mode, () if endpoints == (plain,) else endpoints


def _endpoint(network: str, settings: Any, mac: str) -> EndpointSpec:
    fields = Fields(settings, f"EndpointsConfig.{network}")
    fields.ignore(
        dict.fromkeys(
            [
                "NetworkID",
                "EndpointID",
                "Gateway",
                "IPAddress",
                "IPPrefixLen",
                "IPv6Gateway",
                "GlobalIPv6Address",
                "GlobalIPv6PrefixLen",
                "DNSNames",
            ],
            "what an endpoint is, not what it shall be",
        )
    )
    ipam = fields.inner("IPAMConfig")
    address = ipam.text("IPv4Address")
    ipam.rest()
    own_mac = fields.text("MacAddress")
    aliases = fields.texts("Aliases")
    links = tuple(_link(text) for text in fields.texts("Links"))
    fields.rest()
    if links and network == "bridge":
        raise InputError("links of an endpoint are only supported for user-defined networks")
    if aliases and network == "bridge":
        raise InputError("network-scoped aliases are only supported for user-defined networks")
    return EndpointSpec(network=network, aliases=aliases, ipv4=address, mac=own_mac or mac, links=links)


def _security(options: tuple[str, ...]) -> tuple[bool, str]:
    """no_new_privileges, seccomp."""
    no_new, seccomp = False, "default"
    for option in options:
        key, value = (re.split("[=:]", option, maxsplit=1) + [""])[:2]
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InputError(f"no-new-privileges: {value!r} is neither true nor false")
            no_new = value != "false"
        elif key == "seccomp":
            seccomp = "default" if value == "builtin" else value
        elif (key, value) in (("apparmor", "unconfined"), ("label", "disable")):
            continue  # neither AppArmor nor SELinux confines our containers
        else:
            raise NotSupported(f"security option {key!r} is not supported by hawse-agent")
    return no_new, seccomp


def _inner_paths(host: Fields, key: str, usual: tuple[str, ...]) -> tuple[str, ...] | None:
    """None for the usual ones, which inspect names: a container that is made after another's is the same."""
    paths = host.texts_or_none(key)
    if paths == usual:
        return None
    for path in paths or ():
        if not path.startswith("/"):
            raise InputError(f"HostConfig.{key}: {path!r} is not an absolute path")
    return paths


def _health(given: dict[str, Any]) -> HealthCheck | None:
    fields = Fields(given, "Healthcheck")
    test = fields.texts("Test")
    values = {
        "interval": fields.number("Interval"),
        "timeout": fields.number("Timeout"),
        "start_period": fields.number("StartPeriod"),
        "start_interval": fields.number("StartInterval"),
    }
    retries = fields.number("Retries")
    fields.rest()
    if retries < 0:
        raise InputError("Retries in Healthcheck cannot be negative")
    for key, value in values.items():
        if value != 0 and value < _LEAST_TIME:
            name = key.replace("_", " ").title().replace(" ", "")
            raise InputError(f"{name} in Healthcheck cannot be less than 1ms")
    if not test:
        if not any(values.values()) and not retries:
            return None
        return HealthCheck(test=(), retries=retries, **{key: value / _NANO for key, value in values.items()})
    if test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InputError(f"Unknown healthcheck type {test[0]!r}")
    times = {key: value / _NANO for key, value in values.items() if value}
    return HealthCheck(test=test, **times, **({"retries": retries} if retries else {}))  # type: ignore[arg-type]


def _binds(host: Fields) -> tuple[Mount, ...]:
    if host.text("VolumeDriver") not in ("", "local"):
        raise NotSupported("volume drivers other than local are not supported")
    return tuple(_bind(text) for text in host.texts("Binds"))


def _bind(text: str) -> Mount:
    """`source:target[:options]`."""
    parts = text.split(":")
    if len(parts) == 1:
        return Mount(kind="volume", target=_absolute(parts[0], text))
    if len(parts) > 3:
        raise InputError(f"invalid volume specification: {text!r}")
    source, target = parts[0], _absolute(parts[1], text)
    options = parts[2].split(",") if len(parts) == 3 else []
    read_only, no_copy, map_ids = False, False, False
    propagation: Propagation | None = None
    for option in options:
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option == "nocopy":
            no_copy = True
        elif source.startswith("/") and option in _PROPAGATIONS:
            propagation = _propagation(option)
        elif source.startswith("/") and option == "idmap":
            map_ids = True
        elif option not in ("z", "Z"):  # SELinux labels, which other kernels do not have
            raise InputError(f"invalid mode: {option} in {text!r}")
    if source.startswith("/"):
        return Mount(
            kind="bind",
            source=posixpath.normpath(source),
            target=target,
            read_only=read_only,
            create_source=True,
            propagation=propagation or "rprivate",
            map_ids=map_ids,
        )
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", source):
        raise InputError(
            f'"{source}" includes invalid characters for a local volume name; a path must be absolute'
        )
    return Mount(kind="volume", source=source, target=target, read_only=read_only, no_copy=no_copy)


def _mounts(given: list[Any]) -> tuple[Mount, ...]:
    return tuple(_mount(Fields(entry, "Mounts")) for entry in given)


def _mount(fields: Fields) -> Mount:
    kind = _mount_kind(fields.text("Type"))
    target = _absolute(fields.text("Target"), "Mounts.Target")
    source, read_only = fields.text("Source"), fields.flag("ReadOnly")
    fields.ignore({"Consistency": "for macOS"})
    bind, volume, tmpfs = (_options(fields, kind, name) for name in ("bind", "volume", "tmpfs"))
    mount = Mount(
        kind=kind,
        source=source,
        target=target,
        read_only=read_only,
        create_source=bind.flag("CreateMountpoint"),
        propagation=_propagation(bind.text("Propagation") or "rprivate"),
        no_copy=volume.flag("NoCopy"),
        labels=volume.labels("Labels"),
        subpath=volume.text("Subpath"),
        tmpfs_size=tmpfs.number("SizeBytes"),
        tmpfs_mode=tmpfs.number("Mode") or 0o1777,
    )
    driver = volume.inner("DriverConfig")
    if driver.text("Name") not in ("", "local"):
        raise NotSupported("volume drivers other than local are not supported")
    for part in (driver, bind, volume, tmpfs, fields):
        part.rest()
    if kind == "bind" and not source.startswith("/"):
        raise InputError(f'invalid mount config for type "bind": invalid mount path: {source!r}')
    if kind == "tmpfs" and source:
        raise InputError('invalid mount config for type "tmpfs": field Source must not be specified')
    return mount


def _options(fields: Fields, kind: MountKind, name: str) -> Fields:
    """A mount's options for its own kind; those of another kind must not be there."""
    key = f"{name.capitalize()}Options"
    if name != kind and fields.given(key):
        raise InputError(f'invalid mount config for type "{kind}": field {key} must not be specified')
    return fields.inner(key)


def _propagation(text: str) -> Propagation:
    for known in _PROPAGATIONS:
        if text == known:
            return known
    raise InputError(f"invalid propagation mode: {text!r}")


def _mount_kind(text: str) -> MountKind:
    for kind in ("volume", "bind", "tmpfs"):
        if text == kind:
            return kind
    raise NotSupported(f"mount type {text!r} is not supported: volume, bind and tmpfs are")


def _tmpfs(given: dict[str, str]) -> tuple[Mount, ...]:
    return tuple(
        Mount(
            kind="tmpfs",
            target=_absolute(target, "Tmpfs"),
            read_only="ro" in (words := [word for word in options.split(",") if word]),
            tmpfs_size=_tmpfs_size(words),
            tmpfs_mode=_tmpfs_mode(words),
            tmpfs_options=tuple(
                w for w in words if w not in ("ro", "rw") and w[:5] not in ("size=", "mode=")
            ),
        )
        for target, options in given.items()
    )


def _tmpfs_size(words: list[str]) -> int:
    for word in words:
        match = re.fullmatch(r"size=(\d+)([kmg]?)", word.lower())
        if match:
            return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]
        if word.startswith("size="):
            raise InputError(f"invalid tmpfs option {word!r}")
    return 0


def _tmpfs_mode(words: list[str]) -> int:
    for word in words:
        if word.startswith("mode="):
            try:
                return int(word[5:], 8)
            except ValueError:
                raise InputError(f"invalid tmpfs option {word!r}") from None
    return 0o1777


def _distinct(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    seen = set()
    for mount in mounts:
        place = mount.target.rstrip("/")
        if place in seen:
            raise InputError(f"Duplicate mount point: {place}")
        seen.add(place)
    return mounts


def _with_volumes(config: Fields, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Clients name in Volumes again what they have in Binds: an anonymous one is for the rest."""
    taken = {mount.target.rstrip("/") for mount in mounts}
    volumes = [_absolute(target, "Volumes") for target in config.mapping("Volumes")]
    return (
        *mounts,
        *(Mount(kind="volume", target=target) for target in volumes if target.rstrip("/") not in taken),
    )


def _absolute(path: str, where: str) -> str:
    if not path.startswith("/") or path.rstrip("/") == "":
        raise InputError(f"invalid mount target {path!r} in {where!r}: it must be absolute, and not /")
    return path


def _ports(given: dict[str, Any]) -> tuple[PortMap, ...]:
    found = []
    for port, bindings in given.items():
        number, protocol = _port(port)
        for binding in bindings or [{}]:
            fields = Fields(binding, f"PortBindings.{port}")
            host_ip, host_port = fields.text("HostIp"), fields.text("HostPort")
            fields.rest()
            first, last = _host_ports(host_port, port)
            found.append(
                PortMap(
                    container_port=number,
                    protocol=protocol,
                    host_ip="" if host_ip == "0.0.0.0" else host_ip,
                    host_port=first,
                    host_port_last=last,
                )
            )
    return tuple(found)


def _host_ports(text: str, port: str) -> tuple[int, int]:
    """`8080`, or `8000-8010` of which one is taken; the second is 0 for one alone."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text or "0", re.ASCII)
    if match is None:
        raise InputError(f"invalid port specification: {text!r} for {port}")
    first, last = int(match[1]), int(match[2] or 0)
    if first > 65535 or last > 65535 or (match[2] and not 0 < first <= last):
        raise InputError(f"invalid port specification: {text!r} for {port}")
    return first, last if last > first else 0


def _port(text: str) -> tuple[int, Literal["tcp", "udp"]]:
    number, _, protocol = text.partition("/")
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise InputError(f"invalid port {text!r}")
    if protocol in ("", "tcp"):
        return int(number), "tcp"
    if protocol == "udp":
        return int(number), "udp"
    raise NotSupported(f"protocol {protocol!r} of port {number} is not supported: tcp and udp are")


def _ulimits(given: list[Any]) -> tuple[Ulimit, ...]:
    found = []
    for entry in given:
        fields = Fields(entry, "Ulimits")
        found.append(Ulimit(name=fields.text("Name"), soft=fields.number("Soft"), hard=fields.number("Hard")))
        fields.rest()
    return tuple(found)


def _devices(given: list[Any]) -> tuple[Device, ...]:
    found = []
    for entry in given:
        fields = Fields(entry, "Devices")
        host = fields.text("PathOnHost")
        target, access = fields.text("PathInContainer") or host, fields.text("CgroupPermissions") or "rwm"
        fields.rest()
        found.append(Device(host=host, target=target, access=access))
    return tuple(found)


def _rates(given: list[Any]) -> tuple[DeviceRate, ...]:
    found = []
    for entry in given:
        fields = Fields(entry, "BlkioDevice")
        found.append(DeviceRate(path=fields.text("Path"), rate=fields.number("Rate")))
        fields.rest()
    return tuple(found)


def _log(fields: Fields) -> LogConfig:
    kind = fields.text("Type") or "json-file"
    options = fields.labels("Config")
    fields.rest()
    if kind not in ("json-file", "local", "none"):
        raise NotSupported(f"log driver {kind!r} is not supported: json-file, local and none are")
    if kind == "none" and options:
        raise InputError("invalid logging opts for driver none")
    defaults = LogConfig()
    size, count, buffer = (options.pop(name, "") for name in ("max-size", "max-file", "max-buffer-size"))
    mode, compress = options.pop("mode", ""), options.pop("compress", "false")
    if mode == "blocking":
        raise NotSupported("log mode 'blocking' is not supported: a log never holds its container up")
    if mode not in ("", "non-blocking"):
        raise InputError(f"logger: logging mode not supported: {mode}")
    if compress != "false":
        raise NotSupported("log option 'compress' is not supported")
    for option in options:
        if option in _LOG_OPTIONS:
            raise NotSupported(f"log option {option!r} is not supported")
        raise InputError(f"unknown log opt '{option}' for {kind} log driver")
    return LogConfig(
        driver=kind,  # type: ignore[arg-type]
        max_size=0 if size == "-1" else _size(size, "max-size") if size else defaults.max_size,
        max_files=_count(count) if count else defaults.max_files,
        buffer=_size(buffer, "max-buffer-size") if buffer else defaults.buffer,
    )


_LOG_OPTIONS = ("labels", "labels-regex", "env", "env-regex", "tag")


def _size(text: str, where: str) -> int:
    match = re.fullmatch(r"(\d+)([bkmg]?)b?", text.lower())
    if match is None or int(match[1]) == 0:
        raise InputError(f"{where}: invalid size: '{text}'")
    return int(match[1]) << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}[match[2]]


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise InputError("max-file cannot be less than 1")
    return int(text)


def _userns(mode: str) -> Literal["", "host", "auto"]:
    match mode:
        case "" | "host" | "auto":
            return mode
    raise NotSupported(f"HostConfig.UsernsMode {mode!r} is not supported: host and auto are")


def _own(mode: str, *same: str) -> str:
    return "" if mode in same else mode


def _refuse_combinations(spec: ContainerSpec, host: Fields) -> None:
    if not spec.image:
        raise InputError("no image specified")
    if host.text("Runtime") not in ("", "hawse"):
        raise NotSupported("HostConfig.Runtime is not supported by hawse-agent, which is a runtime itself")
    if host.text("CgroupnsMode") not in ("", "private"):
        raise NotSupported("HostConfig.CgroupnsMode host is not supported by hawse-agent")
    if spec.auto_remove and spec.restart.mode != "no":
        raise InputError("Conflicting options: --restart and --rm")
    if spec.working_dir and not spec.working_dir.startswith("/"):
        raise InputError(
            f"the working directory '{spec.working_dir}' is invalid, it needs to be an absolute path"
        )
    if spec.hostname and spec.uts_mode == "host":
        raise InputError("conflicting options: hostname and the UTS mode")
    if spec.network_mode.startswith("container:") and (spec.hostname or spec.dns or spec.extra_hosts):
        raise InputError("conflicting options: hostname, dns or extra hosts and the network mode")
