"""`/images`: list, pull, import, load, save, tag, remove."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from hawse_agent.api.docker import progress
from hawse_agent.api.docker.filters import Filters
from hawse_agent.api.docker.registries import credentials_of
from hawse_agent.api.docker.views import images as views
from hawse_agent.api.http import Request, Response
from hawse_agent.api.router import Router
from hawse_agent.distribution import manifest, reference
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.images.store import Image


def routes(router: Router, engine: Engine) -> None:
    api = Images(engine)
    router.add("GET", "/images/json", api.list)
    router.add("POST", "/images/create", api.create)
    router.add("POST", "/images/load", api.load)
    router.add("GET", "/images/get", api.save)
    router.add("POST", "/images/prune", api.prune)
    router.add("POST", "/images/{name:path}/tag", api.tag)
    router.add("GET", "/images/{name:path}/json", api.inspect)
    router.add("GET", "/images/{name:path}/history", api.history)
    router.add("GET", "/images/{name:path}/get", api.save)
    router.add("DELETE", "/images/{name:path}", api.remove)


class Images:
    def __init__(self, engine: Engine) -> None:
        self._images, self._events = engine.images, engine.events

    def list(self, request: Request) -> Response:
        filters = Filters(
            request.query.json("filters"),
            ("reference", "dangling", "label", "before", "since", "until"),
        )
        every = self._images.list()
        parents = frozenset() if request.query.flag("all") else self._images.store.parents()
        shared = views.shared_sizes(every) if request.query.flag("shared-size") else {}
        before = [self._images.get(name).created for name in filters.values("before")]
        since = [self._images.get(name).created for name in filters.values("since")]
        shown = (
            _named(image, filters.values("reference"))
            for image in every
            if all(image.created < time for time in before) and all(image.created > time for time in since)
        )
        return Response(
            json=[
                views.image_summary(image, len(self._images.users(image.id)), shared.get(image.id, -1))
                for image in shown
                if self._wanted(image, filters) and (image.repo_tags or image.id not in parents)
            ]
        )

    def _wanted(self, image: Image, filters: Filters) -> bool:
        if "reference" in filters and not image.repo_tags and not image.repo_digests:
            return False
        if "dangling" in filters and filters.flag("dangling", False) != (not image.repo_tags):
            return False
        return filters.prunes(image.config.labels, views.epoch(image.created))

    def inspect(self, request: Request) -> Response:
        return Response(json=views.image_inspect(self._images.get(request.params["name"])))

    def history(self, request: Request) -> Response:
        image = self._images.get(request.params["name"])
        return Response(json=views.image_history(image, self._images.ancestors(image)))

    def create(self, request: Request) -> Response:
        """Pull (`fromImage`) or import of a root tarball (`fromSrc=-`); progress as JSON lines."""
        query = request.query
        if query.text("fromSrc"):
            return self._import(request)
        name, tag = query.text("fromImage"), query.text("tag")
        if not name:
            raise InputError("fromImage: expected an image's name")
        ref = f"{name}{'@' if ':' in tag else ':'}{tag}" if tag else name
        reference.parse(ref)
        platform = query.text("platform")
        who = credentials_of(request)
        pull = self._images.pull_all if reference.is_name_only(ref) else self._images.pull
        return progress.told(
            request, lambda tell, cancel: pull(ref, tell, who, platform=platform, cancel=cancel)
        )

    def _import(self, request: Request) -> Response:
        query = request.query
        if query.text("fromSrc") != "-":
            raise NotSupported("importing from a URL is not supported by hawse-agent: send the tarball")
        check_platform(query.text("platform"))
        repo, tag = query.text("repo"), query.text("tag")
        ref = f"{repo}:{tag}" if tag else repo
        image = self._images.import_tarball(
            request.body.file(), ref, query.all("changes"), query.text("message")
        )
        return Response(json={"status": image.id})

    def load(self, request: Request) -> Response:
        check_platform(request.query.text("platform"))
        lines = self._images.load(request.body.file())
        text = "".join(json.dumps({"stream": f"{line.rstrip()}\n"}) + "\n" for line in lines)
        return Response(data=text.encode(), content_type="application/json")

    def save(self, request: Request) -> Response:
        check_platform(request.query.text("platform"))
        names = request.query.all("names") or [request.params.get("name", "")]
        for name in names:
            self._images.get(name)
        return Response(chunks=self._images.save(names), content_type="application/x-tar")

    def tag(self, request: Request) -> Response:
        repo, tag = request.query.text("repo"), request.query.text("tag")
        self._images.tag(request.params["name"], f"{repo}:{tag}" if tag else repo)
        return Response(status=201)

    def remove(self, request: Request) -> Response:
        removed = self._images.remove(
            request.params["name"],
            force=request.query.flag("force"),
            parents=not request.query.flag("noprune"),
        )
        return Response(json=list(removed))

    def prune(self, request: Request) -> Response:
        filters = Filters(request.query.json("filters"), ("dangling", "label", "label!", "until"))
        pruned = self._images.prune(
            every=not filters.flag("dangling", True),
            wanted=lambda image: filters.prunes(image.config.labels, views.epoch(image.created)),
        )
        self._events.publish("image", "prune", "", {"reclaimed": str(pruned.reclaimed)})
        return Response(
            json={"ImagesDeleted": list(pruned.removed) or None, "SpaceReclaimed": pruned.reclaimed}
        )


def check_platform(text: str) -> None:
    """Refuses to do something for a platform that is not this machine's."""
    if not text:
        return
    wanted, own = manifest.parse_platform(text), manifest.host_platform()
    if (wanted.os, wanted.architecture, wanted.variant or own.variant) != (
        own.os,
        own.architecture,
        own.variant,
    ):
        raise NotSupported(f"platform {text} is not supported by hawse-agent: this machine is {own}")


def _named(image: Image, patterns: Sequence[str]) -> Image:
    """With those of its names that one of the patterns matches: `team/*`, `nginx:1.*`, `nginx`."""
    if not patterns:
        return image

    def wanted(name: str, short: str) -> bool:
        return any(_matches(text, pattern) for text in (name, short) for pattern in patterns)

    return replace(
        image,
        repo_tags=tuple(tag for tag in image.repo_tags if wanted(tag, tag.rpartition(":")[0])),
        repo_digests=tuple(name for name in image.repo_digests if wanted(name, name.partition("@")[0])),
    )


def _matches(name: str, pattern: str) -> bool:
    """Segment by segment: no wildcard stands for a slash."""
    ours, wanted = name.split("/"), pattern.split("/")
    return len(ours) == len(wanted) and all(map(fnmatchcase, ours, wanted))
