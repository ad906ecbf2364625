"""The host's report: what runs, how well, with which limits, and what it costs."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

from hawse_agent.engine.containers import Containers
from hawse_agent.engine.images import Images
from hawse_agent.engine.views import ContainerView
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import NotFound
from hawse_agent.paths import Paths
from hawse_agent.plan.differences import port_text
from hawse_agent.spec import codec
from hawse_agent.spec.container import PortMap
from hawse_agent.spec.host import LABEL_SERVICE, LABEL_STACK


def host_report(
    *,
    paths: Paths,
    version: dict[str, Any],
    containers: Containers,
    images: Images,
    volumes: Volumes,
    sizes: bool = False,
) -> dict[str, Any]:
    """JSON values; sizes in bytes, times in epoch seconds. `sizes` also walks every volume."""
    views = containers.list()
    disk = os.statvfs(paths.lib)
    return {
        "time": time.time(),
        "agent": version,
        "containers": [_container(view, containers) for view in reversed(views)],
        "states": dict(Counter(view.state.status for view in views)),
        "volumes": [
            {
                "name": info.spec.name,
                "created": info.created,
                "labels": dict(info.spec.labels),
                "users": [record.spec.name for record in volumes.users(info.spec.name)],
                **({"size": volumes.store.size(info.spec.name)} if sizes else {}),
            }
            for info in volumes.list()
        ],
        "images": [
            {
                "id": image.id,
                "tags": list(image.repo_tags),
                "size": image.size,
                "users": len(images.users(image.id)),
            }
            for image in images.list()
        ],
        "disk": {
            "path": str(paths.lib),
            "total": disk.f_blocks * disk.f_frsize,
            "free": disk.f_bavail * disk.f_frsize,
        },
    }


def _container(view: ContainerView, containers: Containers) -> dict[str, Any]:
    spec, state = view.record.spec, view.state
    usage: dict[str, Any] = {}
    limits: Any = None
    if state.running:
        try:
            stats = containers.stats(view.id)
        except (NotFound, FileNotFoundError):
            pass  # it has ended since the list was made
        else:
            usage = {"memory": stats.memory_usage, "cpu_ns": stats.cpu_total_ns, "pids": stats.pids_current}
        found = containers.limits(view.id)
        limits = codec.to_json(found) if found is not None else None
    return {
        "id": view.id,
        "name": view.name,
        "image": spec.image,
        "stack": spec.labels.get(LABEL_STACK, ""),
        "service": spec.labels.get(LABEL_SERVICE, ""),
        "status": state.status,
        "health": state.health.status if state.health else "",
        "exit_code": state.exit_code,
        "error": state.error,
        "oom_killed": state.oom_killed,
        "restarts": state.restart_count,
        "created": view.record.created,
        "started_at": state.started_at,
        "finished_at": state.finished_at,
        "pid": state.pid,
        "restart_policy": spec.restart.mode,
        "addresses": [endpoint.ipv4 for endpoint in view.endpoints],
        "ports": [
            port_text(
                PortMap(
                    container_port=port.container_port,
                    host_port=port.host_port,
                    host_ip=port.host_ip,
                    protocol=port.protocol,
                )
            )
            for port in view.ports
        ],
        "limits": limits,
        "usage": usage,
        "volumes": dict(view.record.volumes),
    }
