"""The Compose file as people write it: pydantic models of what Hawse supports of the Compose Specification.

Short forms (`8080:80`, `KEY=value`) are turned into their long forms by validators here, so that lowering
sees one form only and every error has the path of the key it is about. Keys of Compose that Hawse does not
have are refused by name; keys that nobody has are refused with the nearest one that exists. `x-` keys are
skipped, except `x-hawse`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from hawse.stack import values
from hawse_agent.spec.container import Protocol
from hawse_agent.spec.volume import Propagation

Scalar = str | int | float | bool

Size = Annotated[int, BeforeValidator(values.size, json_schema_input_type=str | int)]
SwapSize = Annotated[int, BeforeValidator(values.size_or_unlimited, json_schema_input_type=str | int)]
Duration = Annotated[float, BeforeValidator(values.duration, json_schema_input_type=str)]
Seconds = Annotated[float, BeforeValidator(values.seconds, json_schema_input_type=str | int | float)]
Bool = Annotated[bool, BeforeValidator(values.boolean, json_schema_input_type=bool | str)]
Int = Annotated[int, BeforeValidator(values.integer, json_schema_input_type=int | str)]
Number = Annotated[float, BeforeValidator(values.number, json_schema_input_type=float | str)]
Text = Annotated[str, BeforeValidator(values.text, json_schema_input_type=str | int | float)]
Signal = Annotated[str, BeforeValidator(values.signal_name, json_schema_input_type=str | int)]
Mode = Annotated[int, BeforeValidator(values.file_mode, json_schema_input_type=int | str)]
ContainerPath = Annotated[str, BeforeValidator(values.container_path, json_schema_input_type=str)]
Address = Annotated[str, BeforeValidator(values.ip_address, json_schema_input_type=str)]
Address4 = Annotated[str, BeforeValidator(values.ipv4_address, json_schema_input_type=str)]
Network4 = Annotated[str, BeforeValidator(values.ipv4_network, json_schema_input_type=str)]
Argv = Annotated[
    list[str] | None, BeforeValidator(values.argv, json_schema_input_type=str | list[str] | None)
]
Texts = Annotated[list[Text], BeforeValidator(values.texts, json_schema_input_type=str | list[Text])]
Addresses = Annotated[list[Address], BeforeValidator(values.texts, json_schema_input_type=str | list[str])]
_PairsInput = dict[str, Scalar | None] | list[str]
Environment = Annotated[
    dict[str, Annotated[str | None, BeforeValidator(values.optional_scalar)]],
    BeforeValidator(values.pairs, json_schema_input_type=_PairsInput),
]
Pairs = Annotated[
    dict[str, Annotated[str, BeforeValidator(values.scalar_or_empty)]],
    BeforeValidator(values.pairs, json_schema_input_type=_PairsInput),
]
Ports = Annotated[
    tuple[int, ...],
    BeforeValidator(values.port_range, json_schema_input_type=int | str),
]
NetworkProtocol = Annotated[Protocol, BeforeValidator(values.protocol)]


class Strict(BaseModel):
    """A mapping of the Compose file. `not_supported` are Compose's own keys that Hawse refuses by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # built when first used
    not_supported: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise PydanticCustomError(
                "not_a_mapping", "expected a mapping, not {kind}", {"kind": values.kind_of(data)}
            )
        known = {f.alias or name for name, f in cls.model_fields.items()}
        kept = {}
        for key, value in data.items():
            if key in known:
                if value is not None:  # a template's loop that came out empty: as if it were not there
                    kept[key] = value
            elif not str(key).startswith("x-"):
                raise cls._refusal(str(key), known)
        return kept

    @classmethod
    def _refusal(cls, key: str, known: set[str]) -> PydanticCustomError:
        if key in cls.not_supported:
            return PydanticCustomError("not_supported", "is not supported by Hawse", {"key": key})
        close = difflib.get_close_matches(key, sorted(known), n=1)
        context = {"key": key, "close": close[0] if close else "", "known": ", ".join(sorted(known))}
        return PydanticCustomError("unknown_key", "unknown key", context)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        schema["patternProperties"] = {"^x-(?!hawse$)": {}}
        return schema


