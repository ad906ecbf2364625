"""From a validated Compose file to the `StackSpec` that the agent gets: names, labels, networks, files.

Pure but for the files of the project that it reads.

    containers   <stack>-<service>-<n>, or container_name       aliases on each network: the service's name
    networks     <stack>_<network>, `default` when none is named; external ones by their own name
    volumes      <stack>_<volume>; external ones by their own name
    configs      /<name>                                        secrets   /run/secrets/<name>

A service whose profile is not asked for, or whose `x-hawse: hosts:` does not match this host, is not in the
stack of this host. A dependency on a service that lives on other hosts only is dropped: hosts start on their
own, and order across them is the play's business. Networks and volumes that nothing here uses are left out.
"""

from __future__ import annotations

import base64
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from hawse.stack import model
from hawse.stack.build import Build
from hawse.stack.document import Document, Path
from hawse.stack.files import ProjectFiles
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.container import (
    ContainerSpec,
    DependsCondition,
    Device,
    DeviceRate,
    EndpointSpec,
    FileContent,
    HealthCheck,
    LogConfig,
    PortMap,
    Resources,
    RestartMode,
    RestartPolicy,
    Ulimit,
)
from hawse_agent.spec.host import LABEL_SERVICE, LABEL_STACK, ImageSource, StackSpec
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.volume import Mount, VolumeSpec

