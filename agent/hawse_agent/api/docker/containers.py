"""`/containers`: list, create, inspect, start, stop and what else happens to one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from hawse_agent.api.docker import processes, stats
from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.images import check_platform
from hawse_agent.api.docker.lowering.container import container_spec
from hawse_agent.api.docker.lowering.limits import resources
from hawse_agent.api.docker.lowering.supervision import restart_policy
from hawse_agent.api.docker.selection import Selection
from hawse_agent.api.docker.views import containers as views
from hawse_agent.api.docker.views.configuration import labels
from hawse_agent.api.http import EMPTY, Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.engine.views import ContainerView
from hawse_agent.errors import Conflict, InputError, NotFound, NotSupported
from hawse_agent.images.store import Image
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.records import NetworkRecord

_BEAT = 10.0
"""Seconds between two looks at whether a waiting client is still there."""
_NOT_MODIFIED = Response(status=304)


def routes(router: Router, engine: Engine) -> None:
    api = Containers(engine)
    one = "/containers/{id}"
    router.add("GET", "/containers/json", api.list)
    router.add("POST", "/containers/create", api.create)
    router.add("POST", "/containers/prune", api.prune)
    router.add("GET", f"{one}/json", api.inspect)
    router.add("POST", f"{one}/start", api.start)
    router.add("POST", f"{one}/stop", api.stop)
    router.add("POST", f"{one}/restart", api.restart)
    router.add("POST", f"{one}/kill", api.kill)
    router.add("POST", f"{one}/pause", api.pause)
    router.add("POST", f"{one}/unpause", api.unpause)
    router.add("POST", f"{one}/rename", api.rename)
    router.add("POST", f"{one}/update", api.update)
    router.add("POST", f"{one}/wait", api.wait)
    router.add("GET", f"{one}/top", api.top)
    router.add("GET", f"{one}/stats", api.stats)
    router.add("DELETE", one, api.remove)


class Containers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    # looking

    def list(self, request: Request) -> Response:
        networks, sizes = self._networks(), request.query.flag("size")
        selection = Selection(
            request.query.json("filters"),
            created=lambda name: self._containers.record(name).created,
            image_id=self._image_id,
            networks=networks,
        )
        every = request.query.flag("all") or selection.stopped
        limit = int(request.query.number("limit", 0) or 0)
        found = [view for view in self._containers.list() if selection.wants(view, self._image(view))]
        if not every and limit <= 0:
            found = [view for view in found if view.state.running]
        if limit > 0:
            found = found[:limit]
        return Response(
            json=[
                views.summary(view, self._image(view), networks, self._size(view) if sizes else None)
                for view in found
            ]
        )

    def _image_id(self, name: str) -> str | None:
        try:
            return self._engine.images.get(name).id
        except NotFound:
            return None

    def inspect(self, request: Request) -> Response:
        view = self._containers.get(request.params["id"])
        return Response(
            json=views.inspect(
                view,
                self._image(view),
                self._networks(),
                self._engine.paths,
                self._engine.executions.running(view.id),
                self._size(view) if request.query.flag("size") else None,
            )
        )

    def top(self, request: Request) -> Response:
        pids = self._containers.top(request.params["id"])
        return Response(json=processes.table(pids, request.query.text("ps_args")))

    def stats(self, request: Request) -> Response:
        view = self._containers.get(request.params["id"])
        if request.query.flag("stream", True):
            return Response(chunks=self._stats_stream(view, request), content_type="application/json")
        before = self._stats(view, None)
        if request.query.flag("one-shot") or not view.state.running:
            return Response(json=before)
        self._containers.waiter(view.id, "removed").result(1.0)  # a share of the CPU is of some time
        return Response(json=self._stats(self._containers.get(view.id), before))

    def _stats_stream(self, view: ContainerView, request: Request) -> Iterator[bytes]:
        waiter = self._containers.waiter(view.id, "removed")
        before: dict[str, Any] | None = None
        while not request.gone():
            before = self._stats(self._containers.get(view.id), before)
            yield json.dumps(before).encode() + b"\n"
            if waiter.result(1.0) is not None:
                return

    def _stats(self, view: ContainerView, before: dict[str, Any] | None) -> dict[str, Any]:
        now = None
        if view.state.running:
            with contextlib.suppress(NotFound, FileNotFoundError):  # between two runs, or it has just ended
                now = self._containers.stats(view.id)
        return stats.as_json(view, now, before)

    # making and removing

    def create(self, request: Request) -> Response:
        check_platform(request.query.text("platform"))
        spec = container_spec(request.body.json(), request.query.text("name"))
        try:
            view = self._containers.create(spec)
        except NotFound as error:
            if not error.message.startswith("No such container"):
                raise
            # Of a link or volumes-from. Clients take "not found" for the image, and would fetch it.
            raise InputError(error.message, hint=error.hint) from error
        return Response(status=201, json={"Id": view.id, "Warnings": [*view.warnings, *_warnings(spec)]})

    def remove(self, request: Request) -> Response:
        if request.query.flag("link"):
            raise NotSupported("removing links is not supported by hawse-agent")
        self._containers.remove(
            request.params["id"], force=request.query.flag("force"), volumes=request.query.flag("v")
        )
        return EMPTY

    def prune(self, request: Request) -> Response:
        filters = Filters(request.query.json("filters"), ("label", "label!", "until"))
        removed, reclaimed = [], 0
        for view in self._containers.list():
            own = labels(view.record.spec, self._image(view))
            stopped = view.state.status in ("created", "exited", "dead")
            if stopped and filters.prunes(own, view.record.created):
                size = self._size(view)
                try:
                    self._containers.remove(view.id)
                except (Conflict, NotFound):  # started or removed in the meantime
                    continue
                removed.append(view.id)
                reclaimed += size
        self._engine.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return Response(json={"ContainersDeleted": removed or None, "SpaceReclaimed": reclaimed})

    # changing

    def start(self, request: Request) -> Response:
        if request.body.json():
            raise InputError("starting container with non-empty request body was removed in API v1.24")
        return EMPTY if self._containers.start(request.params["id"]) else _NOT_MODIFIED

    def stop(self, request: Request) -> Response:
        done = self._containers.stop(
            request.params["id"], signal=request.query.text("signal"), timeout=request.query.number("t")
        )
        return EMPTY if done else _NOT_MODIFIED

    def restart(self, request: Request) -> Response:
        self._containers.restart(
            request.params["id"], signal=request.query.text("signal"), timeout=request.query.number("t")
        )
        return EMPTY

    def kill(self, request: Request) -> Response:
        name = request.params["id"]
        try:
            self._containers.kill(name, request.query.text("signal") or "KILL")
        except (Conflict, NotFound) as error:
            raise error.at(f"cannot kill container: {name}") from None
        return EMPTY

    def pause(self, request: Request) -> Response:
        self._containers.pause(request.params["id"])
        return EMPTY

    def unpause(self, request: Request) -> Response:
        self._containers.unpause(request.params["id"])
        return EMPTY

    def rename(self, request: Request) -> Response:
        name = request.query.text("name")
        if not name:
            raise InputError("Neither old nor new names may be empty")
        self._containers.rename(request.params["id"], name)
        return EMPTY

    def update(self, request: Request) -> Response:
        """Only what is given changes."""
        spec = self._containers.record(request.params["id"]).spec
        fields = Fields(request.body.json(), "")
        policy = fields.inner("RestartPolicy")
        restart = restart_policy(policy) if policy.given("Name") else None
        policy.rest()
        limits = resources(fields, spec.resources)
        fields.rest()
        if spec.auto_remove and restart is not None and restart.mode != "no":
            raise InputError(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        self._containers.update(
            request.params["id"], resources=limits if limits != spec.resources else None, restart=restart
        )
        return Response(json={"Warnings": None})

    def wait(self, request: Request) -> Response:
        """Headers go out at once: `docker run` starts the container only when it has them."""
        condition = request.query.text("condition") or "not-running"
        waiter = self._containers.waiter(request.params["id"], _condition(condition))

        def answer() -> Iterator[bytes]:
            while (code := waiter.result(_BEAT)) is None:
                if request.gone():
                    return
            yield json.dumps({"StatusCode": code}).encode() + b"\n"

        return Response(chunks=answer(), content_type="application/json")

    # inside

    def _image(self, view: ContainerView) -> Image | None:
        try:
            return self._engine.images.get(view.record.image_id)
        except NotFound:  # removed by force: the container has its layers still
            return None

    def _size(self, view: ContainerView) -> int:
        return self._containers.size(view.id)

    def _networks(self) -> dict[str, NetworkRecord]:
        return {record.id: record for record in self._engine.networks.list()}


def _warnings(spec: ContainerSpec) -> list[str]:
    """What is asked for in vain."""
    if spec.network_mode == "host" and (spec.ports or spec.publish_all):
        return ["Published ports are discarded when using host network mode"]
    return []


def _condition(text: str) -> Literal["not-running", "next-exit", "removed"]:
    for known in ("not-running", "next-exit", "removed"):
        if text == known:
            return known
    raise InputError(f'invalid condition: "{text}"')
