"""From a container's spec and its image to the resolved `RuntimeConfig`, and the files bound over /etc. Pure.

Defaults follow Docker's: entrypoint and command combine as there, PATH, HOSTNAME and TERM are set when the
image does not, a network of one's own gets 127.0.0.11 as its resolver and the default bridge does not.
"""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hawse_agent.distribution.manifest import Platform, host_platform, runs
from hawse_agent.engine import checks
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.images.store import Image
from hawse_agent.paths import Paths
from hawse_agent.runtime.defaults import (
    DEFAULT_PATH,
    READONLY_PATHS,
    combine_capabilities,
    default_masked_paths,
)
from hawse_agent.spec.container import ContainerSpec, HealthCheck, Resources, Ulimit
from hawse_agent.spec.records import ContainerRecord, EndpointRecord
from hawse_agent.spec.runtime import BindMount, ProcessConfig, RuntimeConfig, TmpfsMount

DNS_ADDRESS = "127.0.0.11"
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
DEFAULT_NOFILE = 524288
DEFAULT_STOP_TIMEOUT = 10


@dataclass(frozen=True, kw_only=True)
class Namespaces:
    """What a container shares with others, resolved to `new`, `host` or `container:ID`."""

    network: str
    pid: str = "new"
    ipc: str = "new"
    uts: str = "new"
    user: str = "new"
    """Of a container with ids of its own."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the engine knows and the config needs beside spec and image."""

    paths: Paths
    layers: tuple[Path, ...]
    volume_dirs: Mapping[str, Path]
    """Volume name → data directory."""
    namespaces: Namespaces
    cgroup_base: str
    hard_nofile: int
    linked: tuple[Linked, ...] = ()
    host_name: tuple[str, str] | None = None
    """And domain name, of the container whose network is shared."""
    init: bool = False
    """Whether a container that does not say gets an init."""


@dataclass(frozen=True, kw_only=True)
class Linked:
    """A container that another knows by `alias` on the default network."""

    alias: str
    name: str
    id: str
    ipv4: str
    ports: tuple[str, ...] = ()
    """`80/tcp`: what it exposes."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> str:
        """Of its line in /etc/hosts."""
        return " ".join(dict.fromkeys((self.alias, self.id[:12], self.name)))

    def variables(self, own_name: str) -> dict[str, str]:
        """What tells programs of the days of links where the other one is."""
        prefix = self.alias.upper().replace("-", "_")
        ports = sorted(
            (protocol, int(number)) for number, _, protocol in (p.partition("/") for p in self.ports)
        )
        found = {}
        if ports:
            protocol, number = ports[0]
            found[f"{prefix}_PORT"] = f"{protocol}://{self.ipv4}:{number}"
        for protocol, number in ports:
            port = f"{prefix}_PORT_{number}_{protocol.upper()}"
            found |= {
                port: f"{protocol}://{self.ipv4}:{number}",
                f"{port}_ADDR": self.ipv4,
                f"{port}_PORT": str(number),
                f"{port}_PROTO": protocol,
            }
        found[f"{prefix}_NAME"] = f"/{own_name}/{self.alias}"
        for name, value in self.environment.items():
            if name not in ("HOME", "PATH"):
                found[f"{prefix}_ENV_{name}"] = value
        return found


def check_platform(spec: ContainerSpec, image: Image) -> None:
    """Raises NotSupported for an image of another platform, which can be here to be sent on."""
    # What a variant of amd64 needs of the processor, its programs tell.
    variant = "" if image.architecture == "amd64" else image.variant
    meant = Platform(architecture=image.architecture, variant=variant, os=image.os or "linux")
    if image.architecture and not runs(meant, host_platform()):
        raise NotSupported(f"image {spec.image} is for {meant}, and this machine is {host_platform()}")


def command_line(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    """Entrypoint and command as Docker combines them: a new entrypoint drops the image's command."""
    entrypoint = spec.entrypoint if spec.entrypoint is not None else image.config.entrypoint
    command = spec.command
    if command is None and spec.entrypoint is None:
        command = image.config.cmd
    argv = (*(entrypoint or ()), *(command or ()))
    if not argv or argv == ("",):
        raise InputError("no command specified", hint=f"image {spec.image} has neither CMD nor ENTRYPOINT")
    return argv


