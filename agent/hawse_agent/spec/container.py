"""What a container shall be: the spec that a stack, a Docker client and `hawse run` all lower to.

Sizes are bytes, times are seconds, unless a field's name says otherwise. Empty string, empty tuple and
None mean "not asked for": the image's configuration or the engine's default then decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hawse_agent.spec.volume import Mount

RestartMode = Literal["no", "always", "unless-stopped", "on-failure"]
Protocol = Literal["tcp", "udp"]
DependsCondition = Literal["started", "healthy", "completed"]


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    mode: RestartMode = "no"
    max_retries: int = 0
    """Only for on-failure; 0 is without limit."""


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """`test` is Docker's: ("CMD", argv…), ("CMD-SHELL", line) or ("NONE",). An empty one is the image's;
    then 0 in the other fields is the image's, too."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    def over(self, image: HealthCheck | None) -> HealthCheck | None:
        """What it comes to for an image that has this check, or none."""
        if self.test or image is None:
            return self if self.test else None
        return HealthCheck(
            test=image.test,
            interval=self.interval or image.interval,
            timeout=self.timeout or image.timeout,
            start_period=self.start_period or image.start_period,
            start_interval=self.start_interval or image.start_interval,
            retries=self.retries or image.retries,
        )


@dataclass(frozen=True, kw_only=True)
class DeviceRate:
    path: str
    rate: int


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of a cgroup; None is unlimited."""

    memory: int | None = None
    memory_swap: int | None = None
    """Memory plus swap, as Docker counts; -1 unlimited; None: twice the memory."""
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_period: int | None = None
    """Microseconds in which `cpus` are counted; None: a tenth of a second."""
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None
    read_bps: tuple[DeviceRate, ...] = ()
    write_bps: tuple[DeviceRate, ...] = ()
    read_iops: tuple[DeviceRate, ...] = ()
    write_iops: tuple[DeviceRate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True, kw_only=True)
class Device:
    host: str
    target: str
    access: str = "rwm"


@dataclass(frozen=True, kw_only=True)
class PortMap:
    """One published port. `host_port` 0 picks a free one; `host_ip` "" is the agent's default address."""

    container_port: int
    host_port: int = 0
    host_port_last: int = 0
    """Above `host_port`: the first free one of that range is taken."""
    host_ip: str = ""
    protocol: Protocol = "tcp"


@dataclass(frozen=True, kw_only=True)
class EndpointSpec:
    """The container's place on one network."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    mac: str = ""
    links: tuple[str, ...] = ()
    """`name:alias`: what this container calls others there."""


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """A config or secret that travels with the spec and is bound read-only at `target`.

    `content` is base64. It never appears in a plan, diff, log or journal when `secret`.
    """

    target: str
    content: str = field(repr=False)
    mode: int = 0o444
    uid: int = 0
    gid: int = 0
    secret: bool = False


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    driver: Literal["json-file", "local", "none"] = "json-file"
    max_size: int = 10 * 1024 * 1024
    """0: one file without limit."""
    max_files: int = 3
    buffer: int = 1024 * 1024
    """Bytes that wait for the disk; once that is late, what comes on top of them is dropped and counted."""


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    name: str
    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_unset: tuple[str, ...] = ()
    """Names of the image's variables that it shall not have."""
    environment_files: Mapping[str, str] = field(default_factory=dict)
    """Name of a variable → file of the host that has its value, which then is in no record."""
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tty: bool = False
    console_height: int = 0
    """Of the terminal when it starts, in characters; 0: as the kernel has it."""
    console_width: int = 0
    stdin_open: bool = False
    stdin_once: bool = False
    stop_signal: str = ""
    stop_timeout: int | None = None
    restart: RestartPolicy = RestartPolicy()
    health: HealthCheck | None = None
    resources: Resources = Resources()
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    files: tuple[FileContent, ...] = ()
    network_mode: str = "default"
    """default | bridge | none | host | container:ID | the name of a network (then `networks` has more)."""
    networks: tuple[EndpointSpec, ...] = ()
    ports: tuple[PortMap, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    """`80/tcp`: metadata, as EXPOSE."""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """`name:alias`, in a record `ID:alias`: whom it knows on the default network, which has no names."""
    extra_hosts: tuple[str, ...] = ()
    """`name:ip`."""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: str = "default"
    """default | unconfined | the JSON text of a profile."""
    masked_paths: tuple[str, ...] | None = None
    """None: the engine's."""
    readonly_paths: tuple[str, ...] | None = None
    read_only: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[Device, ...] = ()
    shm_size: int = 64 * 1024 * 1024
    oom_score_adj: int = 0
    init: bool | None = None
    """Whether PID 1 is an init of ours; None: as the host's agent.toml says."""
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: Literal["", "host", "auto"] = ""
    """auto: users and groups of its own; "": as the host's agent.toml says."""
    log: LogConfig = LogConfig()
    auto_remove: bool = False
    depends_on: Mapping[str, DependsCondition] = field(default_factory=dict)
    """Other containers of the same stack, by name; used when the stack is applied, not after."""
