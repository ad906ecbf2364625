"""Every file and socket that an agent keeps, under one root, and the instance id that keeps agents apart.

The default instance lives in /var/lib/hawse, /run/hawse and /etc/hawse and has the empty instance id.
With `--root DIR` everything moves under DIR, and the id is taken from DIR, so that several agents on
one machine share neither a file, nor an nft table, nor a bridge, nor a cgroup.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hawse_agent import locations

SOCKET_ENV = "HAWSE_SOCKET"


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where an agent instance keeps things. `lib` survives a reboot, `run` does not have to."""

    lib: Path
    run: Path
    etc: Path
    socket: Path
    instance: str = ""

    @property
    def state(self) -> Path:
        return self.lib / "state.db"

    @property
    def records_copy(self) -> Path:
        """Networks, images and names of the state in plain JSON, for `doctor --rebuild`."""
        return self.lib / "records.json"

    def lease_copy(self, container_id: str) -> Path:
        """Addresses and ports of a container's run, likewise."""
        return self.container(container_id) / "lease.json"

    def record_copy(self, container_id: str) -> Path:
        """The container's record, likewise."""
        return self.container(container_id) / "container.json"

    @property
    def ballast(self) -> Path:
        """Freed when the disk is full, so that removals can still commit."""
        return self.lib / "ballast"

    @property
    def bundles(self) -> Path:
        return self.lib / "agent"

    @property
    def blobs(self) -> Path:
        return self.lib / "blobs" / "sha256"

    @property
    def incoming(self) -> Path:
        """Partial uploads; same filesystem as blobs and layers, cleared when the daemon starts."""
        return self.lib / "incoming"

    @property
    def partial(self) -> Path:
        """Blobs that have come in part, by digest: kept over restarts, for the rest to follow."""
        return self.lib / "partial"

    @property
    def mountpoints(self) -> Path:
        """The lowest layer of every container: empty directories and files for what is mounted into it.
        Alone in its directory, since with user namespaces that is mounted once more."""
        return self.lib / "mountpoints" / "layer"

    @property
    def layers(self) -> Path:
        """`layers/<diff_id hex>/`: one unpacked directory per layer, shared by all images."""
        return self.lib / "layers"

    @property
    def containers(self) -> Path:
        return self.lib / "containers"

    def container(self, container_id: str) -> Path:
        """Persistent directory of a container: upper, work, files, runtime.json, exit.json, logs."""
        return self.containers / container_id

    def new_container(self, container_id: str) -> Path:
        """What is about to become its directory, by one rename."""
        return self.containers / f".new-{container_id}"

    @property
    def volumes(self) -> Path:
        return self.lib / "volumes"

    @property
    def build_caches(self) -> Path:
        """What `RUN --mount=type=cache` mounts: directories that outlive their build."""
        return self.lib / "caches"

    @property
    def backups(self) -> Path:
        return self.lib / "backups"

    @property
    def audit(self) -> Path:
        return self.lib / "audit.log"

    @property
    def journal(self) -> Path:
        return self.lib / "journal"

    @property
    def daemon_log(self) -> Path:
        return self.lib / "daemon.log"

    @property
    def daemon_lock(self) -> Path:
        return self.run / locations.DAEMON_LOCK

    @property
    def cgroup_base(self) -> Path:
        """Remembers below which cgroup this instance keeps its containers, until the next boot."""
        return self.run / "cgroup.json"

    @property
    def shims(self) -> Path:
        return self.run / "shims"

    def shim(self, container_id: str) -> Path:
        """Run directory of a container's shim: `shim.sock`, `state.json`."""
        return self.shims / container_id

    @property
    def dns_socket(self) -> Path:
        return self.run / "dns.sock"

    @property
    def config(self) -> Path:
        return self.etc / "agent.toml"

    def name(self, stem: str = "hawse") -> str:
        """`hawse` for the default instance, `hawse-<id>` for another: tables, cgroups, bridges."""
        return f"{stem}-{self.instance}" if self.instance else stem


def default_paths() -> Paths:
    return Paths(
        lib=Path(locations.LIB),
        run=Path(locations.RUN),
        etc=Path(locations.ETC),
        socket=Path(locations.SOCKET),
    )


def paths_for(root: Path | None, socket: Path | None = None) -> Paths:
    """Paths below `root` (the default instance when it is None); `socket` overrides the API socket."""
    if root is None:
        base = default_paths()
    else:
        root = root.absolute()
        instance = hashlib.sha256(str(root).encode()).hexdigest()[:6]
        run = root / "run"
        base = Paths(
            lib=root / "lib", run=run, etc=root / "etc", socket=run / "agent.sock", instance=instance
        )
    if socket is None:
        return base
    return Paths(lib=base.lib, run=base.run, etc=base.etc, socket=socket.absolute(), instance=base.instance)
