"""What an imported root directory becomes as an image: the settings of a Dockerfile's instructions.

`changes` are lines as `docker import --change` takes them: `CMD ["nginx"]`, `ENV A=1 B=2`, `EXPOSE 80`.
"""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Iterable
from typing import Any

from hawse_agent.errors import InputError

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv7l": "arm", "i686": "386"}


def this_architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine.lower())


def apply_changes(changes: Iterable[str]) -> dict[str, Any]:
    """The `config` object of an OCI image configuration."""
    config: dict[str, Any] = {}
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not rest:
            raise InputError(f"an instruction and its value are expected: {line!r}")
        _apply(config, word.upper(), rest, line)
    return config


def _apply(config: dict[str, Any], word: str, rest: str, line: str) -> None:
    match word:
        case "CMD":
            config["Cmd"] = _command(rest, line)
        case "ENTRYPOINT":
            config["Entrypoint"] = _command(rest, line)
        case "ENV":
            config.setdefault("Env", []).extend(f"{key}={value}" for key, value in _pairs(rest, line))
        case "LABEL":
            config.setdefault("Labels", {}).update(_pairs(rest, line))
        case "EXPOSE":
            ports: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in rest.split()}
            config.setdefault("ExposedPorts", {}).update(ports)
        case "VOLUME":
            paths = _array(rest, line) if rest.startswith("[") else rest.split()
            config.setdefault("Volumes", {}).update({path: {} for path in paths})
        case "USER":
            config["User"] = rest
        case "WORKDIR":
            config["WorkingDir"] = rest
        case "STOPSIGNAL":
            config["StopSignal"] = rest
        case _:
            raise InputError(
                f"{word} cannot be changed on import: {line!r}",
                hint="possible are CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR",
            )


def _command(text: str, line: str) -> list[str]:
    return _array(text, line) if text.startswith("[") else ["/bin/sh", "-c", text]


def _array(text: str, line: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"not a JSON array: {line!r}") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"not a JSON array of strings: {line!r}")
    return value


def _pairs(text: str, line: str) -> list[tuple[str, str]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{error}: {line!r}") from error
    pairs = [word.partition("=") for word in words]
    if not all(equals and key for key, equals, _ in pairs):
        raise InputError(f"KEY=VALUE is expected: {line!r}")
    return [(key, value) for key, _, value in pairs]