def _long(parse: Callable[[Any], Any]) -> BeforeValidator:
    """A mapping is the long form already; anything else is the short one, which `parse` expands."""
    return BeforeValidator(lambda value: value if isinstance(value, Mapping) else parse(value))


def _named(parse: Callable[[str], dict[str, Any]]) -> Callable[[Any], Any]:
    """A list of names as a mapping of names to what is said about them."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): {} if item is None else item for name, item in value.items()}
        if isinstance(value, list):
            return {values.text(name): parse(name) for name in value}
        raise ValueError(f"expected a list of names or a mapping, not {values.kind_of(value)}")

    return convert


def _entries(value: Any) -> Any:
    """A top-level section: an entry without a body is all defaults."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping of names, not {values.kind_of(value)}")
    return {str(name): {} if item is None else item for name, item in value.items()}


# one service


class Port(Strict):
    not_supported = frozenset({"name", "app_protocol"})
    target: Ports
    published: Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, int) else values.text(v))] = (
        ""
    )
    host_ip: str = ""
    protocol: NetworkProtocol = "tcp"
    mode: Literal["host", "ingress"] = "ingress"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.host_ip:
            values.ip_address(self.host_ip)
        if self.published:
            published = values.port_range(self.published)
            if len(published) != len(self.target):
                counts = f"({len(published)}) as target ports ({len(self.target)})"
                raise ValueError(f"expected as many published ports {counts}")
        return self

    def published_ports(self) -> tuple[int, ...]:
        """One per target port; 0 lets the host choose."""
        return values.port_range(self.published) if self.published else (0,) * len(self.target)


class BindOptions(Strict):
    not_supported = frozenset({"selinux", "recursive"})
    propagation: Propagation = "rprivate"
    create_host_path: Bool = False
    idmap: Bool = False
    """Not of the specification: `-v` of podman has it, too."""


class VolumeOptions(Strict):
    not_supported = frozenset({"labels"})
    nocopy: Bool = False
    subpath: str = ""


class TmpfsOptions(Strict):
    size: Size = 0
    mode: Mode = 0o1777


class ServiceMount(Strict):
    not_supported = frozenset({"consistency", "image"})
    type: Literal["volume", "bind", "tmpfs"]
    target: ContainerPath
    source: Text = ""
    read_only: Bool = False
    bind: BindOptions = BindOptions()
    volume: VolumeOptions = VolumeOptions()
    tmpfs: TmpfsOptions = TmpfsOptions()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "bind" and not self.source.startswith("/"):
            raise ValueError(
                f"expected an absolute path of the host to bind, not {self.source!r} "
                "(a file of the project travels as a config)"
            )
        if self.type == "tmpfs" and self.source:
            raise ValueError("a tmpfs has no source")
        for kind in ("bind", "volume", "tmpfs"):
            if kind in self.model_fields_set and kind != self.type:
                raise ValueError(f"options under {kind!r} do not go with type {self.type}")
        return self


class Tmpfs(Strict):
    target: ContainerPath
    size: Size = 0
    mode: Mode = 0o1777
    options: list[str] = []


class ServiceNetwork(Strict):
    not_supported = frozenset(
        {"ipv6_address", "link_local_ips", "driver_opts", "gw_priority", "interface_name"}
    )
    aliases: list[Text] = []
    ipv4_address: Address4 = ""
    mac_address: str = ""
    priority: Int = 0


class ServiceFile(Strict):
    """A config or secret as one service uses it."""

    source: Text
    target: Text = ""
    uid: Int = 0
    gid: Int = 0
    mode: Mode = 0o444


class Dependency(Strict):
    not_supported = frozenset({"restart"})
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = (
        "service_started"
    )
    required: Bool = True


class EnvFile(Strict):
    path: Text
    required: Bool = True
    format: Literal["raw", ""] = ""


class Health(Strict):
    test: Annotated[
        list[str],
        BeforeValidator(
            lambda v: ["CMD-SHELL", v] if isinstance(v, str) else v, json_schema_input_type=str | list[str]
        ),
    ] = []
    interval: Duration = 30.0
    timeout: Duration = 30.0
    start_period: Duration = 0.0
    start_interval: Duration = 5.0
    retries: Int = 3
    disable: Bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.disable:
            return self
        if not self.test:
            raise ValueError("expected a test (or disable: true)")
        if self.test[0] not in ("CMD", "CMD-SHELL", "NONE"):
            raise ValueError(f"expected a test that begins with CMD, CMD-SHELL or NONE, not {self.test[0]!r}")
        if self.test[0] != "NONE" and len(self.test) < 2:
            raise ValueError(f"expected a command after {self.test[0]}")
        return self


