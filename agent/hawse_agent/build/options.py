"""What a client wants of a build, beside its context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hawse_agent.distribution.credentials import Keyring
from hawse_agent.spec.container import Resources, Ulimit


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    tags: tuple[str, ...] = ()
    dockerfile: str = ""
    """In the context; empty is `Dockerfile`."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    """Images whose history and layers count as cached, too; they are not pulled."""
    pull: bool = False
    """Ask the registry for base images though they are here."""
    platform: str = ""
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    resources: Resources = Resources()
    shm_size: int = 64 * 1024 * 1024
    ulimits: tuple[Ulimit, ...] = ()
    keyring: Keyring = Keyring(by_registry={})
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """By id; never in a layer, in a log, or on a disk."""
