"""`create` and `run`: the table of their flags, and the request body that they add up to.

Most flags are a line of the table. What several flags say together (streams, health check, networks) is put
together in `create_body`.
"""

from __future__ import annotations

from typing import Any

from hawse.docker import values
from hawse.docker.flags import BODY, Flag, Given, merge
from hawse_agent.errors import InputError

Json = dict[str, Any]

DETACH_KEYS = Flag(
    name="detach-keys", metavar="KEYS", help="keys that leave the container running (ctrl-p,ctrl-q)"
)
SIG_PROXY = Flag(name="sig-proxy", help="pass signals on to the process; the default")
INTERACTIVE = Flag(name="interactive", short="i", help="give it our stdin")

_PROCESS = (
    INTERACTIVE,
    Flag(name="tty", short="t", into="Tty", help="give it a terminal"),
    Flag(name="attach", short="a", metavar="STREAM", parse=values.stream, help="stdin, stdout or stderr"),
    Flag(
        name="env-file",
        metavar="FILE",
        into="Env",
        parse=values.environment_file,
        help="variables, one a line",
    ),
    Flag(
        name="env", short="e", metavar="NAME=VALUE", into="Env", parse=values.environment, help="a variable"
    ),
    Flag(name="user", short="u", metavar="USER[:GROUP]", into="User", help="by name or number"),
    Flag(
        name="group-add",
        metavar="GROUP",
        into="HostConfig.GroupAdd",
        parse=values.one,
        help="a further group of the process",
    ),
    Flag(name="workdir", short="w", metavar="DIR", into="WorkingDir", help="where the process starts"),
    Flag(
        name="entrypoint",
        metavar="PROGRAM",
        into="Entrypoint",
        parse=values.entrypoint,
        help='instead of the image\'s; "" for none',
    ),
    Flag(name="init", into="HostConfig.Init", help="run an init that reaps and passes signals on"),
    Flag(
        name="stop-signal", metavar="SIGNAL", into="StopSignal", help="what stops it, instead of the image's"
    ),
    Flag(
        name="stop-timeout",
        metavar="S",
        into="StopTimeout",
        parse=values.integer,
        help="seconds from that signal to SIGKILL",
    ),
    Flag(
        name="ulimit",
        metavar="NAME=SOFT[:HARD]",
        into="HostConfig.Ulimits",
        parse=values.ulimit,
        help="a limit of the process",
    ),
    Flag(
        name="oom-score-adj",
        metavar="N",
        into="HostConfig.OomScoreAdj",
        parse=values.integer,
        help="-1000 to 1000",
    ),
)

_CONTAINER = (
    Flag(name="name", metavar="NAME", help="of the container"),
    Flag(name="rm", into="HostConfig.AutoRemove", help="remove it, with its anonymous volumes, when it ends"),
    Flag(
        name="restart",
        metavar="POLICY",
        into="HostConfig.RestartPolicy",
        parse=values.restart,
        help="no, on-failure[:N], always or unless-stopped",
    ),
    Flag(
        name="label-file", metavar="FILE", into="Labels", parse=values.label_file, help="labels, one a line"
    ),
    Flag(name="label", short="l", metavar="NAME=VALUE", into="Labels", parse=values.pair, help="a label"),
    Flag(
        name="log-driver",
        metavar="DRIVER",
        into="HostConfig.LogConfig.Type",
        help="json-file, local or none",
    ),
    Flag(
        name="log-opt",
        metavar="NAME=VALUE",
        into="HostConfig.LogConfig.Config",
        parse=values.option,
        help="max-size, max-file",
    ),
    Flag(name="cidfile", metavar="FILE", into="HostConfig.ContainerIDFile", help="write its id there"),
    Flag(name="platform", metavar="OS/ARCH", help="refuse any other"),
    Flag(
        name="pull",
        metavar="WHEN",
        parse=values.chosen("always", "missing", "never"),
        help="always, missing (the default) or never",
    ),
    Flag(name="quiet", short="q", help="say nothing of the pull"),
)

