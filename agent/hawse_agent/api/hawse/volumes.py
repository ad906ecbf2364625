"""Volumes: what there is, backup and restore as streams."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from hawse_agent.api.http import Request, Response, begun
from hawse_agent.api.router import Router
from hawse_agent.engine.backups import Compression
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import HawseError, InputError
from hawse_agent.spec import codec

BUFFERED = 32
"""Pieces of a backup that wait for a slow connection before the writer waits, too."""


def routes(router: Router, engine: Engine) -> None:
    def listing(request: Request) -> Response:
        users = engine.volumes.users
        return Response(
            json=[
                {
                    "name": info.spec.name,
                    "driver": info.spec.driver,
                    "labels": dict(info.spec.labels),
                    "created": info.created,
                    "path": str(info.path),
                    "size": engine.volumes.store.size(info.spec.name)
                    if request.query.flag("sizes")
                    else None,
                    "users": [record.spec.name for record in users(info.spec.name)],
                }
                for info in engine.volumes.list()
            ]
        )

    def backup(request: Request) -> Response:
        name = request.params["name"]
        compression = _compression(request.query.text("compression", "zstd"))
        backup_id = engine.backups.new_id(name)
        pieces = _pulled(lambda out: engine.backups.backup(name, compression, out, backup_id))
        return Response(
            chunks=begun(pieces), content_type="application/x-tar", headers={"X-Hawse-Backup": backup_id}
        )

    def manifest(request: Request) -> Response:
        return Response(json=codec.to_json(engine.backups.manifest(request.params["backup"])))

    def begin_restore(request: Request) -> Response:
        token = engine.backups.begin_restore(request.params["name"], request.body.json())
        return Response(json={"token": token})

    def restore(request: Request) -> Response:
        return Response(json=engine.backups.restore(request.params["token"], request.body.chunks()))

    router.add("GET", "/hawse/v1/volumes", listing)
    router.add("POST", "/hawse/v1/volumes/{name}/backup", backup)
    router.add("GET", "/hawse/v1/volumes/{name}/backup/{backup}/manifest", manifest)
    router.add("POST", "/hawse/v1/volumes/{name}/restore", begin_restore)
    router.add("PUT", "/hawse/v1/volumes/{name}/restore/{token}", restore)


def _compression(text: str) -> Compression:
    for known in get_args(Compression):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"compression: {text!r} is none of {', '.join(get_args(Compression))}")


class _ReaderGone(HawseError):
    """Nobody reads the backup any more."""


def _pulled(write: Callable[[Callable[[bytes], None]], object]) -> Iterator[bytes]:
    """What `write` puts out, as an iterator; a failure of it is raised there, which cuts the answer short."""
    pieces: queue.Queue[tuple[Literal["data", "end"], bytes]] = queue.Queue(BUFFERED)
    gone = threading.Event()
    failures: list[BaseException] = []

    def put(kind: Literal["data", "end"], data: bytes) -> None:
        while not gone.is_set():
            try:
                pieces.put((kind, data), timeout=1.0)
                return
            except queue.Full:
                continue
        raise _ReaderGone("the reader of the backup has gone")

    def work() -> None:
        with contextlib.suppress(_ReaderGone):
            try:
                write(lambda data: put("data", data))
            except _ReaderGone:
                raise
            except BaseException as error:
                failures.append(error)
            put("end", b"")

    worker = threading.Thread(target=work, name="backup", daemon=True)
    worker.start()
    try:
        while True:
            kind, data = pieces.get()
            if kind == "end":
                break
            yield data
        if failures:
            raise failures[0]
    finally:
        gone.set()
        worker.join()
