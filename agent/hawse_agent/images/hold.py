"""What is being made is not collected: a hold names blobs and layers that no image names yet.

Whoever adds to the store opens one, adds to it before looking whether something is there, and closes it when
a record names what it needed. What is left then that nobody names goes, if it came with the hold.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from hawse_agent.images.image import Layer


class Hold:
    """Made by `ImageStore.hold`."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self.blobs: set[str] = set()
        self.fresh: set[str] = set()
        """Those that came with it."""
        self.layers: dict[tuple[str, str], Layer] = {}
        """By diff_id and digest: each blob was seen to hold that very layer."""

    def add_blobs(self, digests: Iterable[str], *, fresh: bool = False) -> None:
        """`fresh`: they go with the hold, unless somebody names them by then."""
        with self._lock:
            self.blobs |= (added := set(digests))
            if fresh:
                self.fresh |= added

    def add_layer(self, layer: Layer) -> None:
        with self._lock:
            self.layers[layer.diff_id, layer.digest] = layer
            self.blobs.add(layer.digest)
