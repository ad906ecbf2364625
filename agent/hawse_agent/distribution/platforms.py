"""Of an image that is held for several platforms, the one for a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hawse_agent.distribution import manifest
from hawse_agent.distribution.manifest import Platform
from hawse_agent.errors import InputError, NotFound
from hawse_agent.spec.host import ImageSource


def choose(source: ImageSource, host: Platform) -> ImageSource:
    """The one that the host runs best, alone. Raises InputError where it can run none."""
    if not source.platform:
        return source
    offered = {
        source.manifest: source.platform,
        **{other.manifest: other.platform for other in source.others},
    }
    index = {"manifests": [_entry(digest, platform) for digest, platform in offered.items()]}
    try:
        chosen = manifest.choose(index, host, source.reference).digest
    except NotFound:
        raise InputError(
            f"image {source.reference} is for {', '.join(offered.values())}, and this host is {host}",
            hint=f"hawse image pull --platform {host} {source.reference}",
        ) from None
    for other in source.others:
        if other.manifest == chosen:
            return replace(
                source,
                id=other.id,
                manifest=other.manifest,
                blobs=other.blobs,
                size=other.size,
                platform=other.platform,
                others=(),
            )
    return replace(source, others=())


def _entry(digest: str, platform: str) -> Mapping[str, Any]:
    parsed = manifest.parse_platform(platform)
    return {
        "digest": digest,
        "size": 0,
        "platform": {"os": parsed.os, "architecture": parsed.architecture, "variant": parsed.variant},
    }
