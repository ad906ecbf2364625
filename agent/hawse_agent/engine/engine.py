"""The engine: every use case of one agent, put together. The API talks to this and to nothing below."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hawse_agent import __version__
from hawse_agent.cgroups import Tree, find_base
from hawse_agent.distribution.registry import Client
from hawse_agent.engine.backups import Backups
from hawse_agent.engine.builds import Builds
from hawse_agent.engine.collector import Collector
from hawse_agent.engine.commits import Commits
from hawse_agent.engine.containers import Containers
from hawse_agent.engine.copies import Copies
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.executions import Executions
from hawse_agent.engine.images import Images
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.observe import Observer
from hawse_agent.engine.program import Program
from hawse_agent.engine.report import host_report
from hawse_agent.engine.settings import Settings
from hawse_agent.engine.stacks import Stacks
from hawse_agent.engine.state import State
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import HawseError, NotFound
from hawse_agent.images.store import ImageStore
from hawse_agent.network.manager import NetworkManager
from hawse_agent.paths import Paths
from hawse_agent.provision import facts
from hawse_agent.supervise.client import Watcher
from hawse_agent.supervise.zygote import Zygote
from hawse_agent.volumes.store import VolumeStore

PROTOCOL = 1
API_VERSION = "1.47"
MIN_API_VERSION = "1.41"


class Engine:
    """Made once per daemon, after the zygote was forked. `recover` before the socket is opened."""

    def __init__(self, paths: Paths, zygote: Zygote, *, settings: Settings, bundle: str = "") -> None:
        self.paths = paths
        self.settings = settings
        self.zygote = zygote
        self.started = time.time()
        self.bundle = bundle
        for directory in (
            paths.incoming,
            paths.layers,
            paths.blobs,
            paths.containers,
            paths.volumes,
            paths.shims,
        ):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.state = State(paths)
        _make_mountpoints(paths.mountpoints)
        self.events = EventBus()
        self.cgroup_base = find_base(paths)
        self.watcher = Watcher()
        self.registries = Client(settings.registries)
        self.images = Images(
            store=ImageStore(paths, self.state),
            registries=self.registries,
            events=self.events,
            containers=self.state.containers,
        )
        self.volumes = Volumes(store=VolumeStore(paths), events=self.events, containers=self.state.containers)
        self.networks = Networks(
            state=self.state, manager=NetworkManager(paths, zygote.start_dns), events=self.events
        )
        self.containers = Containers(
            paths=paths,
            settings=settings,
            state=self.state,
            zygote=zygote,
            cgroup_base=self.cgroup_base,
            cgroups=Tree(self.cgroup_base),
            images=self.images,
            networks=self.networks,
            volumes=self.volumes,
            events=self.events,
            watcher=self.watcher,
        )
        self.builds = Builds(
            paths=paths,
            settings=settings.builds,
            table=self.state,
            images=self.images,
            containers=self.containers,
            events=self.events,
        )
        self.images.is_running = self._is_running
        self.collector = Collector(images=self.images, settings=settings.images, paths=paths)
        self.executions = Executions(paths=paths, containers=self.containers, events=self.events)
        self.copies = Copies(paths=paths, containers=self.containers, events=self.events)
        self.commits = Commits(
            paths=paths, containers=self.containers, images=self.images, events=self.events
        )
        self.backups = Backups(
            containers=self.containers, volumes=self.volumes, events=self.events, version=__version__
        )
        observer = Observer(
            containers=self.containers, images=self.images, networks=self.networks, volumes=self.volumes
        )
        self.stacks = Stacks(
            containers=self.containers, images=self.images, networks=self.networks, volumes=self.volumes
        )
        self.program = Program(
            paths=paths,
            state=self.state,
            observer=observer,
            stacks=self.stacks,
            images=self.images,
            volumes=self.volumes,
        )

    def recover(self) -> None:
        """Take up what runs; containers that must be started again are, in the background."""
        self.volumes.store.recover()
        self.builds.recover()
        self.networks.prepare()
        self.watcher.start()
        restart = self.containers.recover()
        self.commits.recover()
        self.networks.when_names_are_lost(self._names_lost)
        self.containers.restore_names()
        restart = list(dict.fromkeys([*restart, *self.stacks.recover()]))
        self.collector.start()
        if restart:
            threading.Thread(target=self._restart, args=(restart,), name="recover", daemon=True).start()

    def _is_running(self, container: str) -> bool:
        try:
            return self.containers.get(container).state.running
        except NotFound:  # gone, or about to be made
            return False

    def _names_lost(self) -> None:
        """Containers do not notice that the name server has died, but for the moment until it is replaced."""
        try:
            self.containers.restore_names()
        except (HawseError, OSError) as error:  # the next start of a container, or of the daemon, tries again
            print(
                f"hawse-agent: the names of containers are not restored: {error}", file=sys.stderr, flush=True
            )

    def _restart(self, ids: list[str]) -> None:
        for container_id in ids:
            try:
                self.containers.start(container_id)
            except NotFound:  # removed in the meantime
                continue
            except (HawseError, OSError) as error:  # shown by inspect; the others go on
                self.events.publish("container", "die", container_id, {"error": str(error)})

    def version(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "bundle": self.bundle,
            "protocol": PROTOCOL,
            "api_version": API_VERSION,
            "instance": self.paths.instance,
            "pid": os.getpid(),
            "started": self.started,
            "python": platform.python_version(),
        }

    def facts(self) -> dict[str, Any]:
        return facts.collect(self.paths)

    def report(self, *, sizes: bool = False) -> dict[str, Any]:
        return host_report(
            paths=self.paths,
            version=self.version(),
            containers=self.containers,
            images=self.images,
            volumes=self.volumes,
            sizes=sizes,
        )

    def close(self) -> None:
        """Leave; containers stay. The state is closed last, so that a late event still finds it."""
        self.collector.stop()
        self.program.close()
        self.builds.close()
        self.events.close()
        self.watcher.stop()
        self.state.close()


def _make_mountpoints(layer: Path) -> None:
    """Below an image's own layers: what the image has, or has removed, stays as it is. Made in the upper
    directory instead, these would be the greater part of what a start does on the disk."""
    for name in ("dev", "etc", "proc", "sys"):
        (layer / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in ("hostname", "hosts", "resolv.conf"):
        (layer / "etc" / name).touch(mode=0o644)
