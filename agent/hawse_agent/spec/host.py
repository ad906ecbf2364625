"""What one host shall look like: an ordered list of items, from a play or from `hawse up`.

An item is either a stack (networks, volumes, images, containers that belong together) or one provisioning
task (a module with rendered arguments). The agent plans and applies them in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.volume import VolumeSpec

LABEL_STACK = "io.hawse.stack"
LABEL_SERVICE = "io.hawse.service"


@dataclass(frozen=True, kw_only=True)
class ImageVariant:
    """The same image for another platform. Fields as those of `ImageSource`."""

    platform: str
    id: str
    manifest: str
    blobs: tuple[str, ...]
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image that a stack needs. With `manifest` the controller holds it and can send the blobs.

    Where it holds it for several platforms the host takes the one that fits it best.
    """

    reference: str
    id: str = ""
    """Digest of the image configuration, `sha256:…`; "" when only the reference is known."""
    manifest: str = ""
    """Digest of the manifest at the controller."""
    blobs: tuple[str, ...] = ()
    """Every blob that the image consists of: manifest, config, layers."""
    size: int = 0
    platform: str = ""
    """What this one is for: `linux/amd64`; "" when it is not known."""
    others: tuple[ImageVariant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """`state` absent takes the stack down; `remove_volumes` then also removes its named volumes."""

    name: str
    state: Literal["present", "absent"] = "present"
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    images: tuple[ImageSource, ...] = ()
    containers: tuple[ContainerSpec, ...] = ()
    remove_volumes: bool = False
    wait: float = 60.0
    """Seconds that containers with a health check may take to become healthy."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One call of a provisioning module. `args` are rendered and validated by the controller.

    Bytes inside args (file contents) are base64 text under `content_b64`; contents above 1 MiB are a
    blob: `content_blob` is then its digest, uploaded before.
    """

    module: str
    args: Mapping[str, Any] = field(default_factory=dict)
    become_user: str = ""
    """As whom the module runs: "" is the login user of the connection."""
    environment: Mapping[str, str] = field(default_factory=dict)
    no_log: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of a host's program; exactly one of `stack` and `task` is set."""

    id: str
    name: str
    stack: StackSpec | None = None
    task: TaskSpec | None = None
    ignore_errors: bool = False


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    items: tuple[Item, ...] = ()
    login_user: str = "root"
    run_id: str = ""