class Limits(Strict):
    cpus: Number = 0.0
    memory: Size = 0
    pids: Int = 0


class Reservations(Strict):
    not_supported = frozenset({"cpus", "generic_resources", "devices"})
    memory: Size = 0


class DeployResources(Strict):
    limits: Limits = Limits()
    reservations: Reservations = Reservations()


class DeployRestart(Strict):
    not_supported = frozenset({"delay", "window"})
    condition: Literal["none", "on-failure", "any"] = "any"
    max_attempts: Int = 0


class Deploy(Strict):
    not_supported = frozenset(
        {"endpoint_mode", "labels", "mode", "placement", "rollback_config", "update_config"}
    )
    resources: DeployResources = DeployResources()
    replicas: Int = 1
    restart_policy: DeployRestart | None = None


class UlimitPair(Strict):
    soft: Int
    hard: Int


def _ulimit(value: Any) -> dict[str, Any]:
    count = values.integer(value)
    return {"soft": count, "hard": count}


class ServiceDevice(Strict):
    source: ContainerPath
    target: Text = ""
    permissions: Annotated[str, Field(pattern="^[rwm]{1,3}$")] = "rwm"


class LogOptions(Strict):
    max_size: Size = Field(default=10 * 1024 * 1024, alias="max-size")
    max_file: Int = Field(default=3, alias="max-file")


class Logging(Strict):
    driver: Literal["json-file", "local", "none"] = "json-file"
    options: LogOptions = LogOptions()


class DeviceLimit(Strict):
    path: ContainerPath
    rate: Size


class BlkioConfig(Strict):
    not_supported = frozenset({"weight", "weight_device"})
    device_read_bps: list[DeviceLimit] = []
    device_write_bps: list[DeviceLimit] = []
    device_read_iops: list[DeviceLimit] = []
    device_write_iops: list[DeviceLimit] = []


class ServicePlacement(Strict):
    """`x-hawse` of a service. `hosts`: inventory pattern of the hosts that run it; "" is all of them."""

    hosts: Text = ""


def _security_option(value: Any) -> str:
    option = re.sub(r"^(no-new-privileges|seccomp)=", r"\1:", values.text(value))
    if re.fullmatch(r"no-new-privileges(:(true|false))?|seccomp:.+", option):
        return option
    raise ValueError(
        f"security option {option!r} is not supported (expected no-new-privileges or seccomp:PROFILE)"
    )


def _shared_namespace(*plain: str) -> BeforeValidator:
    def check(value: Any) -> str:
        mode = values.text(value)
        kind, _, other = mode.partition(":")
        if mode in plain or (kind in ("service", "container") and other):
            return mode
        wanted = ", ".join((*plain, "service:NAME", "container:NAME"))
        raise ValueError(f"expected one of {wanted}; not {mode!r}")

    return BeforeValidator(check)


class BuildSecret(Strict):
    not_supported = frozenset({"uid", "gid", "mode"})
    source: Text
    target: Text = ""


class Build(Strict):
    not_supported = frozenset(
        {
            *("additional_contexts", "cache_from", "cache_to", "entitlements", "isolation", "platforms"),
            *("privileged", "provenance", "sbom", "ssh"),
        }
    )
    context: Text = "."
    dockerfile: Text = ""
    dockerfile_inline: str | None = None
    args: Environment = {}
    target: Text = ""
    labels: Pairs = {}
    network: Literal["default", "none", "host", ""] = ""
    secrets: list[
        Annotated[
            BuildSecret,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else {"source": values.text(v)},
                json_schema_input_type=str | BuildSecret,
            ),
        ]
    ] = []
    tags: list[Text] = []
    no_cache: Bool = False
    pull: Bool = False
    extra_hosts: Annotated[
        list[str],
        BeforeValidator(values.extra_hosts, json_schema_input_type=list[str] | dict[str, str | list[str]]),
    ] = []
    shm_size: Size = 0
    ulimits: dict[
        str,
        Annotated[
            UlimitPair,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else _ulimit(v),
                json_schema_input_type=int | UlimitPair,
            ),
        ],
    ] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dockerfile and self.dockerfile_inline is not None:
            raise ValueError("dockerfile and dockerfile_inline exclude each other")
        return self


