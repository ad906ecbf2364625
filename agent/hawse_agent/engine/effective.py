"""The configuration that a container has, in an image's words: its spec over its image. Pure.

What `commit` makes an image of. Names of hosts, terminals and the like are a container's own.
"""

from __future__ import annotations

import json
from typing import Any

from hawse_agent.images.image import Image
from hawse_agent.runtime.defaults import DEFAULT_PATH
from hawse_agent.spec.container import ContainerSpec, HealthCheck

NANO = 1_000_000_000
_LEFT_BEHIND = ("OnBuild",)
"""It was for the image's first child."""


def config_of(spec: ContainerSpec, image: Image) -> dict[str, Any]:
    """`config` of an image configuration; what the spec has nothing to say of stays as the image has it."""
    own = json.loads(image.raw).get("config") or {}
    config = {key: value for key, value in own.items() if value and key not in _LEFT_BEHIND}
    if spec.entrypoint is not None:
        config.pop("Cmd", None)
    config |= {
        key: list(words)
        for key, words in (("Entrypoint", spec.entrypoint), ("Cmd", spec.command))
        if words is not None
    }
    config |= {
        key: text
        for key, text in (
            ("User", spec.user),
            ("WorkingDir", spec.working_dir),
            ("StopSignal", spec.stop_signal),
        )
        if text
    }
    config["Env"] = _environment(spec, image)
    ports = [f"{port.container_port}/{port.protocol}" for port in spec.ports]
    ports += [port if "/" in port else f"{port}/tcp" for port in spec.expose]
    volumes = [mount.target for mount in spec.mounts if mount.kind == "volume" and not mount.source]
    for key, more in (("ExposedPorts", ports), ("Volumes", volumes)):
        if more:
            config[key] = {**(config.get(key) or {}), **{name: {} for name in more}}
    if spec.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **spec.labels}
    if spec.stop_timeout is not None:
        config["StopTimeout"] = spec.stop_timeout
    if spec.health is not None and (check := spec.health.over(image.config.healthcheck)) is not None:
        config["Healthcheck"] = healthcheck(check)
    return config


def _environment(spec: ContainerSpec, image: Image) -> list[str]:
    merged = {entry.partition("=")[0]: entry for entry in image.config.env}
    merged.setdefault("PATH", f"PATH={DEFAULT_PATH}")
    for key in spec.environment_unset:
        merged.pop(key, None)
    for key, value in spec.environment.items():
        merged[key] = f"{key}={value}"
    return list(merged.values())


def healthcheck(check: HealthCheck) -> dict[str, Any]:
    """As Docker, without what is left to its defaults."""
    numbers = {
        "Interval": int(check.interval * NANO) if check.interval != HealthCheck.interval else 0,
        "Timeout": int(check.timeout * NANO) if check.timeout != HealthCheck.timeout else 0,
        "StartPeriod": int(check.start_period * NANO),
        "StartInterval": (
            int(check.start_interval * NANO) if check.start_interval != HealthCheck.start_interval else 0
        ),
        "Retries": check.retries if check.retries != HealthCheck.retries else 0,
    }
    return {"Test": list(check.test), **{name: number for name, number in numbers.items() if number}}
