"""A container's own directory: what its shim and its root are made of."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

from hawse_agent.engine import resolve
from hawse_agent.engine.containers.looking import Looking
from hawse_agent.engine.containers.sharing import Sharing
from hawse_agent.engine.images import Images
from hawse_agent.engine.networks import DEFAULT_NETWORK, Lease, Networks
from hawse_agent.engine.register import Register
from hawse_agent.engine.settings import Settings
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import Conflict
from hawse_agent.images.store import Image
from hawse_agent.linux import files, tree
from hawse_agent.paths import Paths
from hawse_agent.runtime.view import Stack
from hawse_agent.spec import codec
from hawse_agent.spec.records import ContainerRecord
from hawse_agent.spec.runtime import RuntimeConfig

_READERS = 64
"""More than look into one container at one moment."""


class Files:
    def __init__(
        self,
        *,
        paths: Paths,
        settings: Settings,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        register: Register,
        looking: Looking,
        sharing: Sharing,
        cgroup_base: str,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._register = register
        self._looking = looking
        self._sharing = sharing
        self._cgroup_base = cgroup_base
        self._hard_nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def make_directory(self, record: ContainerRecord, directory: Path) -> None:
        directory.mkdir(mode=0o711, parents=True)
        (directory / "upper").mkdir(mode=0o755)
        (directory / "work").mkdir(mode=0o700)
        (directory / "root").mkdir(mode=0o700)  # here, so that a look into one being removed makes nothing
        if record.spec.files:
            (directory / "files").mkdir(mode=0o700)
        for index, file in enumerate(record.spec.files):
            path = resolve.file_source(directory, index)
            files.write_private(path, resolve.file_bytes(file.content))
            os.chown(path, file.uid, file.gid)
            path.chmod(file.mode)

    def stack(self, record: ContainerRecord) -> Stack:
        """What its root is made of on the disk."""
        layers = self.layers(self._images.get(record.image_id))
        home = self._paths.container(record.id)
        around = self.surroundings(record, layers, resolve.Namespaces(network="none"))
        return Stack(
            home=str(home),
            layers=tuple(str(layer) for layer in layers),
            binds=resolve.mounts(record, around, home)[0],
            read_only=record.spec.read_only,
        )

    def layers(self, image: Image) -> tuple[Path, ...]:
        """Of a container's root, topmost first."""
        return (*self._images.layer_dirs(image), self._paths.mountpoints)

    def user(self, record: ContainerRecord) -> str:
        """As whom it runs; "" is root."""
        return record.spec.user or self._images.get(record.image_id).config.user

    def prepare(self, record: ContainerRecord, image: Image, lease: Lease) -> RuntimeConfig:
        directory = self._paths.container(record.id)
        namespaces = self._sharing.namespaces(record.spec)
        linked = tuple(self._linked(record, other.id, alias) for other, alias in self._looking.linked(record))
        layers = self.layers(image)
        shared = self._sharing.shared_etc(record.spec)
        around = replace(
            self.surroundings(record, layers, namespaces),
            linked=linked,
            host_name=None if shared is None else _names_of(shared.parent),
        )
        config = resolve.runtime_config(record, image, around)
        config = replace(config, finished_before=self._register.live(record.id).state.finished_at)
        etc = directory / "etc"
        etc.mkdir(mode=0o755, exist_ok=True)
        spec = record.spec
        host_network = namespaces.network == "host"
        host_hosts = Path("/etc/hosts").read_text() if host_network else None
        host_resolv = _read_or_empty(Path("/etc/resolv.conf"))
        if shared is not None:
            for name in ("hostname", "hosts", "resolv.conf"):
                shutil.copyfile(shared / name, etc / name)
            return config
        (etc / "hostname").write_text(config.hostname + "\n")
        (etc / "hosts").write_text(
            resolve.hosts_file(spec, config.hostname, lease.endpoints, lease.gateway, host_hosts, linked)
        )
        (etc / "resolv.conf").write_text(
            resolve.resolv_conf(spec, host_resolv, embedded=lease.embedded_dns, host_network=host_network)
        )
        return config

    def write_config(self, record: ContainerRecord, config: RuntimeConfig) -> Path:
        """What the shim reads; how the last run ended is past with it."""
        path = self._paths.container(record.id) / "runtime.json"
        files.write_private(path, codec.dumps(config).encode())
        (self._paths.container(record.id) / "exit.json").unlink(missing_ok=True)
        return path

    def _linked(self, record: ContainerRecord, other: str, alias: str) -> resolve.Linked:
        view = self._looking.get(other)
        if not view.state.running:
            raise Conflict(
                f"Cannot link to a non running container: /{view.name} AS /{record.spec.name}/{alias}"
            )
        default = self._networks.get(DEFAULT_NETWORK).id
        own = next((endpoint for endpoint in view.endpoints if endpoint.network == default), None)
        if own is None:
            raise Conflict(f"Cannot link to /{view.name}, as it does not belong to the default network")
        image, spec = self._images.get(view.record.image_id), view.record.spec
        published = (f"{port.container_port}/{port.protocol}" for port in spec.ports)
        given = dict(entry.partition("=")[::2] for entry in image.config.env) | dict(spec.environment)
        return resolve.Linked(
            alias=alias,
            name=view.name,
            id=view.id,
            ipv4=own.ipv4.split("/")[0],
            ports=tuple(dict.fromkeys((*image.config.exposed_ports, *spec.expose, *published))),
            environment=given,
        )

    def tell_linked(self, record: ContainerRecord) -> None:
        """Running containers that know this one by a link learn its new address."""
        for other, live in self._register.all():
            for linked, alias in self._looking.linked(other):
                if linked.id == record.id and live.state.running:
                    path = self._paths.container(other.id) / "etc" / "hosts"
                    path.write_text(resolve.moved(path.read_text(), self._linked(other, linked.id, alias)))

    def surroundings(
        self, record: ContainerRecord, layers: tuple[Path, ...], namespaces: resolve.Namespaces
    ) -> resolve.Surroundings:
        return resolve.Surroundings(
            paths=self._paths,
            layers=layers,
            volume_dirs={name: self._volumes.path(name) for name in record.volumes.values()},
            namespaces=namespaces,
            cgroup_base=self._cgroup_base,
            hard_nofile=self._hard_nofile,
            init=self._settings.init,
        )


def _names_of(home: Path) -> tuple[str, str]:
    """Host and domain name of a container that has been started."""
    config = codec.loads(RuntimeConfig, (home / "runtime.json").read_bytes())
    return config.hostname, config.domainname


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def remove_tree(directory: Path) -> None:
    """Also when it is half gone already; any other failure is raised, so that nothing stays unnoticed.

    Who looked into a container when its removal began may still make his mount point there, once.
    """
    for left in reversed(range(_READERS)):
        try:
            tree.remove(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not left:
                raise
