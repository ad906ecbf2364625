"""Clients of a container's streams: handed over to its supervisor, or kept until there is one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable

from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers.shims import Shims
from hawse_agent.engine.live import STOPPED
from hawse_agent.engine.pending import Pending, PendingAttach, close_all
from hawse_agent.engine.register import Register
from hawse_agent.supervise import client as shim_client

ATTACH_TIMEOUT = 5.0
"""Seconds that a start waits for a client that is about to attach."""


class Attaching:
    def __init__(self, *, register: Register, shims: Shims, announce: Announcer) -> None:
        self._register, self._shims, self._announce = register, shims, announce
        self._guard = threading.Lock()
        self._pending = Pending()
        self._arrived = threading.Condition()
        self._announced: Counter[str] = Counter()

    def take(self, container_id: str) -> list[PendingAttach]:
        """Those who wait for its start; the caller's from now on."""
        return self._pending.take(container_id)

    def announce_attach(self, container_id: str) -> Callable[[], None]:
        """A client is about to attach; the returned function says that it has, or never will.

        It starts the container as soon as it reads that it is attached, which can be before it is: a start
        waits for those that are announced, and so each sees every byte.
        """
        with self._arrived:
            self._announced[container_id] += 1

        def over() -> None:
            with self._arrived:
                self._announced[container_id] -= 1
                if not self._announced[container_id]:
                    del self._announced[container_id]
                self._arrived.notify_all()

        return over

    def attach(
        self, reference: str, client: socket.socket, options: shim_client.AttachOptions, head: bytes = b""
    ) -> bool:
        """Hand the client's socket over to the shim; before the start it is kept until then.

        False when nothing more will come: it has ended, or ends just now, and there is only its log.
        """
        record, live = self._register.find(reference)
        with self._guard:
            if live.state.status in STOPPED:
                if not options.stream:
                    return False
                kept = PendingAttach(client=client.dup(), options=options, head=head)
                self._pending.add(record.id, kept)
                self._announce.container("attach", record)
                return True
        try:
            self._shims.reach(record.id).attach(client, options, head)
        except (ConnectionError, FileNotFoundError):
            return False
        self._announce.container("attach", record)
        return True

    def resize(self, reference: str, height: int, width: int) -> None:
        record = self._register.record(reference)
        with self._shims.asking(record.id) as shim:
            shim.resize(height, width)
        self._announce.container("resize", record, height=str(height), width=str(width))

    def hand_over(
        self, container_id: str, shim: shim_client.ShimClient, pending: list[PendingAttach]
    ) -> None:
        with self._arrived:
            self._arrived.wait_for(lambda: container_id not in self._announced, ATTACH_TIMEOUT)
        pending += self._pending.take(container_id)
        for attach in pending:
            shim.attach(attach.client, attach.options, attach.head)
        close_all(pending)

    def attach_late(self, container_id: str) -> None:
        """Clients that came while the start was under way, after the others had been handed over."""
        with self._guard:  # whoever looks from now on sees that it runs
            late = self._pending.take(container_id)
        for attach in late:
            with contextlib.suppress(ConnectionError, FileNotFoundError):  # it has ended already
                self._shims.reach(container_id).attach(attach.client, attach.options, attach.head)
        close_all(late)
