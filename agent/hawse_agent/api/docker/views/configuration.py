"""What a container is told to run: inspect's `Config`, of its spec over its image. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hawse_agent.engine.effective import healthcheck
from hawse_agent.engine.views import ContainerView
from hawse_agent.images.image import ImageConfig
from hawse_agent.images.store import Image
from hawse_agent.spec.container import ContainerSpec


def config(view: ContainerView, image: Image | None) -> dict[str, Any]:
    spec = view.record.spec
    own = image.config if image is not None else None
    volumes: dict[str, Any] = {
        mount.target: {} for mount in spec.mounts if mount.kind == "volume" and not mount.source
    }
    exposed: dict[str, Any] = {port: {} for port in exposed_ports(spec, image)}
    environment = [*(own.env if own else ())]
    names = {entry.partition("=")[0] for entry in environment}
    merged = {entry.partition("=")[0]: entry for entry in environment}
    for key in spec.environment_unset:
        merged.pop(key, None)
    for key, value in spec.environment.items():
        merged[key] = f"{key}={value}"
    if "PATH" not in names and "PATH" not in merged:
        merged["PATH"] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    of_image = own.healthcheck if own else None
    health = of_image if spec.health is None else spec.health.over(of_image)
    return {
        "Hostname": spec.hostname or view.id[:12],
        "Domainname": spec.domainname,
        "User": spec.user or (own.user if own else ""),
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": exposed,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "StdinOnce": spec.stdin_once,
        "Env": list(merged.values()),
        "Cmd": listed(spec.command if spec.command is not None else _image_command(spec, own)),
        **({"Healthcheck": healthcheck(health)} if health is not None else {}),
        "Image": spec.image,
        "Volumes": volumes or None,
        "WorkingDir": spec.working_dir or (own.working_dir if own else ""),
        "Entrypoint": listed(_entrypoint(spec, own)),
        "OnBuild": None,
        "Labels": labels(spec, image),
        "StopSignal": spec.stop_signal or (own.stop_signal if own else "") or "SIGTERM",
        **({"StopTimeout": spec.stop_timeout} if spec.stop_timeout is not None else {}),
    }


def labels(spec: ContainerSpec, image: Image | None) -> dict[str, str]:
    return {**(image.config.labels if image is not None else {}), **spec.labels}


def exposed_ports(spec: ContainerSpec, image: Image | None) -> list[str]:
    """`80/tcp`: of the image, exposed or published."""
    own = image.config.exposed_ports if image is not None else ()
    mapped = [f"{port.container_port}/{port.protocol}" for port in spec.ports]
    words = [port if "/" in port else f"{port}/tcp" for port in (*own, *spec.expose)]
    return list(dict.fromkeys([*words, *mapped]))


def argv(spec: ContainerSpec, image: Image | None) -> tuple[str, ...]:
    own = image.config if image is not None else None
    entrypoint = _entrypoint(spec, own)
    command = spec.command if spec.command is not None else _image_command(spec, own)
    return (*(entrypoint or ()), *(command or ()))


def _entrypoint(spec: ContainerSpec, own: ImageConfig | None) -> tuple[str, ...] | None:
    if spec.entrypoint is not None:
        return spec.entrypoint
    return own.entrypoint if own is not None else None


def _image_command(spec: ContainerSpec, own: ImageConfig | None) -> tuple[str, ...] | None:
    return own.cmd if own is not None and spec.entrypoint is None else None


def listed(words: Sequence[str] | None) -> list[str] | None:
    return list(words) if words is not None else None
