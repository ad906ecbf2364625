"""`doctor --rebuild`: makes a state file anew of what the disk and the kernel still tell.

    images       records.json, or the manifests among the blobs, where all layers are here
    networks     records.json, or what leases and bridges tell of those that are in use
    containers   containers/<id>/container.json; those whose shim answers run, and hold their lease
    volumes      are directories and need no state

The damaged file is kept aside. Containers run on: the next daemon takes them up. What cannot be recovered is
said, and its files stay where they are. Refuses while a daemon runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from hawse_agent.daemon import take_lock
from hawse_agent.engine import recordcopy
from hawse_agent.engine.state import State
from hawse_agent.errors import Conflict, HawseError, HostRefused
from hawse_agent.images import found
from hawse_agent.network import links
from hawse_agent.paths import Paths, paths_for
from hawse_agent.spec import codec
from hawse_agent.spec.records import ContainerRecord, EndpointRecord, NetworkRecord, PortRecord
from hawse_agent.supervise.client import ShimClient

Tell = Callable[[str], None]
_PARTS = ("", "-wal", "-shm")
_PARTS_OF_COPY: dict[str, type] = {"images": dict, "tags": dict, "networks": list}


def main(root: str) -> int:
    """Prints what it has recovered; 1 when something could not be."""
    paths = paths_for(Path(root) if root else None)
    if not paths.lib.is_dir():
        raise HostRefused(f"there is nothing to rebuild: {paths.lib} is not there")
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = take_lock(paths)
    try:
        complete = rebuild(paths, print)
    finally:
        os.close(lock)
    return 0 if complete else 1


def rebuild(paths: Paths, tell: Tell) -> bool:
    """Whether all was recovered that there is a trace of."""
    workshop = replace(paths, lib=paths.lib / ".rebuild")
    shutil.rmtree(workshop.lib, ignore_errors=True)
    state = State(workshop)
    try:
        work = _Rebuild(paths=paths, state=state, tell=tell)
        work.run()
    finally:
        state.close()
    _put_aside(paths, tell)
    for fresh, place in ((workshop.state, paths.state), (workshop.records_copy, paths.records_copy)):
        with contextlib.suppress(FileNotFoundError):  # no copy, when there was nothing to copy
            fresh.replace(place)
    shutil.rmtree(workshop.lib)
    return not work.lost


@dataclass(kw_only=True)
class _Rebuild:
    paths: Paths
    state: State
    tell: Tell
    lost: list[str] = field(default_factory=list)

    def run(self) -> None:
        copy = _read_json(self.paths.records_copy)
        if not all(isinstance(copy.get(key), kind) for key, kind in _PARTS_OF_COPY.items()):
            self._lose(f"{self.paths.records_copy} cannot be read: names of images and unused networks")
        self._images(_mapping(copy, "images"), _mapping(copy, "tags"))
        records = self._records()
        for data in _list(copy, "networks"):
            with self._item(f"network {_named(data)}"):
                self._network(codec.from_json(NetworkRecord, data))
        for record in records:
            with self._item(f"container {record.spec.name}"):
                self._container(record)

    @contextlib.contextmanager
    def _item(self, what: str) -> Iterator[None]:
        """One that cannot be read is lost, and the others are not. What the new state refuses ends it all."""
        try:
            yield
        except HostRefused:
            raise
        except (HawseError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            self._lose(f"{what}: {error if str(error) else type(error).__name__}")

    def _images(self, kept: dict[str, Any], tags: dict[str, Any]) -> None:
        ids = set()
        for image_id, document in found.images(self.paths, kept, self._lose):
            self.state.put_image(image_id, codec.dumps(document))
            ids.add(image_id)
            names = [name for name, owner in tags.items() if owner == image_id]
            for name in names:
                self.state.put_tag(name, image_id)
            self.tell(f"image {image_id[7:19]} {' '.join(names) or '(no name)'}")
        for image_id in kept.keys() - ids:
            self._lose(f"image {image_id[7:19]}: its layers are not here, or its record is damaged")
        for name in sorted(name for name, owner in tags.items() if owner not in ids | kept.keys()):
            self._lose(f"name {name}: its image is not known")

    def _records(self) -> list[ContainerRecord]:
        found = []
        for directory in sorted(self.paths.containers.iterdir()) if self.paths.containers.is_dir() else ():
            if directory.name.startswith("."):
                continue  # about to be made when a daemon died: the next one clears it away
            with self._item(f"container {directory.name[:12]}"):
                record = recordcopy.read(self.paths.record_copy(directory.name))
                if record is None or record.id != directory.name:
                    self._lose(f"container {directory.name[:12]}: its record is damaged; see {directory}")
                else:
                    found.append(record)
        return found

    def _network(self, record: NetworkRecord) -> None:
        if record.subnet:
            IPv4Network(record.subnet)
        try:
            self.state.add_network(record)
        except Conflict:
            self._lose(f"network {record.name} ({record.id[:12]}): there is another of that name")
        else:
            self.tell(f"network {record.name}")

    def _container(self, record: ContainerRecord) -> None:
        running = self._runs(record.id)
        if running and not record.removing:
            record = replace(record, desired="running")
        try:
            self.state.add_container(record)
        except Conflict:  # renamed, and the copy is from before
            record = replace(record, spec=replace(record.spec, name=f"{record.spec.name}.{record.id[:6]}"))
            self.state.add_container(record)
        if running:
            with self._item(f"addresses and ports of container {record.spec.name}"):
                self._lease(record, _read_json(self.paths.lease_copy(record.id)))
        self.tell(f"container {record.spec.name}{' (running)' if running else ''}")

    def _runs(self, container_id: str) -> bool:
        try:
            return bool(ShimClient(self.paths.shim(container_id) / "shim.sock").state()["pid"])
        except (FileNotFoundError, ConnectionError):
            return False
        except HawseError:  # it is held up: there it is
            return True

    def _lease(self, record: ContainerRecord, lease: dict[str, Any]) -> None:
        endpoints = [codec.from_json(EndpointRecord, data) for data in lease.get("endpoints", ())]
        ports = [codec.from_json(PortRecord, data) for data in lease.get("ports", ())]
        for address in [*(endpoint.ipv4 for endpoint in endpoints), *(port.container_ip for port in ports)]:
            IPv4Interface(address)
        known = {network.id for network in self.state.networks()}
        for endpoint in endpoints:
            name = _network_name(record, endpoint)
            if endpoint.network not in known:
                seen = _network_of(endpoint, name)
                if seen is None:
                    self._lose(f"container {record.spec.name}: its network {endpoint.network[:12]}")
                    continue
                self._network(seen)
                known.add(seen.id)
        endpoints = [
            replace(endpoint, names=(record.spec.name, *endpoint.names[1:]))
            for endpoint in endpoints
            if endpoint.network in known
        ]
        try:
            self.state.add_lease(endpoints, ports)
        except Conflict as error:
            self._lose(f"container {record.spec.name}: {error.message}")

    def _lose(self, what: str) -> None:
        self.lost.append(what)
        self.tell(f"not recovered: {what}")


def _network_name(record: ContainerRecord, endpoint: EndpointRecord) -> str:
    index = int(endpoint.container_link.removeprefix("eth"))
    wanted = record.spec.networks
    return wanted[index].network if index < len(wanted) else record.spec.network_mode


def _network_of(endpoint: EndpointRecord, name: str) -> NetworkRecord | None:
    """What the kernel tells of it: the bridge that the container's link is at."""
    with links.route_socket() as netlink:
        every = {link.index: link for link in links.list_all(netlink)}
        own = next((link for link in every.values() if link.name == endpoint.host_link), None)
        bridge = every.get(own.master) if own is not None else None
    if bridge is None:
        return None
    subnet = IPv4Interface(endpoint.ipv4).network
    default = name in ("default", "bridge")
    return NetworkRecord(
        id=endpoint.network,
        name="bridge" if default else name,
        driver="bridge",
        bridge=bridge.name,
        subnet=str(subnet),
        gateway=str(subnet.network_address + 1),
        created=time.time(),
        default=default,
    )


def _put_aside(paths: Paths, tell: Tell) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for part in _PARTS:
        path = Path(f"{paths.state}{part}")
        aside = Path(f"{paths.state}.damaged-{stamp}{part}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            tell(f"kept {aside}")


def _named(data: Any) -> str:
    return str(data.get("name", "without a name")) if isinstance(data, dict) else "without a name"


def _mapping(copy: dict[str, Any], key: str) -> dict[str, Any]:
    value = copy.get(key, {})
    return value if isinstance(value, dict) else {}


def _list(copy: dict[str, Any], key: str) -> list[Any]:
    value = copy.get(key, [])
    return value if isinstance(value, list) else []


def _read_json(path: Path) -> dict[str, Any]:
    """Nothing where there is none, or half of one."""
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
