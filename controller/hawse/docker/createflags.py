"""The table of the flags of `create` and `run`; what several of them add up to is in `create`."""

from __future__ import annotations

from hawse.docker import values
from hawse.docker.flags import BODY, Flag, option, switch

DETACH_KEYS = option("detach-keys", "KEYS", "keys that leave the container running (ctrl-p,ctrl-q)")

SIG_PROXY = switch("sig-proxy", "pass signals on to the process; the default")

INTERACTIVE = switch("interactive", "give it our stdin", short="i")

_PROCESS = (
    INTERACTIVE,
    switch("tty", "give it a terminal", "Tty", short="t"),
    option("attach", "STREAM", "stdin, stdout or stderr", parse=values.stream, short="a"),
    option("env-file", "FILE", "variables, one a line", "Env", values.environment_file),
    option("env", "NAME=VALUE", "a variable", "Env", values.environment, short="e"),
    option("user", "USER[:GROUP]", "by name or number", "User", short="u"),
    option("group-add", "GROUP", "a further group of the process", "HostConfig.GroupAdd", values.one),
    option("workdir", "DIR", "where the process starts", "WorkingDir", short="w"),
    option("entrypoint", "PROGRAM", 'instead of the image\'s; "" for none', "Entrypoint", values.entrypoint),
    switch("init", "run an init that reaps and passes signals on", "HostConfig.Init"),
    option("stop-signal", "SIGNAL", "what stops it, instead of the image's", "StopSignal"),
    option("stop-timeout", "S", "seconds from that signal to SIGKILL", "StopTimeout", values.integer),
    option("ulimit", "NAME=SOFT[:HARD]", "a limit of the process", "HostConfig.Ulimits", values.ulimit),
    option("oom-score-adj", "N", "-1000 to 1000", "HostConfig.OomScoreAdj", values.integer),
)

_CONTAINER = (
    option("name", "NAME", "of the container"),
    switch("rm", "remove it, with its anonymous volumes, when it ends", "HostConfig.AutoRemove"),
    option(
        "restart",
        "POLICY",
        "no, on-failure[:N], always or unless-stopped",
        "HostConfig.RestartPolicy",
        values.restart,
    ),
    option("label-file", "FILE", "labels, one a line", "Labels", values.label_file),
    option("label", "NAME=VALUE", "a label", "Labels", values.pair, short="l"),
    option("log-driver", "DRIVER", "json-file, local or none", "HostConfig.LogConfig.Type"),
    option("log-opt", "NAME=VALUE", "max-size, max-file", "HostConfig.LogConfig.Config", values.option),
    option("cidfile", "FILE", "write its id there", "HostConfig.ContainerIDFile"),
    option("platform", "OS/ARCH", "refuse any other"),
    option(
        "pull",
        "WHEN",
        "always, missing (the default) or never",
        parse=values.chosen("always", "missing", "never"),
    ),
    switch("quiet", "say nothing of the pull", short="q"),
)

_NETWORK = (
    option("publish", "[[IP:]PORT:]PORT", "reach a port from outside", BODY, values.publish, short="p"),
    switch("publish-all", "all exposed ones, at free ports", "HostConfig.PublishAllPorts", short="P"),
    option("expose", "PORT", "say that it listens there", "ExposedPorts", values.expose),
    option(
        "network",
        "NETWORK",
        "name, host, none, container:NAME or name=…,alias=…,ip=…",
        parse=values.network,
        also=("net",),
    ),
    option("network-alias", "NAME", "a further name on its network", parse=values.one, also=("net-alias",)),
    option("link", "NAME[:ALIAS]", "know another container by a name", parse=values.link),
    option("ip", "ADDRESS", "its IPv4 address", parse=values.ip_address),
    option("mac-address", "ADDRESS", "its MAC address", parse=values.mac_address),
    option("dns", "ADDRESS", "a name server", "HostConfig.Dns", values.name_server),
    option("dns-search", "DOMAIN", "a search domain", "HostConfig.DnsSearch", values.one),
    option("dns-option", "OPTION", "of resolv.conf", "HostConfig.DnsOptions", values.one, also=("dns-opt",)),
    option(
        "add-host",
        "NAME:IP",
        "a line of /etc/hosts; host-gateway for this host's address",
        "HostConfig.ExtraHosts",
        values.extra_host,
    ),
    option("hostname", "NAME", "its host name", "Hostname", short="h"),
    option("domainname", "NAME", "its NIS domain", "Domainname"),
)

