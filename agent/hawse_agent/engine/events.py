"""The engine's events: published once, kept in a short ring, followed by any number of subscribers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping

from hawse_agent.engine.views import Event

KEPT = 256
QUEUED = 4096
"""A subscriber that falls further behind than this loses its oldest events, never blocks the engine."""


class Subscription:
    """Iterate over it; `close` ends the iteration from another thread."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._queue: deque[Event] = deque(maxlen=QUEUED)
        self._ready = threading.Condition()
        self._closed = False

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; None after `timeout` seconds or when closed."""
        with self._ready:
            self._ready.wait_for(lambda: self._queue or self._closed, timeout)
            return self._queue.popleft() if self._queue else None

    @property
    def closed(self) -> bool:
        return self._closed

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    def close(self) -> None:
        self._bus.forget(self)
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def push(self, event: Event) -> None:
        with self._ready:
            self._queue.append(event)
            self._ready.notify_all()


class EventBus:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._subscriptions: set[Subscription] = set()

    def publish(self, kind: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None:
        event = Event(kind=kind, action=action, id=id, attributes=dict(attributes or {}), time=time.time())
        with self._lock:
            self._kept.append(event)
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.push(event)

    def subscribe(self, since: float | None = None) -> Subscription:
        """From now on; with `since` also what is still kept from that time on."""
        subscription = Subscription(self)
        with self._lock:
            if since is not None:
                for event in self._kept:
                    if event.time >= since:
                        subscription.push(event)
            self._subscriptions.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.close()
