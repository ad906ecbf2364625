"""Blobs by digest, and images made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from hawse_agent.api.http import EMPTY, Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import InputError, NotFound

_PIECE = 1 << 18


def routes(router: Router, engine: Engine) -> None:
    store = engine.images.store

    def missing(request: Request) -> Response:
        digests = _strings(request.body.json(), "digests")
        return Response(json={"missing": list(store.missing_blobs(digests))})

    def head(request: Request) -> Response:
        digest = request.params["digest"]
        if store.missing_blobs([digest]):
            raise NotFound(f"No such blob: {digest}")
        return Response(headers={"Content-Length": str(store.blobs.path(digest).stat().st_size)})

    def offset(request: Request) -> Response:
        here = store.partials.offset(request.params["digest"])
        return Response(json={"offset": here or 0, "whole": here is None})

    def put(request: Request) -> Response:
        """The blob, or what follows after `?offset=` bytes of it."""
        start = _offset(request)
        length = request.headers.get("content-length")
        size = start + int(length) if length else None
        with store.partials.writer(request.params["digest"], start, size) as writer:
            for chunk in request.body.chunks():
                writer.write(chunk)
        return EMPTY

    def get(request: Request) -> Response:
        """The blob, or what follows after `?offset=` bytes of it."""
        file = store.blobs.open(request.params["digest"])
        file.seek(_offset(request))
        return Response(chunks=_pieces(file), content_type="application/octet-stream")

    def describe(request: Request) -> Response:
        """What an image consists of, for whoever fetches it blob by blob."""
        image = engine.images.get(request.params["name"])
        layers = [{**layer.blob.to_json(), "diff_id": layer.diff_id} for layer in image.layers]
        return Response(json={"id": image.id, "manifest": image.manifest, "layers": layers})

    def commit(request: Request) -> Response:
        body = request.body.json()
        if not isinstance(body, dict) or not isinstance(body.get("manifest"), str):
            raise InputError("manifest: expected a digest")
        image = engine.images.commit_manifest(body["manifest"], _strings(body, "references"))
        return Response(json={"id": image.id})

    router.add("POST", "/hawse/v1/blobs/missing", missing)
    router.add("HEAD", "/hawse/v1/blobs/{digest}", head)
    router.add("GET", "/hawse/v1/blobs/{digest}", get)
    router.add("PUT", "/hawse/v1/blobs/{digest}", put)
    router.add("GET", "/hawse/v1/blobs/{digest}/offset", offset)
    router.add("POST", "/hawse/v1/images/commit", commit)
    router.add("GET", "/hawse/v1/images/{name:path}/blobs", describe)


def _offset(request: Request) -> int:
    offset = int(request.query.number("offset", 0) or 0)
    if offset < 0:
        raise InputError(f"offset: {offset} is below 0")
    return offset


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _strings(body: Any, key: str) -> list[str]:
    value = body.get(key) if isinstance(body, dict) else None
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise InputError(f"{key}: expected a list of strings")
    return value
