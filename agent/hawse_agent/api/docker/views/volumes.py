"""Volumes in Docker's JSON. Pure."""

from __future__ import annotations

from typing import Any

from hawse_agent.api.docker.views.times import stamp
from hawse_agent.volumes.store import VolumeInfo


def volume(info: VolumeInfo) -> dict[str, Any]:
    return {
        "CreatedAt": stamp(int(info.created)),
        "Driver": info.spec.driver,
        "Labels": dict(info.spec.labels) or None,
        "Mountpoint": str(info.path),
        "Name": info.spec.name,
        "Options": dict(info.spec.options) or None,
        "Scope": "local",
    }
