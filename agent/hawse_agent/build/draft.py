"""An image in the making: what a stage has come to after a step. Pure; each step makes a new one.

    scratch() or of_image(base) ── step ──► Draft ── step ──► Draft … encoded(): the image's configuration

Keys of a base's configuration that nobody here knows are kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hawse_agent.distribution.manifest import host_platform
from hawse_agent.images.image import Image, ImageRecord, Layer, image_of

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_INHERITED = ("config", "history", "rootfs", "created", "container", "container_config", "id", "parent")
_OWN = ("OnBuild", "Image", "Hostname", "Domainname")
"""What of a base's settings was meant for that image alone."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    about: Mapping[str, Any]
    """Of the configuration: architecture, os, variant, author…"""
    config: Mapping[str, Any]
    """What containers get: Env, Cmd…, by Docker's names."""
    layers: tuple[Layer, ...] = ()
    """Lowest first."""
    history: tuple[Mapping[str, Any], ...] = ()
    created: str = ""
    base: Image | None = None
    """What it begins with; None is scratch."""
    steps: int = 0

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def id(self) -> str:
        """Of the image as it stands: the base's own, as long as nothing was done to it; "" is scratch."""
        if not self.steps:
            return self.base.id if self.base is not None else ""
        return f"sha256:{hashlib.sha256(self.encoded()).hexdigest()}"

    def encoded(self) -> bytes:
        """The image's configuration."""
        document = {
            **self.about,
            "config": self.config,
            "created": self.created,
            "history": list(self.history),
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
        }
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    def image(self) -> Image:
        """To start a container of, though no store has it."""
        record = ImageRecord(manifest="", config=self.encoded().decode(), layers=self.layers, added=0.0)
        return image_of(self.id or "sha256:" + 64 * "0", record, (), ())

    def with_step(
        self,
        *,
        created: str,
        created_by: str,
        layer: Layer | None = None,
        config: Mapping[str, Any] | None = None,
        author: str | None = None,
    ) -> Draft:
        entry: dict[str, Any] = {"created": created, "created_by": created_by}
        about = self.about if author is None else {**self.about, "author": author}
        if about.get("author"):
            entry["author"] = about["author"]
        if layer is None:
            entry["empty_layer"] = True
        return replace(
            self,
            about=about,
            config=self.config if config is None else config,
            layers=self.layers if layer is None else (*self.layers, layer),
            history=(*self.history, entry),
            created=created,
            steps=self.steps + 1,
        )

    def variables(self) -> dict[str, str]:
        """Of its environment."""
        return dict(entry.partition("=")[::2] for entry in self.config.get("Env") or ())


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A draft to begin with, and what the base image wants to be done first."""

    draft: Draft
    triggers: tuple[str, ...] = field(default=())


def scratch() -> Draft:
    platform = host_platform()
    about = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        about["variant"] = platform.variant
    return Draft(about=about, config=_with_path({}))


def of_image(image: Image) -> Begun:
    document = json.loads(image.raw)
    config = {key: value for key, value in (document.get("config") or {}).items() if key not in _OWN}
    draft = Draft(
        about={key: value for key, value in document.items() if key not in _NOT_INHERITED},
        config=_with_path(config),
        layers=image.layers,
        history=tuple(document.get("history") or ()),
        created=image.created,
        base=image,
    )
    return Begun(draft=draft, triggers=image.config.onbuild)


def of_stage(stage: Draft) -> Begun:
    """`FROM` a stage before."""
    triggers = tuple(stage.config.get("OnBuild") or ())
    config = {key: value for key, value in stage.config.items() if key not in _OWN}
    return Begun(draft=replace(stage, config=config), triggers=triggers)


def _with_path(config: Mapping[str, Any]) -> dict[str, Any]:
    """As Docker does: an image always says where programs are."""
    env = list(config.get("Env") or ())
    if not any(entry.startswith("PATH=") for entry in env):
        env.append(f"PATH={DEFAULT_PATH}")
    return {**config, "Env": env}


def now() -> str:
    """RFC 3339, as configurations have it."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
