"""From a wanted stack and an observed host to the operations that lead from one to the other. Pure.

Order: networks, volumes, images, containers the stack no longer names, containers in the order of their
dependencies, networks the stack no longer names. A stack only ever touches what carries its label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace

from hawse_agent.errors import Conflict, InputError
from hawse_agent.plan.differences import container_changes, file_diff, port_text, resource_changes
from hawse_agent.plan.observed import ObservedContainer, ObservedHost, ObservedNetwork
from hawse_agent.plan.operations import Change, Operation
from hawse_agent.spec import partners
from hawse_agent.spec.container import ContainerSpec, PortMap, Resources
from hawse_agent.spec.host import LABEL_STACK, ImageSource, StackSpec
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.records import PortRecord

_LIVE_FIELDS = ("resources", "restart")
"""What can change while the container runs; every other field needs a new container."""


def plan_stack(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    """Operations for one stack, in the order in which they must run.

    Raises InputError for two containers on one host port and for cyclic dependencies, Conflict for a name
    that belongs to somebody else.
    """
    if spec.state == "absent":
        return _removal(item, spec, seen)
    _check_ports(spec, seen)
    return [
        *_firewall(item, spec, seen),
        *_networks(item, spec, seen),
        *_volumes(item, spec, seen),
        *_images(item, spec, seen),
        *_orphans(item, spec, seen),
        *_containers(item, spec, seen),
        *_orphan_networks(item, spec, seen),
    ]


def dependency_order(containers: Iterable[ContainerSpec]) -> list[ContainerSpec]:
    """Each after those it depends on, otherwise in the given order; InputError names a cycle."""
    by_name = {c.name: c for c in containers}
    ordered: list[ContainerSpec] = []
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in done:
            return
        if name in trail:
            raise InputError(f"depends_on goes in a circle: {' → '.join((*trail, name))}")
        spec = by_name[name]
        for dependency in spec.depends_on:
            if dependency not in by_name:
                raise InputError(f"{name} depends on {dependency}, which the stack does not have")
            visit(dependency, (*trail, name))
        done.add(name)
        ordered.append(spec)

    for name in by_name:
        visit(name, ())
    return ordered


def _removal(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    owned = [c for c in seen.containers.values() if _owner(c) == spec.name]
    operations = [
        Operation(item=item, action="remove", kind="container", name=c.record.spec.name, reason="stack goes")
        for c in reversed(owned)
    ]
    operations += [
        Operation(item=item, action="remove", kind="network", name=name, reason="stack goes")
        for name, network in seen.networks.items()
        if network.record.labels.get(LABEL_STACK) == spec.name
    ]
    if spec.remove_volumes:
        operations += [
            Operation(item=item, action="remove", kind="volume", name=name, reason="stack and data go")
            for name, volume in seen.volumes.items()
            if volume.labels.get(LABEL_STACK) == spec.name
        ]
    return operations


def _firewall(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    if not seen.firewall_lost or not any(_owner(c) == spec.name for c in seen.containers.values()):
        return []
    changes = tuple(Change(field=what, old="missing", new="present") for what in seen.firewall_lost)
    return [Operation(item=item, action="repair", kind="firewall", name="hawse", changes=changes)]


def _networks(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    operations = []
    for network in spec.networks:
        existing = seen.networks.get(network.name)
        if existing is None:
            operations.append(Operation(item=item, action="create", kind="network", name=network.name))
            continue
        owner = existing.record.labels.get(LABEL_STACK, "")
        if owner != network.labels.get(LABEL_STACK, ""):
            raise Conflict(f"network {network.name} exists and does not belong to stack {spec.name}")
        if changes := _network_changes(existing, network):
            operations.append(
                Operation(
                    item=item, action="recreate", kind="network", name=network.name, changes=tuple(changes)
                )
            )
        elif existing.lost:
            lost = tuple(Change(field=what, old="missing", new="present") for what in existing.lost)
            operations.append(
                Operation(item=item, action="repair", kind="network", name=network.name, changes=lost)
            )
    return operations


def _network_changes(existing: ObservedNetwork, wanted: NetworkSpec) -> list[Change]:
    record = existing.record
    pairs = [
        ("internal", str(record.internal), str(wanted.internal)),
        ("icc", str(record.icc), str(wanted.icc)),
    ]
    for name in ("subnet", "gateway", "ip_range"):
        if getattr(wanted, name):  # left open by the person: whatever was chosen is right
            pairs.append((name, getattr(record, name), getattr(wanted, name)))
    if wanted.mtu:
        pairs.append(("mtu", str(record.mtu), str(wanted.mtu)))
    return [Change(field=name, old=old, new=new) for name, old, new in pairs if old != new]


def _volumes(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    operations = []
    for volume in spec.volumes:
        existing = seen.volumes.get(volume.name)
        if existing is None:
            operations.append(Operation(item=item, action="create", kind="volume", name=volume.name))
        elif dict(existing.options) != dict(volume.options):
            raise Conflict(
                f"volume {volume.name} exists with other driver options ({dict(existing.options)}); "
                "Hawse never replaces a volume that may hold data",
                hint="remove the volume first, or give it another name",
            )
    return operations


def _images(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    operations = []
    for source in spec.images:
        present = seen.images.get(source.reference)
        if source.id and present != source.id:
            changes = (Change(field="id", old=_short(present or ""), new=_short(source.id)),)
            operations.append(
                Operation(item=item, action="send", kind="image", name=source.reference, changes=changes)
            )
        elif not present and not source.id:
            operations.append(
                Operation(
                    item=item,
                    action="pull",
                    kind="image",
                    name=source.reference,
                    reason="neither the host nor the controller has it",
                )
            )
    return operations


def _orphans(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    wanted = {container.name for container in spec.containers}
    return [
        Operation(
            item=item, action="remove", kind="container", name=name, reason="the stack no longer names it"
        )
        for name, container in seen.containers.items()
        if _owner(container) == spec.name and name not in wanted
    ]


def _orphan_networks(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    wanted = {network.name for network in spec.networks}
    return [
        Operation(
            item=item, action="remove", kind="network", name=name, reason="the stack no longer names it"
        )
        for name, network in seen.networks.items()
        if network.record.labels.get(LABEL_STACK) == spec.name and name not in wanted
    ]


def _containers(item: str, spec: StackSpec, seen: ObservedHost) -> list[Operation]:
    images = {source.reference: source for source in spec.images}
    new_networks = {
        n.name
        for n in spec.networks
        if n.name in seen.networks and _network_changes(seen.networks[n.name], n)
    }
    operations: list[Operation] = []
    named = _names(seen)
    new: set[str] = set()
    """Containers: who shares something of theirs shares it with the old ones until he is new, too."""
    for wanted in dependency_order(spec.containers):
        existing = seen.containers.get(wanted.name)
        if existing is None:
            operations.append(
                Operation(item=item, action="create", kind="container", name=wanted.name, reason="not there")
            )
            new.add(wanted.name)
            continue
        if _owner(existing) != spec.name:
            raise Conflict(f"a container named {wanted.name} exists and does not belong to stack {spec.name}")
        operations += (of_it := _container(item, wanted, existing, images, seen, new_networks, new, named))
        if any(operation.action == "recreate" for operation in of_it):
            new.add(wanted.name)
    return operations


def _names(seen: ObservedHost) -> Callable[[str], str]:
    """What the others are called now, of whose ids records are made; one that is gone keeps its id, and is
    not the one whose name is wanted."""
    names = {container.record.id: name for name, container in seen.containers.items()}

    def named(reference: str) -> str:
        if reference in seen.containers:
            return reference
        if reference in names:
            return names[reference]
        found = [name for identity, name in names.items() if identity.startswith(reference)]
        return found[0] if len(found) == 1 else reference

    return named


def _shares(spec: ContainerSpec) -> Iterable[tuple[str, str]]:
    """Fields by which it depends on one very container, each with that container's name."""
    yield from partners.joined(spec)
    for entry in spec.volumes_from:
        yield "volumes_from", entry.partition(":")[0]