def environment(
    spec: ContainerSpec, image: Image, hostname: str, linked: Sequence[Linked] = ()
) -> tuple[str, ...]:
    merged = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if spec.tty:
        merged["TERM"] = "xterm"
    for link in linked:
        merged.update(link.variables(spec.name))
    for entry in image.config.env:
        key, _, value = entry.partition("=")
        merged[key] = value
    for key in spec.environment_unset:
        merged.pop(key, None)
    merged.update(spec.environment)
    return tuple(f"{key}={value}" for key, value in merged.items())


def hostname(record: ContainerRecord, namespaces: Namespaces, host_name: str) -> str:
    if namespaces.uts == "host" or (namespaces.network == "host" and not record.spec.hostname):
        return host_name
    return record.spec.hostname or record.id[:12]


def signal_number(name: str) -> int:
    """`SIGTERM`, `TERM`, `15`, `RTMIN+3`; raises InputError for anything else."""
    if not name:
        return signal.SIGTERM
    plain = name.upper().removeprefix("SIG")
    number = 0
    if re.fullmatch(r"[0-9]{1,3}", name):
        number = int(name)
    elif match := re.fullmatch(r"(RTMIN|RTMAX)(?:([+-])([0-9]{1,3}))?", plain):
        base = signal.SIGRTMIN if match[1] == "RTMIN" else signal.SIGRTMAX
        number = int(base) + int(match[3] or 0) * (-1 if match[2] == "-" else 1)
    elif f"SIG{plain}" in signal.Signals.__members__:
        number = signal.Signals[f"SIG{plain}"]
    if not 0 < number < signal.NSIG:
        raise InputError(f"Invalid signal: {name}")
    return int(number)


def health_check(spec: ContainerSpec, image: Image) -> HealthCheck | None:
    of_image = image.config.healthcheck
    check = of_image if spec.health is None else spec.health.over(of_image)
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    return check


def runtime_config(record: ContainerRecord, image: Image, around: Surroundings) -> RuntimeConfig:
    """Everything resolved; raises InputError for what cannot be."""
    spec, paths = record.spec, around.paths
    directory = paths.container(record.id)
    name, domain = hostname(record, around.namespaces, _host_name()), spec.domainname
    if around.host_name is not None:
        name, domain = around.host_name
    binds, tmpfs = mounts(record, around, directory)
    process = ProcessConfig(
        argv=command_line(spec, image),
        env=environment(spec, image, name, around.linked),
        env_files=spec.environment_files,
        cwd=spec.working_dir or image.config.working_dir or "/",
        user=spec.user or image.config.user,
        group_add=spec.group_add,
        tty=spec.tty,
        stdin=spec.stdin_open,
        stdin_once=spec.stdin_once,
        capabilities=combine_capabilities(spec.cap_add, spec.cap_drop, spec.privileged),
        no_new_privileges=spec.no_new_privileges,
        rlimits=_rlimits(spec, around.hard_nofile),
        oom_score_adj=spec.oom_score_adj,
        console_height=spec.console_height,
        console_width=spec.console_width,
    )
    return RuntimeConfig(
        id=record.id,
        name=spec.name,
        process=process,
        hostname=name,
        domainname=domain,
        layers=tuple(str(layer) for layer in around.layers),
        upper=str(directory / "upper"),
        work=str(directory / "work"),
        read_only=spec.read_only,
        binds=binds,
        tmpfs=tmpfs,
        shm_size=0 if spec.ipc_mode == "none" else spec.shm_size,
        devices=spec.devices,
        privileged=spec.privileged,
        masked_paths=masked_paths(spec),
        readonly_paths=readonly_paths(spec),
        seccomp="unconfined" if spec.privileged else spec.seccomp,
        sysctls=spec.sysctls,
        init=_has_init(spec, around),
        cgroup=record.id,
        cgroup_base=around.cgroup_base,
        resources=with_swap(spec.resources),
        network=around.namespaces.network,
        pid_namespace=around.namespaces.pid,
        ipc_namespace=around.namespaces.ipc,
        uts_namespace=around.namespaces.uts,
        ids=record.ids,
        user_namespace=around.namespaces.user,
        stop_signal=signal_number(spec.stop_signal or image.config.stop_signal),
        stop_timeout=spec.stop_timeout if spec.stop_timeout is not None else DEFAULT_STOP_TIMEOUT,
        restart=spec.restart,
        health=health_check(spec, image),
        log=spec.log,
        log_path=str(directory / f"{record.id}-json.log"),
        exit_path=str(directory / "exit.json"),
        run_dir=str(paths.shim(record.id)),
        auto_remove=spec.auto_remove,
    )


