"""`/containers/{id}/archive`, `/changes` and `/export`: files of a container as tar streams."""

from __future__ import annotations

import base64
import json
import os
import stat

from hawse_agent.api.docker.views.times import stamp
from hawse_agent.api.http import Request, Response, begun
from hawse_agent.api.router import Router
from hawse_agent.engine.changes import Kind
from hawse_agent.engine.copies import PathStat
from hawse_agent.engine.engine import Engine

_KINDS: dict[Kind, int] = {"modified": 0, "added": 1, "deleted": 2}

# Go's os.FileMode, which Docker's clients expect.
_DIRECTORY, _SYMLINK, _DEVICE, _FIFO, _SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_SETUID, _SETGID, _CHARACTER, _STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20
_TYPES = {
    stat.S_IFDIR: _DIRECTORY,
    stat.S_IFLNK: _SYMLINK,
    stat.S_IFBLK: _DEVICE,
    stat.S_IFCHR: _DEVICE | _CHARACTER,
    stat.S_IFIFO: _FIFO,
    stat.S_IFSOCK: _SOCKET,
    stat.S_IFREG: 0,
}


def routes(router: Router, engine: Engine) -> None:
    copies = engine.copies

    def look(request: Request) -> Response:
        found = copies.stat(request.params["id"], request.query.path("path"))
        return Response(headers=_path_stat(found))

    def read(request: Request) -> Response:
        found, pieces = copies.read(request.params["id"], request.query.path("path"))
        return Response(chunks=begun(pieces), content_type="application/x-tar", headers=_path_stat(found))

    def write(request: Request) -> Response:
        query = request.query
        copies.write(
            request.params["id"],
            query.path("path"),
            request.body.file(),
            keep_kinds=query.flag("noOverwriteDirNonDir"),
            as_user=query.flag("copyUIDGID"),
        )
        return Response()

    def changes(request: Request) -> Response:
        found = copies.changes(request.params["id"])
        return Response(json=[{"Path": _shown(one.path), "Kind": _KINDS[one.kind]} for one in found])

    def export(request: Request) -> Response:
        pieces = copies.export(request.params["id"])
        return Response(chunks=begun(pieces), content_type="application/x-tar")

    one = "/containers/{id}"
    router.add("HEAD", f"{one}/archive", look)
    router.add("GET", f"{one}/archive", read)
    router.add("PUT", f"{one}/archive", write)
    router.add("GET", f"{one}/changes", changes)
    router.add("GET", f"{one}/export", export)


def _path_stat(found: PathStat) -> dict[str, str]:
    value = {
        "name": _shown(found.name),
        "size": found.size,
        "mode": _go_mode(found.mode),
        "mtime": stamp(found.mtime_ns / 1e9),
        "linkTarget": _shown(found.link_target),
    }
    text = base64.b64encode(json.dumps(value).encode()).decode()
    return {"X-Docker-Container-Path-Stat": text}


def _go_mode(mode: int) -> int:
    special = ((stat.S_ISUID, _SETUID), (stat.S_ISGID, _SETGID), (stat.S_ISVTX, _STICKY))
    bits = sum(go for ours, go in special if mode & ours)
    return (mode & 0o777) | bits | _TYPES[stat.S_IFMT(mode)]


def _shown(path: str) -> str:
    """JSON is UTF-8: bytes of a name that are not are replaced, as Go does."""
    return os.fsencode(path).decode(errors="replace")
