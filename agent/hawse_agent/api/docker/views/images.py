"""Images in Docker's JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hawse_agent.api.docker.views.configuration import listed
from hawse_agent.api.docker.views.times import NEVER, stamp
from hawse_agent.engine.effective import healthcheck
from hawse_agent.images.store import Image


def shared_sizes(images: Sequence[Image]) -> dict[str, int]:
    """Image id → bytes of the layers that other images have, too."""
    holders = Counter(diff_id for image in images for diff_id in set(image.diff_ids))
    return {
        image.id: sum(layer.content_size for layer in image.layers if holders[layer.diff_id] > 1)
        for image in images
    }


def image_summary(image: Image, users: int, shared: int = -1) -> dict[str, Any]:
    """`shared` is -1 when it was not asked for."""
    return {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": epoch(image.created),
        "Size": image.size,
        "SharedSize": shared,
        "VirtualSize": image.size,
        "Labels": dict(image.config.labels) or None,
        "Containers": users,
    }


def image_inspect(image: Image) -> dict[str, Any]:
    own = image.config
    return {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": image.created or NEVER,
        "DockerVersion": "",
        "Author": image.author,
        "Architecture": image.architecture,
        "Variant": image.variant,
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Data": {}, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": stamp(image.added)},
        "Config": {
            "User": own.user,
            "ExposedPorts": {port: {} for port in own.exposed_ports} or None,
            "Env": list(own.env) or None,
            "Entrypoint": listed(own.entrypoint),
            "Cmd": listed(own.cmd),
            "Volumes": {path: {} for path in own.volumes} or None,
            "WorkingDir": own.working_dir,
            "Labels": dict(own.labels) or None,
            "StopSignal": own.stop_signal,
            "Healthcheck": healthcheck(own.healthcheck) if own.healthcheck is not None else None,
            "Shell": list(own.shell) or None,
            "OnBuild": list(own.onbuild) or None,
        },
    }


def image_history(image: Image, ancestors: Sequence[Image] = ()) -> list[dict[str, Any]]:
    """`ancestors`: the images that it was made from on this host, the nearest first."""
    steps = list(zip(image.history, image.history_sizes, strict=True))
    found: list[dict[str, Any]] = [
        {
            "Id": "<missing>",
            "Created": epoch(step.created),
            "CreatedBy": step.created_by,
            "Comment": step.comment,
            "Size": size,
            "Tags": None,
        }
        for step, size in reversed(steps)
    ]
    for step, own in zip(found, (image, *ancestors), strict=False):
        step |= {"Id": own.id, "Tags": list(own.repo_tags) or None}
    return found


def epoch(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return 0