def _has_init(spec: ContainerSpec, around: Surroundings) -> bool:
    """Only in a PID namespace of its own: in another's there is an init already."""
    return (around.init if spec.init is None else spec.init) and around.namespaces.pid == "new"


def masked_paths(spec: ContainerSpec) -> tuple[str, ...]:
    if spec.masked_paths is not None:
        return spec.masked_paths
    return () if spec.privileged else default_masked_paths()


def readonly_paths(spec: ContainerSpec) -> tuple[str, ...]:
    if spec.readonly_paths is not None:
        return spec.readonly_paths
    return () if spec.privileged else READONLY_PATHS


def with_swap(resources: Resources) -> Resources:
    """Docker's default: swap as much as memory, so memory plus swap is twice the memory."""
    if resources.memory is None or resources.memory_swap is not None:
        return resources
    values = {name: getattr(resources, name) for name in resources.__dataclass_fields__}
    return Resources(**{**values, "memory_swap": 2 * resources.memory})


def hosts_file(
    spec: ContainerSpec,
    name: str,
    endpoints: Sequence[EndpointRecord],
    gateway: str,
    host_text: str | None,
    linked: Sequence[Linked] = (),
) -> str:
    """/etc/hosts; `host_text` is the machine's own file, for containers in the host's network."""
    lines = [host_text.rstrip("\n")] if host_text is not None else _LOCALHOST
    lines = [
        *lines,
        *(f"{link.ipv4}\t{link.names}" for link in linked),
        *(
            f"{gateway if address == 'host-gateway' else address}\t{host}"
            for host, address in map(checks.host_and_address, spec.extra_hosts)
        ),
    ]
    fqdn = f"{name}.{spec.domainname} {name}" if spec.domainname else name
    lines += [f"{endpoint.ipv4.split('/')[0]}\t{fqdn}" for endpoint in endpoints]
    return "\n".join(lines) + "\n"


def moved(hosts: str, link: Linked) -> str:
    """A file of hosts in which a linked container has its new address, and its new name."""
    known = [link.alias, link.id[:12]]
    lines = (
        f"{link.ipv4}\t{link.names}" if line.partition("\t")[2].split()[:2] == known else line
        for line in hosts.splitlines()
    )
    return "\n".join(lines) + "\n"


_LOCALHOST = [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
]