class Service(Strict):
    not_supported = frozenset(
        {
            "annotations",
            "attach",
            "cgroup",
            "cgroup_parent",
            "cpu_count",
            "cpu_percent",
            "cpu_period",
            "cpu_quota",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "credential_spec",
            "develop",
            "device_cgroup_rules",
            "external_links",
            "extends",
            "gpus",
            "isolation",
            "label_file",
            "links",
            "mem_swappiness",
            "models",
            "oom_kill_disable",
            "platform",
            "post_start",
            "pre_stop",
            "provider",
            "runtime",
            "storage_opt",
            "use_api_socket",
        }
    )
    image: Text = ""
    """May be left out where it is built: then `<stack>-<service>`."""
    build: Annotated[Build | None, _long(lambda v: {"context": values.text(v)})] = None
    command: Argv = None
    entrypoint: Argv = None
    environment: Environment = {}
    env_file: Annotated[
        list[Annotated[EnvFile, _long(lambda v: {"path": values.text(v)})]],
        BeforeValidator(
            lambda v: v if isinstance(v, list) else [v],
            json_schema_input_type=str | EnvFile | list[str | EnvFile],
        ),
    ] = []
    ports: list[
        Annotated[
            Port,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else values.short_port(v),
                json_schema_input_type=int | str | Port,
            ),
        ]
    ] = []
    expose: list[Annotated[list[str], BeforeValidator(values.exposed, json_schema_input_type=int | str)]] = []
    volumes: list[
        Annotated[
            ServiceMount,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else values.short_mount(values.text(v)),
                json_schema_input_type=str | ServiceMount,
            ),
        ]
    ] = []
    volumes_from: list[Text] = []
    tmpfs: Annotated[
        list[Annotated[Tmpfs, _long(values.short_tmpfs)]],
        BeforeValidator(values.texts, json_schema_input_type=str | list[str]),
    ] = []
    networks: Annotated[
        dict[str, ServiceNetwork],
        BeforeValidator(
            _named(lambda _: {}), json_schema_input_type=list[str] | dict[str, ServiceNetwork | None]
        ),
    ] = {}
    network_mode: Annotated[str, _shared_namespace("bridge", "host", "none")] = ""
    mac_address: str = ""
    configs: list[
        Annotated[
            ServiceFile,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else {"source": values.text(v)},
                json_schema_input_type=str | ServiceFile,
            ),
        ]
    ] = []
    secrets: list[
        Annotated[
            ServiceFile,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else {"source": values.text(v)},
                json_schema_input_type=str | ServiceFile,
            ),
        ]
    ] = []
    depends_on: Annotated[
        dict[str, Dependency],
        BeforeValidator(_named(lambda _: {}), json_schema_input_type=list[str] | dict[str, Dependency]),
    ] = {}
    restart: Annotated[str, BeforeValidator(values.restart, json_schema_input_type=str | Literal[False])] = ""
    healthcheck: Health | None = None
    deploy: Deploy = Deploy()
    scale: Int = 1
    mem_limit: Size = 0
    mem_reservation: Size = 0
    memswap_limit: SwapSize = 0
    cpus: Number = 0.0
    cpu_shares: Int = 0
    cpuset: Text = ""
    pids_limit: Int = 0
    blkio_config: BlkioConfig = BlkioConfig()
    user: Text = ""
    group_add: list[Text] = []
    working_dir: Text = ""
    hostname: Text = ""
    domainname: Text = ""
    container_name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")] = ""
    labels: Pairs = {}
    profiles: list[Text] = []
    pull_policy: Literal["missing", "if_not_present"] = "missing"
    cap_add: list[Text] = []
    cap_drop: list[Text] = []
    privileged: Bool = False
    read_only: Bool = False
    security_opt: list[Annotated[str, BeforeValidator(_security_option, json_schema_input_type=str)]] = []
    stop_signal: Signal = ""
    stop_grace_period: Duration | None = None
    extra_hosts: Annotated[
        list[str],
        BeforeValidator(values.extra_hosts, json_schema_input_type=list[str] | dict[str, str | list[str]]),
    ] = []
    dns: Addresses = []
    dns_search: Texts = []
    dns_opt: list[Text] = []
    sysctls: Pairs = {}
    ulimits: dict[
        str,
        Annotated[
            UlimitPair,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else _ulimit(v),
                json_schema_input_type=int | UlimitPair,
            ),
        ],
    ] = {}
    shm_size: Size = 64 * 1024 * 1024
    oom_score_adj: Annotated[Int, Field(ge=-1000, le=1000)] = 0
    init: Bool | None = None
    tty: Bool = False
    stdin_open: Bool = False
    logging: Logging = Logging()
    devices: list[
        Annotated[
            ServiceDevice,
            BeforeValidator(
                lambda v: v if isinstance(v, Mapping) else values.device(v),
                json_schema_input_type=str | ServiceDevice,
            ),
        ]
    ] = []
    pid: Annotated[str, _shared_namespace("host")] = ""
    ipc: Annotated[str, _shared_namespace("host", "private", "shareable", "none")] = ""
    uts: Literal["host", ""] = ""
    userns_mode: Literal["auto", "host", ""] = ""
    hawse: ServicePlacement = Field(default=ServicePlacement(), alias="x-hawse")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.image and self.build is None:
            raise PydanticCustomError("missing_here", "missing key 'image'")
        return self


