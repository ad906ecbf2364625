"""`/volumes`."""

from __future__ import annotations

import secrets

from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.views import volumes as views
from hawse_agent.api.http import EMPTY, Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import NotSupported
from hawse_agent.spec.volume import VolumeSpec


def routes(router: Router, engine: Engine) -> None:
    volumes = engine.volumes

    def listing(request: Request) -> Response:
        filters = Filters(request.query.json("filters"), ("name", "label", "driver", "dangling"))
        found = [
            info
            for info in volumes.list()
            if filters.matches("name", info.spec.name)
            and filters.labels(info.spec.labels)
            and filters.one("driver", info.spec.driver)
            and (
                "dangling" not in filters
                or filters.flag("dangling", False) != bool(volumes.users(info.spec.name))
            )
        ]
        return Response(json={"Volumes": [views.volume(info) for info in found], "Warnings": None})

    def create(request: Request) -> Response:
        fields = Fields(request.body.json(), "")
        name = fields.text("Name") or secrets.token_hex(32)
        if fields.text("Driver") not in ("", "local"):
            raise NotSupported("volume drivers other than local are not supported")
        spec = VolumeSpec(name=name, options=fields.labels("DriverOpts"), labels=fields.labels("Labels"))
        fields.rest()
        return Response(status=201, json=views.volume(volumes.create(spec)))

    def inspect(request: Request) -> Response:
        return Response(json=views.volume(volumes.get(request.params["name"])))

    def remove(request: Request) -> Response:
        volumes.remove(request.params["name"], force=request.query.flag("force"))
        return EMPTY

    def prune(request: Request) -> Response:
        filters = Filters(request.query.json("filters"), ("all", "label", "label!"))
        removed = volumes.prune(
            named=filters.flag("all", False), wanted=lambda info: filters.prunes(info.spec.labels)
        )
        reclaimed = sum(removed.values())
        engine.events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return Response(json={"VolumesDeleted": list(removed), "SpaceReclaimed": reclaimed})

    router.add("GET", "/volumes", listing)
    router.add("POST", "/volumes/create", create)
    router.add("POST", "/volumes/prune", prune)
    router.add("GET", "/volumes/{name}", inspect)
    router.add("DELETE", "/volumes/{name}", remove)
