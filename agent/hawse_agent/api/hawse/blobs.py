"""Blobs by digest, and images made of them."""

from __future__ import annotations

from typing import Any

from hawse_agent.api.http import EMPTY, Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import InputError, NotFound


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

    def put(request: Request) -> Response:
        length = request.headers.get("content-length")
        with store.blob_writer(request.params["digest"], int(length) if length else None) as writer:
            for chunk in request.body.chunks():
                writer.write(chunk)
        return EMPTY

    def commit(request: Request) -> Response:
        body = request.body.json()
        if not isinstance(body, dict) or not isinstance(body.get("manifest"), str):
            raise InputError("manifest: expected a digest")
        image = engine.images.commit_manifest(body["manifest"], _strings(body, "references"))
        return Response(json={"id": image.id})

    router.add("POST", "/hawse/v1/blobs/missing", missing)
    router.add("HEAD", "/hawse/v1/blobs/{digest}", head)
    router.add("PUT", "/hawse/v1/blobs/{digest}", put)
    router.add("POST", "/hawse/v1/images/commit", commit)


def _strings(body: Any, key: str) -> list[str]:
    value = body.get(key) if isinstance(body, dict) else None
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise InputError(f"{key}: expected a list of strings")
    return value
