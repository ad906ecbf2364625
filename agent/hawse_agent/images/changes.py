"""The settings of a Dockerfile's instructions, applied to an image's configuration. Pure.

For `docker import --change` and `docker commit --change`: `CMD ["nginx"]`, `ENV A=1 B=2`, `EXPOSE 80`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from hawse_agent.errors import InputError

_TIMES = {
    "--interval": "Interval",
    "--timeout": "Timeout",
    "--start-period": "StartPeriod",
    "--start-interval": "StartInterval",
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def apply_changes(config: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A new `config` object of an image configuration; raises InputError for what cannot be changed."""
    result = json.loads(json.dumps(dict(config)))
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not rest:
            raise InputError(f"an instruction and its value are expected: {line!r}")
        _apply(result, word.upper(), rest, line)
    return dict(result)


def _apply(config: dict[str, Any], word: str, rest: str, line: str) -> None:
    match word:
        case "CMD":
            config["Cmd"] = _command(config, rest, line)
        case "ENTRYPOINT":
            config["Entrypoint"] = _command(config, rest, line)
        case "ENV":
            fresh = dict(_pairs(rest, line))
            kept = [entry for entry in config.get("Env") or [] if entry.partition("=")[0] not in fresh]
            config["Env"] = [*kept, *(f"{key}={value}" for key, value in fresh.items())]
        case "LABEL":
            config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(rest, line))}
        case "EXPOSE":
            ports: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in rest.split()}
            config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}
        case "VOLUME":
            paths = _array(rest, line) if rest.startswith("[") else rest.split()
            config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}
        case "ONBUILD":
            config["OnBuild"] = [*(config.get("OnBuild") or []), rest]
        case "USER":
            config["User"] = rest
        case "WORKDIR":
            here = config.get("WorkingDir") or "/"
            config["WorkingDir"] = rest if rest.startswith("/") else f"{here.rstrip('/')}/{rest}"
        case "STOPSIGNAL":
            config["StopSignal"] = rest
        case "SHELL":
            config["Shell"] = _array(rest, line)
        case "HEALTHCHECK":
            config["Healthcheck"] = _healthcheck(rest, line)
        case _:
            raise InputError(
                f"{word} is not a valid change command: {line!r}",
                hint="possible are CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD SHELL STOPSIGNAL USER "
                "VOLUME WORKDIR",
            )


def _command(config: Mapping[str, Any], text: str, line: str) -> list[str]:
    if text.startswith("["):
        return _array(text, line)
    return [*(config.get("Shell") or ["/bin/sh", "-c"]), text]


def _array(text: str, line: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"not a JSON array: {line!r}") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"not a JSON array of strings: {line!r}")
    return value


def _healthcheck(text: str, line: str) -> dict[str, Any]:
    """`[--interval=30s …] CMD …`, or `NONE`. Times are nanoseconds in an image."""
    check: dict[str, Any] = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        key, _, value = flag.partition("=")
        if key == "--retries" and value.isdecimal():
            check["Retries"] = int(value)
        elif key in _TIMES:
            check[_TIMES[key]] = _nanoseconds(value, line)
        else:
            raise InputError(f"{flag} is no option of HEALTHCHECK: {line!r}")
        text = text.lstrip()
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word.upper() == "NONE" and not rest:
        return {"Test": ["NONE"]}
    if word.upper() != "CMD" or not rest:
        raise InputError(f"CMD or NONE is expected: {line!r}")
    return {"Test": ["CMD", *_array(rest, line)] if rest.startswith("[") else ["CMD-SHELL", rest], **check}


def _nanoseconds(text: str, line: str) -> int:
    """`1m30s`, `500ms`."""
    if not _DURATION.fullmatch(text):
        raise InputError(f"{text!r} is not a time (30s, 1m30s): {line!r}")
    return round(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)) * 1e9)


def _pairs(text: str, line: str) -> list[tuple[str, str]]:
    """`A=1 B="two words"`, or the old `A the rest`."""
    first, _, rest = text.partition(" ")
    if "=" not in first and rest:
        return [(first, rest.strip())]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{error}: {line!r}") from error
    pairs = [word.partition("=") for word in words]
    if not all(equals and key for key, equals, _ in pairs):
        raise InputError(f"KEY=VALUE is expected: {line!r}")
    return [(key, value) for key, _, value in pairs]
