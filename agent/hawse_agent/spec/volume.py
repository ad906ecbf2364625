"""Volumes, and mounts of a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MountKind = Literal["volume", "bind", "tmpfs"]
Propagation = Literal["private", "rprivate", "shared", "rshared", "slave", "rslave"]


@dataclass(frozen=True, kw_only=True)
class VolumeSpec:
    name: str
    driver: Literal["local"] = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One mount of a container.

    `source`: volume name ("" makes an anonymous volume), host path for a bind, unused for tmpfs.
    `create_source`: a missing bind source is made (as -v does), else it is an error (as --mount).
    """

    kind: MountKind
    target: str
    source: str = ""
    read_only: bool = False
    no_copy: bool = False
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Of the volume, when the mount makes it."""
    subpath: str = ""
    create_source: bool = False
    propagation: Propagation = "rprivate"
    map_ids: bool = False
    """Of a bind, for a container with ids of its own: owners of the files are meant as it counts."""
    layers: tuple[str, ...] = ()
    """Of a bind that the engine makes itself: directories that are stacked, see `spec.runtime.BindMount`."""
    tmpfs_size: int = 0
    tmpfs_mode: int = 0o1777
    tmpfs_options: tuple[str, ...] = ()
