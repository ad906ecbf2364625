"""Docker's create request → ContainerSpec. Refuses by name what is not done."""

from __future__ import annotations

from typing import Any, Literal

from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.lowering import limits, mounts, networking, security, supervision
from hawse_agent.engine.resolve import masked_paths, readonly_paths
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.container import ContainerSpec

_SHM = 64 * 1024 * 1024
_PLAIN = ContainerSpec(name="", image="")


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
    endpoints = config.inner("NetworkingConfig")
    links = tuple(networking.link(text) for text in host.texts("Links"))
    mode, networks = networking.networks(host, endpoints, config.text("MacAddress"), links)
    environment, unset = variables(config.texts("Env"))
    console = _console(host.objects("ConsoleSize"))
    no_new_privileges, seccomp = security.options(host.texts("SecurityOpt"))
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
        restart=supervision.restart_policy(host.inner("RestartPolicy")),
        health=supervision.health_check(config.mapping("Healthcheck")),
        resources=limits.resources(host),
        mounts=mounts.all_mounts(config, host),
        volumes_from=host.texts("VolumesFrom"),
        network_mode=mode,
        networks=networks,
        ports=networking.ports(host.mapping("PortBindings")),
        publish_all=host.flag("PublishAllPorts"),
        expose=networking.exposed(config.mapping("ExposedPorts")),
        dns=host.texts("Dns"),
        dns_search=host.texts("DnsSearch"),
        dns_options=host.texts("DnsOptions"),
        links=() if networking.is_own(mode) else links,
        extra_hosts=host.texts("ExtraHosts"),
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        privileged=host.flag("Privileged"),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        masked_paths=security.inner_paths(host, "MaskedPaths", masked_paths(_PLAIN)),
        readonly_paths=security.inner_paths(host, "ReadonlyPaths", readonly_paths(_PLAIN)),
        read_only=host.flag("ReadonlyRootfs"),
        sysctls=host.labels("Sysctls"),
        ulimits=limits.ulimits(host.objects("Ulimits")),
        devices=security.devices(host.objects("Devices")),
        shm_size=_shm_size(host.number("ShmSize")),
        oom_score_adj=limits.oom_score(host.number("OomScoreAdj")),
        init=host.flag("Init") if host.given("Init") else None,
        pid_mode=host.text("PidMode"),
        ipc_mode=_own(host.text("IpcMode"), "private"),
        uts_mode=host.text("UTSMode"),
        userns_mode=_userns(host.text("UsernsMode")),
        log=supervision.log_config(host.inner("LogConfig")),
        auto_remove=host.flag("AutoRemove"),
    )
    _refuse_combinations(spec, host)
    host.rest()
    config.rest()
    return spec


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


def _shm_size(size: int) -> int:
    if size < 0:
        raise InputError(f"HostConfig.ShmSize: {size}: SHM size can not be less than 0")
    return size or _SHM


def _console(given: list[Any]) -> tuple[int, int]:
    if len(given) == 2 and all(type(number) is int and 0 <= number < 65536 for number in given):
        return given[0], given[1]
    if given:
        raise InputError("HostConfig.ConsoleSize: expected height and width")
    return 0, 0


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
    match host.text("CgroupnsMode"):
        case "" | "private":
            pass
        case "host":
            raise NotSupported("HostConfig.CgroupnsMode host is not supported by hawse-agent")
        case other:
            raise InputError(f"HostConfig.CgroupnsMode: invalid cgroup namespace mode: {other}")
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
