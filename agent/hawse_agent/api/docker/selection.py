"""Which containers a list shows: Docker's filters of `ps`. They are checked before anything is listed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.views.configuration import exposed_ports, labels
from hawse_agent.api.docker.views.endpoints import network_names
from hawse_agent.engine.views import ContainerView
from hawse_agent.errors import InputError
from hawse_agent.images.store import Image
from hawse_agent.spec.records import NetworkRecord

_KNOWN = (
    *("id", "name", "label", "status", "ancestor", "network", "volume", "health", "exited", "before"),
    *("since", "publish", "expose", "is-task", "isolation"),
)
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")


class Selection:
    """Raises InputError for a filter or a value that there is not, NotFound for a container of `before` and
    `since` that there is not."""

    def __init__(
        self,
        given: Any,
        *,
        created: Callable[[str], float],
        image_id: Callable[[str], str | None],
        networks: Mapping[str, NetworkRecord],
    ) -> None:
        """`created` gives the time of a container by its name, `image_id` the image of a name."""
        filters = Filters(given, _KNOWN)
        filters.check("status", _STATES)
        filters.check("health", _HEALTH)
        self._filters = filters
        self._networks = networks
        self._exited = {_exit_code(value) for value in filters.values("exited")}
        self._before = [created(name) for name in filters.values("before")]
        self._since = [created(name) for name in filters.values("since")]
        self._images = {image_id(name) for name in filters.values("ancestor")}
        self._ports = {key: _ports(key, filters.values(key)) for key in ("publish", "expose")}
        self._tasks = filters.flag("is-task", False)
        self.stopped = "status" in filters
        """Whether containers that do not run are asked for."""

    def wants(self, view: ContainerView, image: Image | None) -> bool:
        filters, spec = self._filters, view.record.spec
        health = view.state.health.status if view.state.health is not None else "none"
        return (
            not self._tasks
            and filters.matches("id", view.id)
            and filters.matches("name", f"/{view.name}", view.name)
            and ("label" not in filters or filters.labels(labels(spec, image)))
            and filters.one("status", view.state.status)
            and filters.one("health", health)
            and (not self._exited or self._has_exited(view))
            and (not self._images or view.record.image_id in self._images)
            and ("network" not in filters or self._is_on(view, filters.values("network")))
            and ("volume" not in filters or self._mounts(view, filters.values("volume")))
            and self._has("publish", {f"{port.container_port}/{port.protocol}" for port in spec.ports})
            and self._has("expose", exposed_ports(spec, image))
            and all(view.record.created < time for time in self._before)
            and all(view.record.created > time for time in self._since)
        )

    def _has_exited(self, view: ContainerView) -> bool:
        ended = not view.state.running and bool(view.state.finished_at)
        return ended and view.state.exit_code in self._exited

    def _has(self, key: str, ports: Collection[str]) -> bool:
        return not self._ports[key] or not self._ports[key].isdisjoint(ports)

    def _is_on(self, view: ContainerView, wanted: Collection[str]) -> bool:
        """By name or id, whether it runs or not."""
        names = set(network_names(view, self._networks))
        return any(name in names for name in wanted) or any(
            record.name in names and record.id.startswith(name)
            for record in self._networks.values()
            for name in wanted
        )

    @staticmethod
    def _mounts(view: ContainerView, wanted: Collection[str]) -> bool:
        """By the volume's name, the source of a bind, or where it is mounted."""
        known = {*view.record.volumes, *view.record.volumes.values()}
        for mount in view.record.spec.mounts:
            known |= {mount.target, mount.source} if mount.kind == "bind" else {mount.target}
        return not known.isdisjoint(wanted)


def _exit_code(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InputError(f"invalid filter 'exited={text}': expected a number")
    return int(text)


def _ports(key: str, values: Collection[str]) -> set[str]:
    """`80`, `80/udp`, `8000-8010`."""
    found = set()
    for value in values:
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", value)
        if match is None:
            raise InputError(f"invalid filter '{key}={value}': expected PORT[-PORT][/PROTOCOL]")
        first = int(match[1])
        for port in range(first, min(int(match[2] or first), 65535) + 1):
            found.add(f"{port}/{match[3] or 'tcp'}")
    return found