def _container(
    item: str,
    wanted: ContainerSpec,
    existing: ObservedContainer,
    images: Mapping[str, ImageSource],
    seen: ObservedHost,
    new_networks: set[str],
    new: set[str],
    named: Callable[[str], str],
) -> list[Operation]:
    current, wanted = (partners.renamed(spec, named) for spec in (existing.record.spec, wanted))
    changes = [*container_changes(current, wanted), *_image_change(wanted, existing, images, seen)]
    changes += [
        Change(field="network", old=e.network, new=f"{e.network} (new)")
        for e in wanted.networks
        if e.network in new_networks
    ]
    changes += [
        Change(field=field, old=other, new=f"{other} (new)")
        for field, other in _shares(wanted)
        if other in new and getattr(current, field) == getattr(wanted, field)
    ]
    if changes:
        live = all(change.field.split(".")[0] in _LIVE_FIELDS for change in changes)
        running = existing.status in ("running", "paused", "restarting")
        if live and running:
            return [
                Operation(
                    item=item, action="update", kind="container", name=wanted.name, changes=tuple(changes)
                )
            ]
        return [
            Operation(
                item=item,
                action="recreate",
                kind="container",
                name=wanted.name,
                changes=tuple(changes),
                diff=file_diff(current, wanted),
            )
        ]
    if existing.status in ("created", "exited", "dead") and not _finished(wanted, existing):
        reason = "never started" if existing.status == "created" else f"exited ({existing.exit_code})"
        return [Operation(item=item, action="start", kind="container", name=wanted.name, reason=reason)]
    return _repairs(item, wanted, existing)