_NETWORK = (
    Flag(
        name="publish",
        short="p",
        metavar="[[IP:]PORT:]PORT",
        into=BODY,
        parse=values.publish,
        help="reach a port from outside",
    ),
    Flag(
        name="publish-all",
        short="P",
        into="HostConfig.PublishAllPorts",
        help="all exposed ones, at free ports",
    ),
    Flag(
        name="expose",
        metavar="PORT",
        into="ExposedPorts",
        parse=values.expose,
        help="say that it listens there",
    ),
    Flag(
        name="network",
        also=("net",),
        metavar="NETWORK",
        parse=values.network,
        help="name, host, none, container:NAME or name=…,alias=…,ip=…",
    ),
    Flag(
        name="network-alias",
        also=("net-alias",),
        metavar="NAME",
        parse=values.one,
        help="a further name on its network",
    ),
    Flag(name="link", metavar="NAME[:ALIAS]", parse=values.link, help="know another container by a name"),
    Flag(name="ip", metavar="ADDRESS", parse=values.ip_address, help="its IPv4 address"),
    Flag(name="mac-address", metavar="ADDRESS", parse=values.mac_address, help="its MAC address"),
    Flag(
        name="dns", metavar="ADDRESS", into="HostConfig.Dns", parse=values.name_server, help="a name server"
    ),
    Flag(
        name="dns-search",
        metavar="DOMAIN",
        into="HostConfig.DnsSearch",
        parse=values.one,
        help="a search domain",
    ),
    Flag(
        name="dns-option",
        also=("dns-opt",),
        metavar="OPTION",
        into="HostConfig.DnsOptions",
        parse=values.one,
        help="of resolv.conf",
    ),
    Flag(
        name="add-host",
        metavar="NAME:IP",
        into="HostConfig.ExtraHosts",
        parse=values.extra_host,
        help="a line of /etc/hosts; host-gateway for this host's address",
    ),
    Flag(name="hostname", short="h", metavar="NAME", into="Hostname", help="its host name"),
    Flag(name="domainname", metavar="NAME", into="Domainname", help="its NIS domain"),
)

_STORAGE = (
    Flag(
        name="volume",
        short="v",
        metavar="[SOURCE:]DIR[:OPTIONS]",
        into=BODY,
        parse=values.volume,
        help="mount a volume or a path of the host",
    ),
    Flag(
        name="mount",
        metavar="TYPE=…",
        into="HostConfig.Mounts",
        parse=values.mount,
        help="type=bind|volume|tmpfs,src=…,dst=…",
    ),
    Flag(
        name="tmpfs",
        metavar="DIR[:OPTIONS]",
        into="HostConfig.Tmpfs",
        parse=values.tmpfs,
        help="a directory in memory",
    ),
    Flag(
        name="volumes-from",
        metavar="CONTAINER",
        into="HostConfig.VolumesFrom",
        parse=values.one,
        help="what another one has mounted",
    ),
    Flag(name="read-only", into="HostConfig.ReadonlyRootfs", help="a root that cannot be written to"),
    Flag(name="shm-size", metavar="SIZE", into="HostConfig.ShmSize", parse=values.size, help="of /dev/shm"),
)


def _limit(name: str, field: str, parse: Any, help: str, *, short: str = "", metavar: str = "N") -> Flag:
    return Flag(name=name, short=short, metavar=metavar, into=f"HostConfig.{field}", parse=parse, help=help)


LIMITS = (
    _limit("memory", "Memory", values.size, "at most", short="m", metavar="SIZE"),
    _limit(
        "memory-swap",
        "MemorySwap",
        values.size_or_unlimited,
        "memory and swap together; -1: all",
        metavar="SIZE",
    ),
    _limit("memory-reservation", "MemoryReservation", values.size, "what it keeps in need", metavar="SIZE"),
    _limit("cpus", "NanoCpus", values.cpus, "how many, 1.5"),
    _limit("cpu-shares", "CpuShares", values.integer, "its weight (1024)", short="c"),
    _limit("cpu-period", "CpuPeriod", values.integer, "microseconds"),
    _limit("cpu-quota", "CpuQuota", values.integer, "microseconds in each period"),
    _limit("cpuset-cpus", "CpusetCpus", str, "which CPUs: 0-2,4"),
    _limit("cpuset-mems", "CpusetMems", str, "which memory nodes"),
    _limit("pids-limit", "PidsLimit", values.integer, "processes; -1: any number"),
)
"""What `update` takes as well."""

