"""Containers' supervisors, by their sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hawse_agent.errors import Conflict
from hawse_agent.paths import Paths
from hawse_agent.supervise import client as shim_client


class Shims:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def reach(self, container_id: str) -> shim_client.ShimClient:
        """Whatever the container's state; raises FileNotFoundError or ConnectionError when used in vain."""
        return shim_client.ShimClient(self._paths.shim(container_id) / "shim.sock")

    @contextlib.contextmanager
    def asking(self, container_id: str) -> Iterator[shim_client.ShimClient]:
        """The shim of a container that seems to run; raises Conflict when it has ended in the meantime."""
        try:
            yield self.reach(container_id)
        except (ConnectionError, FileNotFoundError) as error:
            raise Conflict(f"container {container_id} is not running") from error
