"""Logs, attach and resize of containers."""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import struct
from collections.abc import Iterator
from datetime import datetime

from hawse_agent.api.http import MULTIPLEXED_STREAM, RAW_STREAM, Hijack, Request, Response
from hawse_agent.api.router import Router
from hawse_agent.engine.engine import Engine
from hawse_agent.errors import Conflict, InputError, NotSupported
from hawse_agent.spec import detach
from hawse_agent.supervise.client import AttachOptions
from hawse_agent.supervise.logs import LogRecord

_NUMBER = {"stdout": 1, "stderr": 2}
_BLOCK = 1 << 16


def routes(router: Router, engine: Engine) -> None:
    def logs(request: Request) -> Response:
        query = request.query
        view = engine.containers.get(request.params["id"])
        tty = view.record.spec.tty
        stdout, stderr = query.flag("stdout"), query.flag("stderr")
        if not stdout and not stderr:
            raise InputError("Bad parameters: you must choose at least one stream")
        if view.record.spec.log.driver == "none":
            raise NotSupported("configured logging driver does not support reading")
        follow = query.flag("follow")
        records = engine.containers.logs(
            view.id,
            follow=follow,
            since=_moment(query.text("since"), "since"),
            until=_moment(query.text("until"), "until"),
            tail=_tail(query.text("tail", "all")),
            stdout=stdout,
            stderr=stderr,
            stop=request.gone,
        )
        multiplexed = not tty and (request.version is None or request.version >= (1, 42))
        return Response(
            chunks=_encoded(
                records,
                tty=tty,
                stamps=query.flag("timestamps"),
                details=query.flag("details"),
                at_once=follow,
            ),
            content_type=MULTIPLEXED_STREAM if multiplexed else RAW_STREAM,
        )

    def attach(request: Request) -> Hijack:
        view = engine.containers.get(request.params["id"])
        query, tty = request.query, view.record.spec.tty
        options = AttachOptions(
            stdin=query.flag("stdin") and view.record.spec.stdin_open,
            stdout=query.flag("stdout"),
            stderr=query.flag("stderr"),
            stream=query.flag("stream"),
            logs=query.flag("logs"),
            detach_keys=query.text("detachKeys"),
        )
        detach.parse(options.detach_keys)
        if view.state.status == "paused":
            raise Conflict(f"container {view.id} is paused, unpause the container before attach")
        if view.state.status == "restarting":
            raise Conflict(f"container {view.id} is restarting, wait until the container is running")

        def run(client: socket.socket, head: bytes) -> bool:
            if engine.containers.attach(view.id, client, options, head):
                return True
            if options.logs:
                for piece in _encoded(whole_log(view.id, options), tty=tty):
                    client.sendall(piece)
            return False

        return Hijack(run=run, tty=tty, after=engine.containers.announce_attach(view.id))

    def whole_log(container_id: str, options: AttachOptions) -> Iterator[LogRecord]:
        return engine.containers.logs(container_id, stdout=options.stdout, stderr=options.stderr)

    def resize(request: Request) -> Response:
        height, width = request.query.number("h"), request.query.number("w")
        if not height or not width:
            raise InputError("h and w: expected numbers")
        engine.containers.resize(request.params["id"], int(height), int(width))
        return Response()

    def attach_by_websocket(request: Request) -> Response:
        raise NotSupported("attach by WebSocket (/attach/ws) is not supported by hawse-agent")

    router.add("GET", "/containers/{id}/logs", logs)
    router.add("POST", "/containers/{id}/attach", attach)
    router.add("GET", "/containers/{id}/attach/ws", attach_by_websocket)
    router.add("POST", "/containers/{id}/resize", resize)


def _encoded(
    records: Iterator[LogRecord],
    *,
    tty: bool,
    stamps: bool = False,
    details: bool = False,
    at_once: bool = False,
) -> Iterator[bytes]:
    """Frames, many to a piece unless each shall be seen at once. `details` are a log driver's labels: we have
    none, and then Docker writes the space alone."""
    block = bytearray()
    for record in records:
        data = b" " + record.data if details and record.begins else record.data
        if stamps and record.begins:  # Docker repeats it in the middle of a line that came in parts
            data = f"{record.time_text} ".encode() + data
        if not tty:
            block += struct.pack(">BxxxL", _NUMBER[record.stream], len(data))
        block += data
        if at_once or len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _tail(text: str) -> int | None:
    if text in ("all", ""):
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _moment(text: str, name: str) -> float | None:
    """Epoch seconds with a fraction, or RFC 3339; 0 and nothing are no limit."""
    if text in ("", "0"):
        return None
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise InputError(f"{name}: {json.dumps(text)} is not a time") from None