_RATES = tuple(
    _limit(
        f"device-{way}-{unit}",
        f"BlkioDevice{way.capitalize()}{key}",
        parse,
        f"{text} a second {preposition} a device",
        metavar="DEVICE:N",
    )
    for way, preposition in (("read", "from"), ("write", "to"))
    for unit, key, parse, text in (
        ("bps", "Bps", values.bytes_rate, "bytes"),
        ("iops", "IOps", values.operations_rate, "operations"),
    )
)

_SECURITY = (
    Flag(
        name="device",
        metavar="DEVICE[:DEVICE][:rwm]",
        into="HostConfig.Devices",
        parse=values.device,
        help="of the host",
    ),
    Flag(name="cap-add", metavar="NAME", into="HostConfig.CapAdd", parse=values.capability, help="give it"),
    Flag(name="cap-drop", metavar="NAME", into="HostConfig.CapDrop", parse=values.capability, help="take it"),
    Flag(
        name="security-opt",
        metavar="OPTION",
        into=BODY,
        parse=values.security,
        help="seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined",
    ),
    Flag(name="privileged", into="HostConfig.Privileged", help="all capabilities and devices"),
    Flag(
        name="sysctl",
        metavar="NAME=VALUE",
        into="HostConfig.Sysctls",
        parse=values.sysctl,
        help="a setting of the kernel",
    ),
    Flag(
        name="pid",
        metavar="MODE",
        into="HostConfig.PidMode",
        parse=values.mode("", "host", "container:"),
        help="host or container:NAME",
    ),
    Flag(
        name="ipc",
        metavar="MODE",
        into="HostConfig.IpcMode",
        help="private, shareable, none, host or container:NAME",
    ),
    Flag(name="uts", metavar="MODE", into="HostConfig.UTSMode", parse=values.mode("", "host"), help="host"),
    Flag(name="userns", metavar="MODE", into="HostConfig.UsernsMode", help="of user ids: host, auto"),
    Flag(
        name="cgroupns",
        metavar="MODE",
        into="HostConfig.CgroupnsMode",
        parse=values.mode("", "host", "private"),
        help="private",
    ),
)

_HEALTH = (
    Flag(
        name="health-cmd",
        metavar="COMMAND",
        into="Healthcheck.Test",
        parse=values.health_command,
        help="for the shell; well when it exits with 0",
    ),
    *(
        Flag(
            name=f"health-{name}", metavar="TIME", into=f"Healthcheck.{key}", parse=values.duration, help=text
        )
        for name, key, text in (
            ("interval", "Interval", "between two checks"),
            ("timeout", "Timeout", "of one check"),
            ("start-period", "StartPeriod", "in which failures do not count"),
            ("start-interval", "StartInterval", "between two checks in that period"),
        )
    ),
    Flag(
        name="health-retries",
        metavar="N",
        into="Healthcheck.Retries",
        parse=values.integer,
        help="failures after which it is unhealthy",
    ),
    Flag(name="no-healthcheck", help="not even the image's"),
)

_REFUSED = tuple(
    Flag(name=name, metavar="" if name in ("oom-kill-disable", "use-api-socket") else "…", refused=True)
    for name in (
        *("annotation", "blkio-weight", "blkio-weight-device", "cgroup-parent", "cpu-count", "cpu-percent"),
        *("cpu-rt-period", "cpu-rt-runtime", "device-cgroup-rule", "disable-content-trust", "gpus"),
        *("io-maxbandwidth", "io-maxiops", "ip6", "isolation", "kernel-memory", "link-local-ip"),
        *(
            "memory-swappiness",
            "oom-kill-disable",
            "runtime",
            "storage-opt",
            "use-api-socket",
            "volume-driver",
        ),
    )
)

CREATE = (
    *_PROCESS,
    *_CONTAINER,
    *_NETWORK,
    *_STORAGE,
    *LIMITS,
    *_RATES,
    *_SECURITY,
    *_HEALTH,
    *_REFUSED,
)

RUN = (
    Flag(name="detach", short="d", help="print its id and leave it running"),
    SIG_PROXY,
    DETACH_KEYS,
    *CREATE,
)