def resolv_conf(spec: ContainerSpec, host_text: str, *, embedded: bool, host_network: bool) -> str:
    """/etc/resolv.conf. `embedded`: our resolver answers, and forwards the rest itself."""
    nameservers, search, options = _parse_resolv(host_text)
    search = list(spec.dns_search) or search
    options = list(spec.dns_options) or options
    if embedded:
        nameservers = [DNS_ADDRESS]
        if not any(option.startswith("ndots:") for option in options):
            options = [*options, "ndots:0"]
    elif spec.dns:
        nameservers = list(spec.dns)
    elif not host_network:  # the host's loopback resolver is not reachable from a namespace of its own
        nameservers = [ns for ns in nameservers if not ns.startswith("127.") and ns != "::1"]
        nameservers = nameservers or list(FALLBACK_NAMESERVERS)
    lines = [f"nameserver {ns}" for ns in nameservers]
    if search and search != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def _parse_resolv(text: str) -> tuple[list[str], list[str], list[str]]:
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] == "nameserver" and len(words) > 1:
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return nameservers, search, options


def mounts(
    record: ContainerRecord, around: Surroundings, directory: Path
) -> tuple[tuple[BindMount, ...], tuple[TmpfsMount, ...]]:
    """What is mounted on the root and what for, parents first."""
    spec = record.spec
    mounted = {mount.target.rstrip("/") or "/" for mount in spec.mounts}
    binds = [
        BindMount(source=str(directory / "etc" / name), target=f"/etc/{name}", map_ids=True)
        for name in ("resolv.conf", "hostname", "hosts")
        if f"/etc/{name}" not in mounted
    ]
    tmpfs = []
    for mount in spec.mounts:
        if mount.kind == "tmpfs":
            tmpfs.append(
                TmpfsMount(
                    target=mount.target,
                    size=mount.tmpfs_size,
                    mode=mount.tmpfs_mode,
                    options=(*mount.tmpfs_options, *(("ro",) if mount.read_only else ())),
                )
            )
            continue
        if mount.kind == "volume":
            source = around.volume_dirs[record.volumes[mount.target]]
        else:
            source = Path(mount.source)
        binds.append(
            BindMount(
                source=str(source),
                target=mount.target,
                inside=mount.subpath,
                read_only=mount.read_only,
                propagation=mount.propagation,
                map_ids=mount.map_ids or mount.kind == "volume",
                layers=mount.layers,
            )
        )
    explicit = {mount.target for mount in spec.mounts}
    inherited = {mount.target: mount for mount in record.inherited if mount.target not in explicit}
    binds += [
        BindMount(
            source=mount.source,
            target=mount.target,
            read_only=mount.read_only,
            propagation=mount.propagation,
            map_ids=mount.map_ids,
        )
        for mount in inherited.values()
        if mount.kind == "bind"
    ]
    for target, volume in record.volumes.items():
        if target not in explicit:
            of = inherited.get(target)
            binds.append(
                BindMount(
                    source=str(around.volume_dirs[volume]),
                    target=target,
                    inside=of.subpath if of is not None else "",
                    read_only=of is not None and of.read_only,
                    map_ids=True,
                )
            )
    binds += [
        BindMount(source=str(file_source(directory, index)), target=file.target, read_only=True, map_ids=True)
        for index, file in enumerate(spec.files)
    ]
    # A mount on a parent must come before the mounts below it.
    return tuple(sorted(binds, key=lambda b: b.target.rstrip("/").count("/"))), tuple(
        sorted(tmpfs, key=lambda t: t.target.rstrip("/").count("/"))
    )


def file_source(directory: Path, index: int) -> Path:
    """Where the content of `spec.files[index]` lies on the host."""
    return directory / "files" / str(index)


def file_bytes(content: str) -> bytes:
    return base64.b64decode(content)


def _rlimits(spec: ContainerSpec, hard_nofile: int) -> tuple[Ulimit, ...]:
    if any(limit.name == "nofile" for limit in spec.ulimits):
        return spec.ulimits
    count = min(DEFAULT_NOFILE, hard_nofile)  # infinity makes programs that close every fd crawl
    return (*spec.ulimits, Ulimit(name="nofile", soft=count, hard=count))


def _host_name() -> str:
    return Path("/proc/sys/kernel/hostname").read_text().strip()
