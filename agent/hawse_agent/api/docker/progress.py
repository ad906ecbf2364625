"""How far something is, as JSON lines while it goes on: pull, push."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hawse_agent.api.http import JSON, Request, Response, begun
from hawse_agent.distribution.cancel import Cancel
from hawse_agent.errors import HawseError, HostRefused, InternalError

Message = dict[str, Any]
Tell = Callable[[Message], None]

_BEAT = 2.0
"""Seconds of silence after which it is looked whether the client is still there."""


def told(request: Request, work: Callable[[Tell, Cancel], object]) -> Response:
    """What `work` tells. A failure before the first word is the answer's status, a later one its last line,
    as Docker has it. When the client hangs up the work is cancelled."""
    return Response(chunks=begun(_lines(request, work)), content_type=JSON)


def _lines(request: Request, work: Callable[[Tell, Cancel], object]) -> Iterator[bytes]:
    messages: queue.SimpleQueue[Message | HawseError | None] = queue.SimpleQueue()
    cancel = Cancel()

    def tell(message: Message) -> None:
        if cancel.said:
            raise HostRefused("the client has hung up")
        messages.put(message)

    def run() -> None:
        try:
            work(tell, cancel)
        except HawseError as error:
            messages.put(error)
        except BaseException as error:
            messages.put(InternalError(f"{type(error).__name__}: {error}"))
            raise  # the thread's own report of it goes to the daemon's log
        finally:
            messages.put(None)

    threading.Thread(target=run, name="progress", daemon=True).start()
    heard = False
    try:
        while True:
            try:
                message = messages.get(timeout=_BEAT)
            except queue.Empty:
                if request.gone():
                    return
                continue
            if message is None:
                return
            if isinstance(message, HawseError):
                if not heard:
                    raise message
                message = {"errorDetail": {"message": message.message}, "error": message.message}
            heard = True
            yield json.dumps(message).encode() + b"\n"
    finally:
        cancel()
