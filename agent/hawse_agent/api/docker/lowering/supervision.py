"""What is done for a container while it runs: restart policy, health check, log."""

from __future__ import annotations

import re
from typing import Any

from hawse_agent.api.docker.fields import Fields
from hawse_agent.api.docker.lowering.limits import _NANO
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.container import HealthCheck, LogConfig, RestartPolicy

_LEAST_TIME = 1_000_000


def restart_policy(policy: Fields) -> RestartPolicy:
    name, retries = policy.text("Name") or "no", policy.number("MaximumRetryCount")
    policy.rest()
    if retries < 0:
        raise InputError("invalid restart policy: maximum retry count cannot be negative")
    if retries and name != "on-failure":
        raise InputError("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    for mode in ("no", "always", "unless-stopped", "on-failure"):
        if name == mode:
            return RestartPolicy(mode=mode, max_retries=retries)
    raise InputError(f"invalid restart policy: unknown policy '{name}'")


def health_check(given: dict[str, Any]) -> HealthCheck | None:
    fields = Fields(given, "Healthcheck")
    test = fields.texts("Test")
    values = {
        "interval": fields.number("Interval"),
        "timeout": fields.number("Timeout"),
        "start_period": fields.number("StartPeriod"),
        "start_interval": fields.number("StartInterval"),
    }
    retries = fields.number("Retries")
    fields.rest()
    if retries < 0:
        raise InputError("Retries in Healthcheck cannot be negative")
    for key, value in values.items():
        if value != 0 and value < _LEAST_TIME:
            name = key.replace("_", " ").title().replace(" ", "")
            raise InputError(f"{name} in Healthcheck cannot be less than 1ms")
    if not test:
        if not any(values.values()) and not retries:
            return None
        return HealthCheck(test=(), retries=retries, **{key: value / _NANO for key, value in values.items()})
    if test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InputError(f"Unknown healthcheck type {test[0]!r}")
    if test[0] != "NONE" and len(test) < 2:
        raise InputError(f"Healthcheck.Test: expected what to run after {test[0]}")
    times = {key: value / _NANO for key, value in values.items() if value}
    return HealthCheck(test=test, **times, **({"retries": retries} if retries else {}))  # type: ignore[arg-type]


def log_config(fields: Fields) -> LogConfig:
    kind = fields.text("Type") or "json-file"
    options = fields.labels("Config")
    fields.rest()
    if kind not in ("json-file", "local", "none"):
        raise NotSupported(f"log driver {kind!r} is not supported: json-file, local and none are")
    if kind == "none" and options:
        raise InputError("invalid logging opts for driver none")
    defaults = LogConfig()
    size, count, buffer = (options.pop(name, "") for name in ("max-size", "max-file", "max-buffer-size"))
    mode, compress = options.pop("mode", ""), options.pop("compress", "false")
    if mode == "blocking":
        raise NotSupported("log mode 'blocking' is not supported: a log never holds its container up")
    if mode not in ("", "non-blocking"):
        raise InputError(f"logger: logging mode not supported: {mode}")
    if compress != "false":
        raise NotSupported("log option 'compress' is not supported")
    for option in options:
        if option in _LOG_OPTIONS:
            raise NotSupported(f"log option {option!r} is not supported")
        raise InputError(f"unknown log opt '{option}' for {kind} log driver")
    return LogConfig(
        driver=kind,  # type: ignore[arg-type]
        max_size=0 if size == "-1" else _size(size, "max-size") if size else defaults.max_size,
        max_files=_count(count) if count else defaults.max_files,
        buffer=_size(buffer, "max-buffer-size") if buffer else defaults.buffer,
    )


_LOG_OPTIONS = ("labels", "labels-regex", "env", "env-regex", "tag")


def _size(text: str, where: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([kmgt]?)i?b?", text, re.IGNORECASE | re.ASCII)
    size = 0 if match is None else int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))
    if not 0 < size < 1 << 63:
        raise InputError(f"{where}: invalid size: '{text}'")
    return size


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise InputError(f"max-file: {text!r}: expected a number; max-file cannot be less than 1")
    return int(text)
