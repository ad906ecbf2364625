"""One container, fully resolved: what the engine hands to the shim and the shim to `runtime.init`.

Nothing here refers to a name any more: volumes are directories, layers are directories, limits are numbers.
It is written to `containers/<id>/runtime.json` (mode 0600), so that the shim can start the container again
while there is no daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hawse_agent.spec.container import Device, HealthCheck, LogConfig, Resources, RestartPolicy, Ulimit
from hawse_agent.spec.records import IdRange
from hawse_agent.spec.volume import Propagation


@dataclass(frozen=True, kw_only=True)
class BindMount:
    """A directory or file of the host. Engine files (resolv.conf, hosts, hostname, configs) are binds too."""

    source: str
    target: str
    inside: str = ""
    """What of `source` is bound: resolved in it when it is mounted, since others may change links there."""
    read_only: bool = False
    recursive: bool = True
    map_ids: bool = False
    """With `ids`: the files' owners are who the container calls so. Else they are the host's."""
    propagation: Propagation = "rprivate"
    layers: tuple[str, ...] = ()
    """These directories, stacked with the first on top, are what is bound; `source` has a `point` to stack
    them on and, unless it is read-only, `upper` and `work`."""


@dataclass(frozen=True, kw_only=True)
class TmpfsMount:
    target: str
    size: int = 0
    mode: int = 0o1777
    options: tuple[str, ...] = ()
    """Of: noexec nosuid nodev exec suid dev ro rw uid=N gid=N."""


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """What to execute: PID 1 of a container, an exec, a health check."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    env_files: Mapping[str, str] = field(default_factory=dict)
    """Name of a variable → file of the host that has its value, read when the container starts."""
    cwd: str = "/"
    user: str = ""
    """`name|uid[:group|gid]`, resolved in the container's own /etc/passwd and /etc/group."""
    group_add: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    """Keep stdin open for attached clients; else it is /dev/null."""
    stdin_once: bool = False
    """The first client that closes its side ends stdin."""
    capabilities: tuple[str, ...] = ()
    """Bounding, permitted and effective set, as CAP_* names; already combined from add and drop."""
    no_new_privileges: bool = False
    rlimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    console_height: int = 0
    console_width: int = 0


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    id: str
    name: str
    process: ProcessConfig
    hostname: str
    domainname: str = ""
    layers: tuple[str, ...] = ()
    """Lower directories, topmost first, absolute."""
    upper: str = ""
    work: str = ""
    read_only: bool = False
    binds: tuple[BindMount, ...] = ()
    tmpfs: tuple[TmpfsMount, ...] = ()
    shm_size: int = 64 * 1024 * 1024
    devices: tuple[Device, ...] = ()
    privileged: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: str = "default"
    """default | unconfined | JSON text of a profile."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    init: bool = False
    cgroup: str = ""
    """Name of the container's cgroup below the instance's base (its id)."""
    cgroup_base: str = ""
    """JSON of `cgroups.Base`: where the instance's containers live in each hierarchy."""
    resources: Resources = Resources()
    network: Literal["new", "host", "none"] | str = "new"
    """new: own namespace, the daemon sets it up before `run`; none: own namespace with lo only;
    host; or `container:ID`: that container's, as it is when this one starts."""
    pid_namespace: str = "new"
    """new | host | container:ID."""
    ipc_namespace: str = "new"
    uts_namespace: str = "new"
    ids: IdRange | None = None
    """None: it lives in the host's user namespace."""
    user_namespace: str = "new"
    """With `ids`: new | container:ID, whose ids they are."""
    stop_signal: int = 15
    stop_timeout: int = 10
    restart: RestartPolicy = RestartPolicy()
    health: HealthCheck | None = None
    log: LogConfig = LogConfig()
    log_path: str = ""
    """containers/<id>/<id>-json.log; rotated siblings are `.1`, `.2`…"""
    exit_path: str = ""
    """containers/<id>/exit.json, written by the shim."""
    finished_before: float = 0.0
    """When the run before this start ended; 0: there was none."""
    run_dir: str = ""
    """shims/<id>/: shim.sock, state.json. Those of other containers are beside it."""
    auto_remove: bool = False