def create_body(given: Given) -> Json:
    """What is sent to create the container. Raises InputError for flags that contradict each other."""
    if not given.operands:
        raise InputError("which image?", hint="hawse run [OPTIONS] IMAGE [COMMAND …]")
    image, *command = given.operands
    body: Json = {"Image": image}
    if command:
        body["Cmd"] = command
    merge(body, given.body)
    host = body.setdefault("HostConfig", {})
    body |= _streams(given)
    _health(given, body)
    _networks(given, body, host)
    _in_order(host)
    policy, log = host.get("RestartPolicy", {}), host.get("LogConfig", {})
    if host.get("AutoRemove") and policy.get("Name", "no") not in ("", "no"):
        raise InputError("conflicting options: cannot specify both --restart and --rm")
    if log.get("Type") == "none" and log.get("Config"):
        raise InputError("invalid logging opts for driver none")
    return body


def _in_order(host: Json) -> None:
    """What is a set on the command line, as Docker's client sends it."""
    for key in ("CapAdd", "CapDrop"):
        if key in host:
            host[key] = sorted(set(host[key]))
    if "Ulimits" in host:
        host["Ulimits"] = [limit for _, limit in sorted(host["Ulimits"].items())]


def _streams(given: Given) -> Json:
    """Without -a all output, and stdin when it is open."""
    stdin = bool(given.options.get("interactive"))
    wanted = given.options.get("attach") or ["stdout", "stderr"]
    attached = stdin or "stdin" in wanted
    return {
        "OpenStdin": stdin,
        "StdinOnce": stdin and attached,
        "AttachStdin": attached,
        "AttachStdout": "stdout" in wanted,
        "AttachStderr": "stderr" in wanted,
    }


def _health(given: Given, body: Json) -> None:
    check = {key: value for key, value in body.pop("Healthcheck", {}).items() if value}
    if given.options.get("no-healthcheck"):
        if check:
            raise InputError("--no-healthcheck conflicts with --health-* options")
        check = {"Test": ["NONE"]}
    for key, flag in (
        ("Interval", "interval"),
        ("Timeout", "timeout"),
        ("Retries", "retries"),
        ("StartPeriod", "start-period"),
        ("StartInterval", "start-interval"),
    ):
        if check.get(key, 0) < 0:
            raise InputError(f"--health-{flag} cannot be negative")
    if check:
        body["Healthcheck"] = check


def _networks(given: Given, body: Json, host: Json) -> None:
    """The flags for one network are about the first."""
    endpoints = [dict(endpoint) for endpoint in given.options.get("network", [{"name": "default"}])]
    links = given.options.get("link", [])
    if links:
        host["Links"] = links
    first = endpoints[0]
    for flag, there in (
        ("network-alias", "Aliases" in first),
        ("ip", "IPAMConfig" in first),
        ("mac-address", "MacAddress" in first),
    ):
        if flag in given.options and there:
            raise InputError(f"conflicting options: cannot specify both --{flag} and per-network settings")
    if aliases := given.options.get("network-alias"):
        first["Aliases"] = aliases
    if address := given.options.get("ip"):
        first["IPAMConfig"] = {"IPv4Address": address}
    if mac := given.options.get("mac-address"):
        first["MacAddress"] = mac
    own = _is_own(first["name"])
    if links and own:
        first["Links"] = links
    if first.get("Aliases") and not own:
        raise InputError("network-scoped aliases are only supported for user-defined networks")
    host["NetworkMode"] = first["name"]
    if len(endpoints) > 1 and not all(_is_own(endpoint["name"]) for endpoint in endpoints):
        raise InputError(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    by_name: Json = {}
    for endpoint in endpoints:
        name = endpoint.pop("name")
        if name in by_name:
            raise InputError(f'network "{name}" is specified multiple times')
        by_name[name] = endpoint
    if len(by_name) > 1 or any(by_name.values()):
        body["NetworkingConfig"] = {"EndpointsConfig": by_name}


def _is_own(network: str) -> bool:
    """Made by a person, and not Docker's."""
    return network not in ("default", "bridge", "host", "none") and not network.startswith("container:")