def _finished(wanted: ContainerSpec, existing: ObservedContainer) -> bool:
    """A one-shot container that ended well has done what it was for."""
    return (
        existing.status == "exited"
        and existing.exit_code == 0
        and wanted.restart.mode in ("no", "on-failure")
        and existing.record.desired == "running"
    )


def _repairs(item: str, wanted: ContainerSpec, existing: ObservedContainer) -> list[Operation]:
    operations = []
    if existing.limits is not None:
        changes = resource_changes(
            existing.limits, effective_limits(wanted.resources, existing.limits), prefix="cgroup "
        )
        if changes:
            operations.append(
                Operation(
                    item=item, action="repair", kind="container", name=wanted.name, changes=tuple(changes)
                )
            )
    if existing.links_lost:
        lost = tuple(
            Change(field=f"link {link}", old="missing", new="present") for link in existing.links_lost
        )
        operations.append(
            Operation(item=item, action="recreate", kind="container", name=wanted.name, changes=lost)
        )
    operations += [
        Operation(
            item=item,
            action="repair",
            kind="port",
            name=f"{wanted.name} {_published(port)}",
            changes=(
                Change(field="nft element", old="missing", new=f"{port.container_ip}:{port.container_port}"),
            ),
        )
        for port in existing.ports_lost
    ]
    return operations


def effective_limits(wanted: Resources, live: Resources) -> Resources:
    """`wanted` with the kernel's defaults filled in, comparable with what the cgroup files say.

    Only limits that the spec sets can be wrong; what it leaves open is taken as found, except that a limit
    nobody asked for (memory, cpus, pids) is a change made by hand.
    """
    expected = {f.name: getattr(live, f.name) for f in fields(Resources)}
    for name in ("memory", "cpus", "pids"):
        expected[name] = getattr(wanted, name)
    for name in ("cpu_shares", "memory_reservation", "cpuset_cpus", "cpuset_mems"):
        if getattr(wanted, name):
            expected[name] = getattr(wanted, name)
    if wanted.memory is not None and live.memory_swap is not None:
        expected["memory_swap"] = wanted.memory_swap if wanted.memory_swap is not None else 2 * wanted.memory
    return replace(live, **expected)


def _image_change(
    wanted: ContainerSpec, existing: ObservedContainer, images: Mapping[str, ImageSource], seen: ObservedHost
) -> list[Change]:
    source = images.get(wanted.image)
    target = (source.id if source else "") or seen.images.get(wanted.image, "")
    if not target or target == existing.record.image_id or wanted.image != existing.record.spec.image:
        return []
    return [Change(field="image id", old=_short(existing.record.image_id), new=_short(target))]


def _check_ports(spec: StackSpec, seen: ObservedHost) -> None:
    taken: dict[tuple[str, int], list[tuple[str, PortMap]]] = {}
    for container in spec.containers:
        for port in container.ports:
            if not port.host_port or port.host_port_last:
                continue
            for other, other_port in taken.setdefault((port.protocol, port.host_port), []):
                if not port.host_ip or not other_port.host_ip or port.host_ip == other_port.host_ip:
                    raise InputError(
                        f"{other} and {container.name} both publish host port "
                        f"{port.host_port}/{port.protocol} ({port_text(other_port)} and {port_text(port)})"
                    )
            taken[port.protocol, port.host_port].append((container.name, port))


def _published(port: PortRecord) -> str:
    return f"{port.host_ip or '0.0.0.0'}:{port.host_port}/{port.protocol}"


def _owner(container: ObservedContainer) -> str:
    return container.record.spec.labels.get(LABEL_STACK, "")


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12] or "(none)"