_STORAGE = (
    option(
        "volume",
        "[SOURCE:]DIR[:OPTIONS]",
        "mount a volume or a path of the host",
        BODY,
        values.volume,
        short="v",
    ),
    option("mount", "TYPE=…", "type=bind|volume|tmpfs,src=…,dst=…", "HostConfig.Mounts", values.mount),
    option("tmpfs", "DIR[:OPTIONS]", "a directory in memory", "HostConfig.Tmpfs", values.tmpfs),
    option("volumes-from", "CONTAINER", "what another one has mounted", "HostConfig.VolumesFrom", values.one),
    switch("read-only", "a root that cannot be written to", "HostConfig.ReadonlyRootfs"),
    option("shm-size", "SIZE", "of /dev/shm", "HostConfig.ShmSize", values.size),
)

LIMITS = (
    option("memory", "SIZE", "at most", "HostConfig.Memory", values.size, short="m"),
    option(
        "memory-swap",
        "SIZE",
        "memory and swap together; -1: all",
        "HostConfig.MemorySwap",
        values.size_or_unlimited,
    ),
    option(
        "memory-reservation", "SIZE", "what it keeps in need", "HostConfig.MemoryReservation", values.size
    ),
    option("cpus", "N", "how many, 1.5", "HostConfig.NanoCpus", values.cpus),
    option("cpu-shares", "N", "its weight (1024)", "HostConfig.CpuShares", values.integer, short="c"),
    option("cpu-period", "N", "microseconds", "HostConfig.CpuPeriod", values.integer),
    option("cpu-quota", "N", "microseconds in each period", "HostConfig.CpuQuota", values.integer),
    option("cpuset-cpus", "N", "which CPUs: 0-2,4", "HostConfig.CpusetCpus"),
    option("cpuset-mems", "N", "which memory nodes", "HostConfig.CpusetMems"),
    option("pids-limit", "N", "processes; -1: any number", "HostConfig.PidsLimit", values.integer),
)
"""What `update` takes as well."""

_RATES = tuple(
    option(
        f"device-{way}-{unit}",
        "DEVICE:N",
        f"{text} a second {preposition} a device",
        f"HostConfig.BlkioDevice{way.capitalize()}{key}",
        parse,
    )
    for way, preposition in (("read", "from"), ("write", "to"))
    for unit, key, parse, text in (
        ("bps", "Bps", values.bytes_rate, "bytes"),
        ("iops", "IOps", values.operations_rate, "operations"),
    )
)

_SECURITY = (
    option("device", "DEVICE[:DEVICE][:rwm]", "of the host", "HostConfig.Devices", values.device),
    option("cap-add", "NAME", "give it", "HostConfig.CapAdd", values.capability),
    option("cap-drop", "NAME", "take it", "HostConfig.CapDrop", values.capability),
    option(
        "security-opt",
        "OPTION",
        "seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined",
        BODY,
        values.security,
    ),
    switch("privileged", "all capabilities and devices", "HostConfig.Privileged"),
    option("sysctl", "NAME=VALUE", "a setting of the kernel", "HostConfig.Sysctls", values.sysctl),
    option(
        "pid", "MODE", "host or container:NAME", "HostConfig.PidMode", values.mode("", "host", "container:")
    ),
    option("ipc", "MODE", "private, shareable, none, host or container:NAME", "HostConfig.IpcMode"),
    option("uts", "MODE", "host", "HostConfig.UTSMode", values.mode("", "host")),
    option("userns", "MODE", "of user ids: host, auto", "HostConfig.UsernsMode"),
    option("cgroupns", "MODE", "private", "HostConfig.CgroupnsMode", values.mode("", "host", "private")),
)

_HEALTH = (
    option(
        "health-cmd",
        "COMMAND",
        "for the shell; well when it exits with 0",
        "Healthcheck.Test",
        values.health_command,
    ),
    *(
        option(f"health-{name}", "TIME", text, f"Healthcheck.{key}", values.duration)
        for name, key, text in (
            ("interval", "Interval", "between two checks"),
            ("timeout", "Timeout", "of one check"),
            ("start-period", "StartPeriod", "in which failures do not count"),
            ("start-interval", "StartInterval", "between two checks in that period"),
        )
    ),
    option(
        "health-retries", "N", "failures after which it is unhealthy", "Healthcheck.Retries", values.integer
    ),
    switch("no-healthcheck", "not even the image's"),
)

_REFUSED = tuple(
    Flag(name=name, metavar="" if name in ("oom-kill-disable", "use-api-socket") else "…", refused=True)
    for name in (
        *("annotation", "blkio-weight", "blkio-weight-device", "cgroup-parent", "cpu-count", "cpu-percent"),
        *("cpu-rt-period", "cpu-rt-runtime", "device-cgroup-rule", "disable-content-trust", "gpus"),
        *("io-maxbandwidth", "io-maxiops", "ip6", "isolation", "kernel-memory", "link-local-ip"),
        *("memory-swappiness", "oom-kill-disable", "runtime", "storage-opt"),
        *("use-api-socket", "volume-driver"),
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

RUN = (switch("detach", "print its id and leave it running", short="d"), SIG_PROXY, DETACH_KEYS, *CREATE)
