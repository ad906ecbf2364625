"""Ping, version, info, events, disk usage."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from hawse_agent.api.docker import builds, info
from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.views.containers import summary
from hawse_agent.api.docker.views.events import event_json
from hawse_agent.api.docker.views.images import image_summary, shared_sizes
from hawse_agent.api.docker.views.volumes import volume
from hawse_agent.api.http import Request, Response
from hawse_agent.api.router import NEWEST, OLDEST, Router, text
from hawse_agent.engine.engine import Engine
from hawse_agent.engine.views import Event
from hawse_agent.errors import InputError

_BEAT = 10.0
"""Seconds between two looks at whether a client of `/events` is still there."""
_EVENT_FILTERS = ("type", "event", "container", "image", "network", "volume", "label", "scope", "daemon")
_USES = ("container", "image", "volume", "build-cache")


def routes(router: Router, engine: Engine) -> None:
    newest, oldest = text(NEWEST), text(OLDEST)

    def ping(request: Request) -> Response:
        return Response(
            data=b"OK",
            headers={
                "Swarm": "inactive",
                "Builder-Version": "1",
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Pragma": "no-cache",
            },
        )

    def version(request: Request) -> Response:
        return Response(json=info.version(engine, newest=newest, oldest=oldest))

    def about(request: Request) -> Response:
        return Response(json=info.info(engine))

    def events(request: Request) -> Response:
        since, until = request.query.number("since"), request.query.number("until")
        filters = Filters(request.query.json("filters"), _EVENT_FILTERS)
        subscription = engine.events.subscribe(since)

        def stream() -> Iterator[bytes]:
            try:
                yield b""
                while not request.gone() and not subscription.closed:
                    left = _BEAT if until is None else min(_BEAT, until - time.time())
                    event = subscription.get(max(0.0, left))
                    if event is None:
                        if until is not None and time.time() >= until:
                            return
                        continue
                    if until is not None and event.time > until:
                        return
                    if _wanted(event, filters):
                        yield json.dumps(event_json(event)).encode() + b"\n"
            finally:
                subscription.close()

        return Response(chunks=stream(), content_type="application/json")

    def disk_usage(request: Request) -> Response:
        """Of all that there is, or of the `type`s asked for."""
        asked = request.query.all("type") or _USES
        if unknown := sorted(set(asked) - set(_USES)):
            raise InputError(f"unknown object type: {', '.join(unknown)}")
        images, containers = engine.images.list(), engine.containers
        answer: dict[str, Any] = {}
        if "image" in asked:
            answer["LayersSize"] = engine.images.disk_usage()
            shared = shared_sizes(images)
            answer["Images"] = [
                image_summary(image, len(engine.images.users(image.id)), shared[image.id]) for image in images
            ]
        if "container" in asked:
            by_id = {image.id: image for image in images}
            networks = {record.id: record for record in engine.networks.list()}
            answer["Containers"] = [
                summary(view, by_id.get(view.record.image_id), networks, containers.size(view.id))
                for view in containers.list()
            ]
        if "volume" in asked:
            answer["Volumes"] = [
                {
                    **volume(info),
                    "UsageData": {
                        "Size": engine.volumes.store.size(info.spec.name),
                        "RefCount": len(engine.volumes.users(info.spec.name)),
                    },
                }
                for info in engine.volumes.list()
            ]
        if "build-cache" in asked:
            answer["BuildCache"] = [builds.usage(one) for one in engine.builds.usage()]
        return Response(json=answer)

    router.add("GET", "/_ping", ping)
    router.add("GET", "/version", version)
    router.add("GET", "/info", about)
    router.add("GET", "/events", events)
    router.add("GET", "/system/df", disk_usage)


def _wanted(event: Event, filters: Filters) -> bool:
    name = event.attributes.get("name", "")
    action = event.action.partition(":")[0]
    if not filters.one("type", event.kind) or not filters.one("scope", "local") or "daemon" in filters:
        return False
    if not filters.labels(event.attributes):
        return False
    if filters.values("event") and not {event.action, action} & set(filters.values("event")):
        return False
    if "image" in filters and not _of_image(event, filters.values("image")):
        return False
    for kind in ("container", "network", "volume"):
        wanted = tuple(filters.values(kind))
        if wanted and not (event.kind == kind and (name.startswith(wanted) or event.id.startswith(wanted))):
            return False
    return True


def _of_image(event: Event, wanted: Sequence[str]) -> bool:
    """Of an image or of a container made from it; with or without the tag."""
    name = event.attributes.get("name" if event.kind == "image" else "image", "")
    known = {name, name.rpartition(":")[0] or name}
    if event.kind == "image":
        known |= {event.id, event.id.rpartition(":")[0]}
    return bool(known & set(wanted))