# the sections beside services


class IpamPool(Strict):
    not_supported = frozenset({"aux_addresses"})
    subnet: Network4 = ""
    gateway: Address4 = ""
    ip_range: Network4 = ""


class Ipam(Strict):
    not_supported = frozenset({"options"})
    driver: Literal["default"] = "default"
    config: Annotated[list[IpamPool], Field(max_length=1)] = []


class NetworkOptions(Strict):
    """`driver_opts` of a bridge, those that Hawse acts on."""

    mtu: Int = Field(default=0, alias="com.docker.network.driver.mtu")
    icc: Bool = Field(default=True, alias="com.docker.network.bridge.enable_icc")


class Network(Strict):
    not_supported = frozenset({"attachable", "enable_ipv4", "enable_ipv6"})
    name: Text = ""
    driver: Literal["bridge"] = "bridge"
    driver_opts: NetworkOptions = NetworkOptions()
    external: Bool = False
    internal: Bool = False
    ipam: Ipam = Ipam()
    labels: Pairs = {}


class Volume(Strict):
    name: Text = ""
    driver: Literal["local"] = "local"
    driver_opts: Pairs = {}
    external: Bool = False
    labels: Pairs = {}


class FileSource(Strict):
    """A config or secret: exactly one of file, content, environment."""

    not_supported = frozenset({"external", "name", "labels", "driver", "driver_opts", "template_driver"})
    file: Text = ""
    content: str | None = None
    environment: Text = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [bool(self.file), self.content is not None, bool(self.environment)]
        if sum(given) != 1:
            raise ValueError("expected exactly one of file, content, environment")
        return self


class StackOptions(Strict):
    """`x-hawse` of the file. `wait`: how long containers with a health check may take to become healthy."""

    wait: Seconds = 60.0


class ComposeFile(Strict):
    not_supported = frozenset({"include", "models"})
    version: Text = ""
    """Compose calls it obsolete and ignores it; so do we."""
    name: Text = ""
    services: Annotated[dict[str, Service], BeforeValidator(_entries)]
    networks: Annotated[
        dict[str, Network], BeforeValidator(_entries, json_schema_input_type=dict[str, Network | None])
    ] = {}
    volumes: Annotated[
        dict[str, Volume], BeforeValidator(_entries, json_schema_input_type=dict[str, Volume | None])
    ] = {}
    configs: Annotated[dict[str, FileSource], BeforeValidator(_entries)] = {}
    secrets: Annotated[dict[str, FileSource], BeforeValidator(_entries)] = {}
    hawse: StackOptions = Field(default=StackOptions(), alias="x-hawse")
