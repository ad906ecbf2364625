"""An image that a stack builds, as Compose's `build:` says it, ready to be asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Build:
    """`reference` is what the stack's containers call the image."""

    reference: str
    context: str
    """A directory of this machine."""
    dockerfile: str = ""
    """Path of the Dockerfile; "" is the context's own."""
    text: str | None = None
    """The Dockerfile itself, where it stands in the stack."""
    arguments: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    network: str = ""
    tags: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[Mapping[str, Any], ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def query(self, dockerfile: str) -> dict[str, Any]:
        """Of POST /hawse/v1/build; `dockerfile` is its name in the context."""
        said: dict[str, Any] = {
            "target": self.target,
            "networkmode": self.network,
            "nocache": self.no_cache,
            "pull": self.pull,
            "shmsize": self.shm_size,
        }
        return {
            "dockerfile": dockerfile,
            "t": [self.reference, *self.tags],
            "buildargs": json.dumps(dict(self.arguments)),
            "labels": json.dumps(dict(self.labels)),
            "extrahosts": list(self.extra_hosts),
            "ulimits": json.dumps(list(self.ulimits)),
            **{key: value for key, value in said.items() if value},
        }