T = TypeVar("T")
_RESTART_MODES: Mapping[str, RestartMode] = {
    "no": "no",
    "always": "always",
    "unless-stopped": "unless-stopped",
    "on-failure": "on-failure",
    "none": "no",
    "any": "always",
}
_CONDITIONS: Mapping[str, DependsCondition] = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """One Compose file on one host."""

    compose: model.ComposeFile
    document: Document
    name: str
    files: ProjectFiles
    environment: Mapping[str, str]
    profiles: Sequence[str]
    images: Callable[[str], ImageSource | None]
    host_matches: Callable[[str], bool]
    builds: Callable[[Build], None]

    def stack(self) -> StackSpec:
        containers = [spec for service in self._placed for spec in self._containers(service)]
        built: dict[str, Build] = {}
        for key in self._placed:
            build = self._build(key)
            if build is not None and built.setdefault(build.reference, build) != build:
                raise self._error(key, "build", message=f"{build.reference} is built in two ways")
        for build in built.values():
            self.builds(build)
        self._check_names(containers)
        self._check_ports()
        networks = {endpoint.network for spec in containers for endpoint in spec.networks}
        volumes = {m.source for spec in containers for m in spec.mounts if m.kind == "volume" and m.source}
        references = dict.fromkeys(spec.image for spec in containers)
        return StackSpec(
            name=self.name,
            networks=tuple(self._network(key) for key in self._own_networks(networks)),
            volumes=tuple(
                VolumeSpec(
                    name=self._volume_name(key),
                    driver=volume.driver,
                    options=volume.driver_opts,
                    labels={**volume.labels, LABEL_STACK: self.name},
                )
                for key, volume in self.compose.volumes.items()
                if not volume.external and self._volume_name(key) in volumes
            ),
            images=tuple(self.images(ref) or ImageSource(reference=ref) for ref in references),
            containers=tuple(containers),
            wait=self.compose.hawse.wait,
        )

    # which services, under which names

    @cached_property
    def _placed(self) -> list[str]:
        """Services that this host runs."""
        return [
            name
            for name, service in self.compose.services.items()
            if self._active(service) and (not service.hawse.hosts or self.host_matches(service.hawse.hosts))
        ]

    def _active(self, service: model.Service) -> bool:
        return not service.profiles or "*" in self.profiles or bool({*service.profiles} & {*self.profiles})

    def _names(self, key: str) -> list[str]:
        """Container names of a service, one per replica."""
        service = self.compose.services[key]
        count, field = service.scale, "scale"
        if "replicas" in service.deploy.model_fields_set:
            count, field = service.deploy.replicas, "deploy"
        if count < 0:
            raise self._error(key, field, message="expected a number of containers, not a negative one")
        if service.container_name:
            if count > 1:
                raise self._error(key, "container_name", message=f"{count} containers cannot share one name")
            return [service.container_name][:count]
        return [f"{self.name}-{key}-{number}" for number in range(1, count + 1)]

    def _check_names(self, containers: list[ContainerSpec]) -> None:
        owners: dict[str, str] = {}
        for spec in containers:
            service = spec.labels[LABEL_SERVICE]
            if spec.name in owners:
                message = (
                    f"services {owners[spec.name]} and {service} both make a container named {spec.name}"
                )
                raise self._error(service, "container_name", message=message)
            owners[spec.name] = service

    def _check_ports(self) -> None:
        """Two containers cannot publish one port of the host; names both and their lines."""
        taken: list[tuple[str, int, str, str, Path]] = []
        for key in self._placed:
            for name in self._names(key):
                for index, port in enumerate(self.compose.services[key].ports):
                    path = ("services", key, "ports", index)
                    for number in filter(None, port.published_ports()):
                        for ip, other, protocol, owner, place in taken:
                            same = (other, protocol) == (number, port.protocol)
                            if same and _overlap(ip, port.host_ip):
                                line = self.document.place(self.document.line(place))
                                raise self.document.error(
                                    path,
                                    f"host port {number}/{protocol} of {name} is already published by "
                                    f"{owner} ({line})",
                                )
                        taken.append((port.host_ip, number, port.protocol, name, path))

    # one service

    def _containers(self, key: str) -> list[ContainerSpec]:
        service = self.compose.services[key]
        depends = dict(self._depends_on(key))
        network_mode = self._namespace(key, "network_mode", depends) or "default"
        pid_mode = self._namespace(key, "pid", depends)
        ipc_mode = self._namespace(key, "ipc", depends)
        volumes_from = tuple(self._volumes_from(key, depends))
        endpoints = self._endpoints(key) if network_mode == "default" else ()
        self._check_network_mode(key, network_mode)
        no_new_privileges, seccomp = self._security(key)
        spec = ContainerSpec(
            name="",
            image=self._image(key),
            command=_tuple(service.command),
            entrypoint=_tuple(service.entrypoint),
            environment=self._environment(key),
            user=service.user,
            group_add=tuple(service.group_add),
            working_dir=service.working_dir,
            hostname=service.hostname,
            domainname=service.domainname,
            labels=self._labels(service.labels, ("services", key, "labels"), key),
            tty=service.tty,
            stdin_open=service.stdin_open,
            stop_signal=service.stop_signal,
            stop_timeout=math.ceil(g) if (g := service.stop_grace_period) is not None else None,
            restart=self._restart(key),
            health=_health(service.healthcheck),
            resources=self._resources(key),
            mounts=tuple(self._mounts(key)),
            volumes_from=volumes_from,
            files=(*self._files(key, secret=False), *self._files(key, secret=True)),
            network_mode=endpoints[0].network if endpoints else network_mode,
            networks=endpoints,
            ports=tuple(_ports(service.ports)),
            expose=tuple(entry for entries in service.expose for entry in entries),
            dns=tuple(service.dns),
            dns_search=tuple(service.dns_search),
            dns_options=tuple(service.dns_opt),
            extra_hosts=tuple(service.extra_hosts),
            cap_add=tuple(service.cap_add),
            cap_drop=tuple(service.cap_drop),
            privileged=service.privileged,
            no_new_privileges=no_new_privileges,
            seccomp=seccomp,
            read_only=service.read_only,
            sysctls=service.sysctls,
            ulimits=tuple(
                Ulimit(name=name, soft=limit.soft, hard=limit.hard) for name, limit in service.ulimits.items()
            ),
            devices=tuple(
                Device(host=d.source, target=d.target or d.source, access=d.permissions)
                for d in service.devices
            ),
            shm_size=service.shm_size,
            oom_score_adj=service.oom_score_adj,
            init=service.init,
            pid_mode=pid_mode,
            ipc_mode=ipc_mode,
            uts_mode=service.uts,
            userns_mode=service.userns_mode,
            log=LogConfig(
                driver=service.logging.driver,
                max_size=service.logging.options.max_size,
                max_files=service.logging.options.max_file,
            ),
            depends_on=depends,
        )
        return [replace(spec, name=name) for name in self._names(key)]

    # images that are built

    def _image(self, key: str) -> str:
        return self.compose.services[key].image or f"{self.name}-{key.lower()}"

    def _build(self, key: str) -> Build | None:
        build = self.compose.services[key].build
        if build is None:
            return None
        if re.match(r"([a-z+]+://|git@|github\.com/)", build.context):
            message = f"a context from elsewhere is not supported by Hawse: {build.context}"
            raise NotSupported(message, where=self.document.where(("services", key, "build")))
        context = self.files.path(build.context)
        return Build(
            reference=self._image(key),
            context=str(context),
            dockerfile=str(context / build.dockerfile) if build.dockerfile else "",
            text=build.dockerfile_inline,
            arguments={
                name: self.environment.get(name) if value is None else value
                for name, value in build.args.items()
            },
            labels=build.labels,
            target=build.target,
            network=build.network,
            tags=tuple(build.tags),
            no_cache=build.no_cache,
            pull=build.pull,
            extra_hosts=tuple(build.extra_hosts),
            shm_size=build.shm_size,
            ulimits=tuple(
                {"Name": name, "Soft": limit.soft, "Hard": limit.hard}
                for name, limit in build.ulimits.items()
            ),
            secrets=dict(self._build_secrets(key, build)),
        )

    def _build_secrets(self, key: str, build: model.Build) -> Iterator[tuple[str, bytes]]:
        for index, use in enumerate(build.secrets):
            if use.source not in self.compose.secrets:
                path = ("services", key, "build", "secrets", index)
                hint = _close(use.source, self.compose.secrets)
                raise self.document.error(path, f"there is no secret {use.source!r}", hint=hint)
            yield use.target or use.source, self._content("secrets", use.source)

    def _environment(self, key: str) -> dict[str, str]:
        service = self.compose.services[key]
        result: dict[str, str] = {}
        for index, entry in enumerate(service.env_file):
            if not entry.required and not self.files.exists(entry.path):
                continue
            where = self.document.where(("services", key, "env_file", index))
            raw = entry.format == "raw"
            result |= self.files.environment(entry.path, where, self.environment, raw=raw)
        for name, value in service.environment.items():
            if value is not None:
                result[name] = value
            elif name in self.environment:
                result[name] = self.environment[name]
        return result

    def _labels(self, labels: Mapping[str, str], path: Path, service: str = "") -> dict[str, str]:
        for label in labels:
            if label in (LABEL_STACK, LABEL_SERVICE):
                raise self.document.error((*path, label), "this label is Hawse's own")
        own = {LABEL_STACK: self.name}
        return {**labels, **own, **({LABEL_SERVICE: service} if service else {})}

    def _restart(self, key: str) -> RestartPolicy:
        service = self.compose.services[key]
        deploy = service.deploy.restart_policy
        if deploy is not None:
            if service.restart:
                raise self._error(key, "restart", message="is said twice: here and in deploy.restart_policy")
            return RestartPolicy(mode=_RESTART_MODES[deploy.condition], max_retries=deploy.max_attempts)
        mode, _, retries = (service.restart or "no").partition(":")
        return RestartPolicy(mode=_RESTART_MODES[mode], max_retries=int(retries or 0))

    def _resources(self, key: str) -> Resources:
        service = self.compose.services[key]
        limits, reserved = service.deploy.resources.limits, service.deploy.resources.reservations

        def once(field: str, direct: T, deployed: T) -> T:
            """Both notations may be given when they agree."""
            if direct and deployed and direct != deployed:
                raise self._error(key, field, message="contradicts deploy.resources")
            return direct or deployed

        memory = once("mem_limit", service.mem_limit, limits.memory)
        pids = once("pids_limit", service.pids_limit, limits.pids)
        swap = service.memswap_limit
        if swap and not memory:
            raise self._error(key, "memswap_limit", message="needs mem_limit beside it")
        if 0 < swap < memory:
            raise self._error(
                key, "memswap_limit", message="counts memory and swap, and is below the memory limit"
            )
        blkio = service.blkio_config
        return Resources(
            memory=memory or None,
            memory_swap=swap or None,
            memory_reservation=once("mem_reservation", service.mem_reservation, reserved.memory) or None,
            cpus=once("cpus", service.cpus, limits.cpus) or None,
            cpu_shares=service.cpu_shares or None,
            cpuset_cpus=service.cpuset,
            pids=pids if pids > 0 else None,
            read_bps=_rates(blkio.device_read_bps),
            write_bps=_rates(blkio.device_write_bps),
            read_iops=_rates(blkio.device_read_iops),
            write_iops=_rates(blkio.device_write_iops),
        )

    def _security(self, key: str) -> tuple[bool, str]:
        no_new_privileges, seccomp = False, "default"
        for index, option in enumerate(self.compose.services[key].security_opt):
            kind, _, value = option.partition(":")
            if kind == "no-new-privileges":
                no_new_privileges = value != "false"
                continue
            if value in ("unconfined", "default"):
                seccomp = value
                continue
            path = ("services", key, "security_opt", index)
            profile = self.files.read(value, self.document.where(path))
            try:
                seccomp = json.dumps(json.loads(profile), separators=(",", ":"))
            except ValueError as error:
                raise self.document.error(path, f"seccomp profile {value} is not JSON: {error}") from error
        return no_new_privileges, seccomp

    # order, and what services share

    def _depends_on(self, key: str) -> Iterable[tuple[str, DependsCondition]]:
        for other, dependency in self.compose.services[key].depends_on.items():
            path = ("services", key, "depends_on", other)
            self._require_service(other, path)
            if not self._active(self.compose.services[other]):
                if dependency.required:
                    profiles = ", ".join(self.compose.services[other].profiles)
                    raise self.document.error(
                        path,
                        f"service {other} is switched off: its profile ({profiles}) is not asked for",
                        hint="ask for the profile, or say required: false",
                    )
                continue
            if other in self._placed:
                for name in self._names(other):
                    yield name, _CONDITIONS[dependency.condition]

    def _require_service(self, name: str, path: Path) -> None:
        if name not in self.compose.services:
            raise self.document.error(
                path, f"there is no service {name!r}", hint=_close(name, self.compose.services)
            )

    def _local(self, name: str, path: Path) -> str:
        """The first container of a service whose namespace or volumes are shared: it must be on this host."""
        self._require_service(name, path)
        names = self._names(name) if name in self._placed else []
        if not names:
            raise self.document.error(path, f"service {name} does not run on this host, so it shares nothing")
        return names[0]

    def _namespace(self, key: str, field: str, depends: dict[str, DependsCondition]) -> str:
        """`service:x` as `container:NAME`; x is then started first."""
        mode: str = getattr(self.compose.services[key], field)
        kind, _, other = mode.partition(":")
        if kind != "service":
            return mode
        container = self._local(other, ("services", key, field))
        depends.setdefault(container, "started")
        return f"container:{container}"

    def _volumes_from(self, key: str, depends: dict[str, DependsCondition]) -> Iterable[str]:
        for index, entry in enumerate(self.compose.services[key].volumes_from):
            path = ("services", key, "volumes_from", index)
            foreign = entry.startswith("container:")
            name, _, access = entry.removeprefix("container:").partition(":")
            if access not in ("", "ro", "rw"):
                raise self.document.error(path, f"expected ro or rw, not {access!r}")
            if not foreign:
                name = self._local(name, path)
                depends.setdefault(name, "started")
            yield f"{name}:{access}" if access else name

    # networks

    def _check_network_mode(self, key: str, mode: str) -> None:
        service = self.compose.services[key]
        if mode == "default":
            return
        if service.networks:
            raise self._error(
                key, "networks", message=f"does not go with network_mode: {service.network_mode}"
            )
        if mode != "bridge" and service.ports:
            raise self._error(
                key, "ports", message=f"cannot be published with network_mode: {service.network_mode}"
            )

    def _endpoints(self, key: str) -> tuple[EndpointSpec, ...]:
        """As Compose attaches them: by priority, then name; the first that leads out is the default route."""
        service = self.compose.services[key]
        wanted = service.networks or {"default": model.ServiceNetwork()}
        for name, network in wanted.items():
            path = ("services", key, "networks", name)
            if name not in self.compose.networks and name != "default":
                raise self.document.error(
                    path, f"there is no network {name!r}", hint=_close(name, self.compose.networks)
                )
            if (network.ipv4_address or network.mac_address) and len(self._names(key)) > 1:
                raise self.document.error(path, "several containers cannot share one address")
        ordered = sorted(wanted.items(), key=lambda item: (-item[1].priority, item[0]))
        return tuple(
            EndpointSpec(
                network=self._network_name(name),
                aliases=tuple(dict.fromkeys((key, *network.aliases))),
                ipv4=network.ipv4_address,
                mac=network.mac_address or (service.mac_address if position == 0 else ""),
            )
            for position, (name, network) in enumerate(ordered)
        )

    def _network_name(self, key: str) -> str:
        network = self.compose.networks.get(key, model.Network())
        return network.name or (key if network.external else f"{self.name}_{key}")

    def _own_networks(self, used: set[str]) -> Iterable[str]:
        keys = dict.fromkeys((*self.compose.networks, "default"))
        for key in keys:
            external = key in self.compose.networks and self.compose.networks[key].external
            if not external and self._network_name(key) in used:
                yield key

    def _network(self, key: str) -> NetworkSpec:
        network = self.compose.networks.get(key, model.Network())
        pool = network.ipam.config[0] if network.ipam.config else model.IpamPool()
        return NetworkSpec(
            name=self._network_name(key),
            driver=network.driver,
            subnet=pool.subnet,
            gateway=pool.gateway,
            ip_range=pool.ip_range,
            internal=network.internal,
            mtu=network.driver_opts.mtu,
            icc=network.driver_opts.icc,
            labels=self._labels(network.labels, ("networks", key, "labels")),
        )

    # volumes and files

    def _volume_name(self, key: str) -> str:
        volume = self.compose.volumes[key]
        return volume.name or (key if volume.external else f"{self.name}_{key}")

    def _mounts(self, key: str) -> Iterable[Mount]:
        service = self.compose.services[key]
        seen: dict[str, Path] = {}
        for index, mount in enumerate(service.volumes):
            path: Path = ("services", key, "volumes", index)
            self._claim(seen, mount.target, path)
            source = mount.source
            if mount.type == "volume" and source:
                if source not in self.compose.volumes:
                    raise self.document.error(
                        path,
                        f"there is no volume {source!r} under volumes:",
                        hint=_close(source, self.compose.volumes)
                        or "declare it there, or write an absolute path to bind a directory of the host",
                    )
                source = self._volume_name(source)
            yield Mount(
                kind=mount.type,
                target=mount.target,
                source=source,
                read_only=mount.read_only,
                no_copy=mount.volume.nocopy,
                subpath=mount.volume.subpath,
                create_source=mount.type == "bind" and mount.bind.create_host_path,
                propagation=mount.bind.propagation,
                map_ids=mount.bind.idmap,
                tmpfs_size=mount.tmpfs.size,
                tmpfs_mode=mount.tmpfs.mode,
            )
        for index, tmpfs in enumerate(service.tmpfs):
            self._claim(seen, tmpfs.target, ("services", key, "tmpfs", index))
            yield Mount(
                kind="tmpfs",
                target=tmpfs.target,
                tmpfs_size=tmpfs.size,
                tmpfs_mode=tmpfs.mode,
                tmpfs_options=tuple(tmpfs.options),
            )

    def _claim(self, seen: dict[str, Path], target: str, path: Path) -> None:
        plain = target.rstrip("/") or "/"
        if plain in seen:
            line = self.document.place(self.document.line(seen[plain]))
            raise self.document.error(path, f"{plain} is mounted twice (also {line})")
        seen[plain] = path

    def _files(self, key: str, *, secret: bool) -> tuple[FileContent, ...]:
        section = "secrets" if secret else "configs"
        service = self.compose.services[key]
        sources = self.compose.secrets if secret else self.compose.configs
        result = []
        for index, use in enumerate(service.secrets if secret else service.configs):
            path = ("services", key, section, index)
            if use.source not in sources:
                raise self.document.error(
                    path, f"there is no {section[:-1]} {use.source!r}", hint=_close(use.source, sources)
                )
            target = use.target or use.source
            if not target.startswith("/"):
                target = f"/run/secrets/{target}" if secret else f"/{target}"
            result.append(
                FileContent(
                    target=target,
                    content=base64.b64encode(self._content(section, use.source)).decode(),
                    mode=use.mode,
                    uid=use.uid,
                    gid=use.gid,
                    secret=secret,
                )
            )
        return tuple(result)

    def _content(self, section: str, name: str) -> bytes:
        source = (self.compose.secrets if section == "secrets" else self.compose.configs)[name]
        path = (section, name)
        if source.content is not None:
            return source.content.encode()
        if source.file:
            return self.files.read(source.file, self.document.where((*path, "file")))
        try:
            return self.environment[source.environment].encode()
        except KeyError:
            raise self.document.error(
                (*path, "environment"), f"variable {source.environment} is not set"
            ) from None

    def _error(self, key: str, *field: str, message: str) -> InputError:
        return self.document.error(("services", key, *field), message)


def _ports(ports: Iterable[model.Port]) -> Iterable[PortMap]:
    for port in ports:
        for target, published in zip(port.target, port.published_ports(), strict=True):
            yield PortMap(
                container_port=target, host_port=published, host_ip=port.host_ip, protocol=port.protocol
            )


def _health(check: model.Health | None) -> HealthCheck | None:
    if check is None:
        return None
    if check.disable:
        return HealthCheck(test=("NONE",))
    return HealthCheck(
        test=tuple(check.test),
        interval=check.interval,
        timeout=check.timeout,
        start_period=check.start_period,
        start_interval=check.start_interval,
        retries=check.retries,
    )


def _rates(limits: Iterable[model.DeviceLimit]) -> tuple[DeviceRate, ...]:
    return tuple(DeviceRate(path=limit.path, rate=limit.rate) for limit in limits)


def _tuple(argv: list[str] | None) -> tuple[str, ...] | None:
    return None if argv is None else tuple(argv)


def _overlap(one: str, other: str) -> bool:
    return one == other or any(ip in ("", "0.0.0.0", "::") for ip in (one, other))


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
