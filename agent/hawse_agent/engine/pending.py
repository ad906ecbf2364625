"""Clients that have attached to containers that do not run yet, as `docker run` does before the start.

They are kept until somebody takes them, or until they hang up: a thread, begun with the first of them, waits
for that in the kernel. A client that only closes its own side (no more input) is still listening.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from hawse_agent.supervise.client import AttachOptions


@dataclass(frozen=True, kw_only=True)
class PendingAttach:
    """A socket of its own, owned."""

    client: socket.socket
    options: AttachOptions
    head: bytes


class Pending:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, list[PendingAttach]] = {}
        self._epoll: select.epoll | None = None

    def add(self, container_id: str, attach: PendingAttach) -> None:
        with self._lock:
            if self._epoll is None:
                self._epoll = select.epoll()
                threading.Thread(target=self._watch, args=(self._epoll,), name="pending", daemon=True).start()
            self._kept.setdefault(container_id, []).append(attach)
            self._epoll.register(attach.client.fileno(), 0)  # a hang-up is told unasked

    def take(self, container_id: str) -> list[PendingAttach]:
        """They are the caller's."""
        with self._lock:
            taken = self._kept.pop(container_id, [])
            for attach in taken:
                assert self._epoll is not None
                self._epoll.unregister(attach.client.fileno())
            return taken

    def _watch(self, epoll: select.epoll) -> None:
        while True:
            epoll.poll()
            with self._lock:
                for container_id, attaches in list(self._kept.items()):
                    left = [attach for attach in attaches if _hung_up(attach.client)]
                    kept = [attach for attach in attaches if attach not in left]
                    for attach in left:
                        epoll.unregister(attach.client.fileno())
                    close_all(left)
                    if kept:
                        self._kept[container_id] = kept
                    else:
                        del self._kept[container_id]


def close_all(attaches: Iterable[PendingAttach]) -> None:
    for attach in attaches:
        attach.client.close()


def _hung_up(client: socket.socket) -> bool:
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(0))
