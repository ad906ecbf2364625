"""Containers in Docker's JSON: the list's entries, and what inspect shows. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hawse_agent.api.docker.views.configuration import argv, config, labels
from hawse_agent.api.docker.views.endpoints import (
    exposed,
    first_endpoint,
    networks_of,
    port_bindings,
    published,
)
from hawse_agent.api.docker.views.hostconfig import host_config
from hawse_agent.api.docker.views.times import duration, stamp
from hawse_agent.engine.views import ContainerState, ContainerView, HealthView
from hawse_agent.images.store import Image
from hawse_agent.paths import Paths
from hawse_agent.spec.records import ContainerRecord, NetworkRecord


def summary(
    view: ContainerView,
    image: Image | None,
    networks: Mapping[str, NetworkRecord],
    size: int | None = None,
) -> dict[str, Any]:
    """An entry of `GET /containers/json`; `size` is of what the container has written, when asked for."""
    spec = view.record.spec
    return {
        **_sizes(image, size),
        "Id": view.id,
        "Names": [f"/{view.name}"],
        "Image": spec.image,
        "ImageID": view.record.image_id,
        "Command": " ".join(f"'{word}'" if " " in word else word for word in argv(spec, image)),
        "Created": int(view.record.created),
        "Ports": [*published(view.ports), *exposed(spec, image, view.ports)],
        "Labels": labels(spec, image),
        "State": view.state.status,
        "Status": status_text(view.state),
        "HostConfig": {"NetworkMode": spec.network_mode},
        "NetworkSettings": {"Networks": networks_of(view, networks)},
        "Mounts": mounts(view.record, None),
    }


def inspect(
    view: ContainerView,
    image: Image | None,
    networks: Mapping[str, NetworkRecord],
    paths: Paths,
    executions: Sequence[str],
    size: int | None = None,
) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    record, spec, state = view.record, view.record.spec, view.state
    words = argv(spec, image)
    directory = paths.container(view.id)
    return {
        "Id": view.id,
        "Created": stamp(record.created),
        "Path": words[0] if words else "",
        "Args": list(words[1:]),
        "State": state_json(state),
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "etc" / "resolv.conf"),
        "HostnamePath": str(directory / "etc" / "hostname"),
        "HostsPath": str(directory / "etc" / "hosts"),
        "LogPath": str(directory / f"{view.id}-json.log") if spec.log.driver == "json-file" else "",
        "LogBytesDropped": state.dropped_log_bytes,
        "Name": f"/{view.name}",
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(executions) or None,
        "HostConfig": host_config(spec, view.links),
        **_id_mappings(record),
        "GraphDriver": {
            "Data": {"UpperDir": str(directory / "upper"), "WorkDir": str(directory / "work")},
            "Name": "overlay2",
        },
        "Mounts": mounts(record, paths),
        "Config": config(view, image),
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": view.id,
            "SandboxKey": f"/proc/{state.pid}/ns/net" if state.pid else "",
            "Ports": port_bindings(view, image),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            **first_endpoint(view, networks),
            "Networks": networks_of(view, networks),
        },
        **_sizes(image, size),
    }


def _sizes(image: Image | None, size: int | None) -> dict[str, int]:
    if size is None:
        return {}
    return {"SizeRw": size, "SizeRootFs": size + (image.size if image is not None else 0)}


def state_json(state: ContainerState) -> dict[str, Any]:
    return {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": stamp(state.started_at),
        "FinishedAt": stamp(state.finished_at),
        **({"Health": _health(state.health)} if state.health is not None else {}),
    }


def _health(health: HealthView) -> dict[str, Any]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": stamp(entry.start),
                "End": stamp(entry.end),
                "ExitCode": entry.exit_code,
                "Output": entry.output,
            }
            for entry in health.log
        ],
    }


def status_text(state: ContainerState, now: float | None = None) -> str:
    """`Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`."""
    now = time.time() if now is None else now
    if state.status == "created":
        return "Created"
    if state.status in ("exited", "dead"):
        if state.status == "dead":
            return "Dead"
        return f"Exited ({state.exit_code}) {duration(now - state.finished_at)} ago"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {duration(now - state.finished_at)} ago"
    text = f"Up {duration(now - state.started_at)}"
    if state.status == "paused":
        return f"{text} (Paused)"
    if state.health is not None:
        shown = "health: starting" if state.health.status == "starting" else state.health.status
        return f"{text} ({shown})"
    return text


def _id_mappings(record: ContainerRecord) -> dict[str, Any]:
    """Docker has no word for it; not in HostConfig, which clients send back to make another one."""
    if record.ids is None:
        return {}
    shown = [f"0:{record.ids.first}:{record.ids.count}"]
    return {"IDMappings": {"UidMap": shown, "GidMap": shown}}


def mounts(record: ContainerRecord, paths: Paths | None) -> list[dict[str, Any]]:
    """Binds and volumes; tmpfs mounts are in HostConfig."""
    known = {mount.target: mount for mount in (*record.inherited, *record.spec.mounts)}
    found = []
    for target, name in record.volumes.items():
        mount = known.get(target)
        read_only = mount is not None and mount.read_only
        found.append(
            {
                "Type": "volume",
                "Name": name,
                "Source": str(paths.volumes / name / "_data") if paths is not None else "",
                "Destination": target,
                "Driver": "local",
                "Mode": "ro" if read_only else "z",
                "RW": not read_only,
                "Propagation": "",
            }
        )
    for mount in known.values():
        if mount.kind == "bind":
            found.append(
                {
                    "Type": "bind",
                    "Source": mount.source,
                    "Destination": mount.target,
                    "Mode": "ro" if mount.read_only else "",
                    "RW": not mount.read_only,
                    "Propagation": mount.propagation,
                }
            )
    return found
