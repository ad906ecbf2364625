"""`/networks`."""

from __future__ import annotations

import re

from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.views import networks as views
from hawse_agent.api.http import EMPTY, Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import Conflict, InputError, NotFound, NotSupported
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.records import EndpointRecord, NetworkRecord

_PREDEFINED = ("bridge", "host", "none")
_MTU = "com.docker.network.driver.mtu"
_ICC = "com.docker.network.bridge.enable_icc"


def routes(router: Router, engine: Engine) -> None:
    api = Networks(engine)
    router.add("GET", "/networks", api.list)
    router.add("POST", "/networks/create", api.create)
    router.add("POST", "/networks/prune", api.prune)
    router.add("GET", "/networks/{id}", api.inspect)
    router.add("DELETE", "/networks/{id}", api.remove)
    router.add("POST", "/networks/{id}/connect", api.connect)
    router.add("POST", "/networks/{id}/disconnect", api.connect)


class Networks:
    def __init__(self, engine: Engine) -> None:
        self._networks, self._containers = engine.networks, engine.containers
        self._events = engine.events

    def list(self, request: Request) -> Response:
        filters = Filters(
            request.query.json("filters"), ("name", "id", "driver", "label", "type", "scope", "dangling")
        )
        filters.check("type", ("builtin", "custom"))
        return Response(
            json=[
                views.network(record, ()) for record in self._networks.list() if self._wanted(record, filters)
            ]
        )

    def _wanted(self, record: NetworkRecord, filters: Filters) -> bool:
        kind = "builtin" if record.name in _PREDEFINED else "custom"
        used = bool(self._networks.endpoints(record.id)) or kind == "builtin"
        return (
            filters.matches("name", record.name)
            and filters.matches("id", record.id)
            and filters.one("driver", "null" if record.driver == "none" else record.driver)
            and filters.labels(record.labels)
            and filters.one("type", kind)
            and filters.one("scope", "local")
            and ("dangling" not in filters or filters.flag("dangling", False) != used)
        )

    def inspect(self, request: Request) -> Response:
        record = self._networks.get(request.params["id"])
        return Response(json=views.network(record, self._members(record)))

    def _members(self, record: NetworkRecord) -> tuple[tuple[EndpointRecord, str], ...]:
        found = []
        for endpoint in self._networks.endpoints(record.id):
            try:
                name = self._containers.record(endpoint.container).spec.name
            except NotFound:  # removed since the list was made
                continue
            found.append((endpoint, name))
        return tuple(found)

    def create(self, request: Request) -> Response:
        fields = Fields(request.body.json(), "")
        fields.ignore({"CheckDuplicate": "names are always unique here"})
        if fields.given("EnableIPv4") and not fields.flag("EnableIPv4"):
            raise NotSupported("networks without IPv4 are not supported by hawse-agent")
        name, driver = fields.text("Name"), fields.text("Driver") or "bridge"
        if not name:
            raise InputError("Name: expected the network's name")
        if driver == "overlay":
            raise NotSupported("driver overlay is not supported by a single agent")
        if driver != "bridge":
            raise NotSupported(f"network driver {driver!r} is not supported: bridge is")
        if fields.text("Scope") not in ("", "local"):
            raise NotSupported("networks of a swarm are not supported")
        options = fields.labels("Options")
        subnet, gateway, ip_range = _pool(fields.inner("IPAM"))
        spec = NetworkSpec(
            name=name,
            subnet=subnet,
            gateway=gateway,
            ip_range=ip_range,
            internal=fields.flag("Internal"),
            mtu=_mtu(options.get(_MTU, "")),
            icc=options.get(_ICC, "true") == "true",
            options=options,
            labels=fields.labels("Labels"),
        )
        for option in options:
            if option not in (_MTU, _ICC):
                raise NotSupported(f"network option {option!r} is not supported")
        fields.rest()
        record = self._networks.create(spec)
        return Response(status=201, json={"Id": record.id, "Warning": ""})

    def remove(self, request: Request) -> Response:
        self._networks.remove(request.params["id"])
        return EMPTY

    def prune(self, request: Request) -> Response:
        filters = Filters(request.query.json("filters"), ("label", "label!", "until"))
        removed = []
        for record in self._networks.list():
            unused = record.name not in _PREDEFINED and not self._networks.endpoints(record.id)
            if unused and not self._referred(record) and filters.prunes(record.labels, record.created):
                try:
                    self._networks.remove(record.id)
                except (Conflict, NotFound):  # taken or removed in the meantime
                    continue
                removed.append(record.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return Response(json={"NetworksDeleted": removed or None})

    def _referred(self, record: NetworkRecord) -> bool:
        """By a container that does not run now."""
        for view in self._containers.list():
            spec = view.record.spec
            if record.name in (spec.network_mode, *(endpoint.network for endpoint in spec.networks)):
                return True
        return False

    def connect(self, request: Request) -> Response:
        verb = request.path.rpartition("/")[2]
        raise NotSupported(f"network {verb} is not supported by hawse-agent: name networks when creating")


def _pool(ipam: Fields) -> tuple[str, str, str]:
    if ipam.text("Driver") not in ("", "default"):
        raise NotSupported("address management drivers other than default are not supported")
    pools = ipam.objects("Config")
    ipam.rest()
    if len(pools) > 1:
        raise NotSupported("more than one address pool for a network is not supported")
    if not pools:
        return "", "", ""
    fields = Fields(pools[0], "IPAM.Config")
    found = (fields.text("Subnet"), fields.text("Gateway"), fields.text("IPRange"))
    fields.rest()
    return found


def _mtu(text: str) -> int:
    if text and not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(f"{_MTU}: {text!r} is not a number")
    return int(text or 0)
