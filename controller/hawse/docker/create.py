"""`create` and `run`: the request body that their flags add up to.

Most flags are a field of it by themselves. What several say together (streams, health check, networks) is put
together here.
"""

from __future__ import annotations

from typing import Any

from hawse.docker.flags import Given, merge
from hawse_agent.errors import InputError

Json = dict[str, Any]


def create_body(given: Given) -> Json:
    """What is sent to create the container. Raises InputError for flags that contradict each other."""
    if not given.operands:
        raise InputError("which image?", hint="hawse run [OPTIONS] IMAGE [COMMAND …]")
    image, *command = given.operands
    body: Json = {"Image": image}
    if command:
        body["Cmd"] = command
    merge(body, given.body)
    host = body.setdefault("HostConfig", {})
    body |= _streams(given)
    _health(given, body)
    _networks(given, body, host)
    _in_order(host)
    policy, log = host.get("RestartPolicy", {}), host.get("LogConfig", {})
    if host.get("AutoRemove") and policy.get("Name", "no") not in ("", "no"):
        raise InputError("conflicting options: cannot specify both --restart and --rm")
    if log.get("Type") == "none" and log.get("Config"):
        raise InputError("invalid logging opts for driver none")
    return body


def _in_order(host: Json) -> None:
    """What is a set on the command line, as Docker's client sends it."""
    for key in ("CapAdd", "CapDrop"):
        if key in host:
            host[key] = sorted(set(host[key]))
    if "Ulimits" in host:
        host["Ulimits"] = [limit for _, limit in sorted(host["Ulimits"].items())]


def _streams(given: Given) -> Json:
    """Without -a all output, and stdin when it is open."""
    stdin = bool(given.options.get("interactive"))
    wanted = given.options.get("attach") or ["stdout", "stderr"]
    attached = stdin or "stdin" in wanted
    return {
        "OpenStdin": stdin,
        "StdinOnce": stdin and attached,
        "AttachStdin": attached,
        "AttachStdout": "stdout" in wanted,
        "AttachStderr": "stderr" in wanted,
    }


def _health(given: Given, body: Json) -> None:
    check = {key: value for key, value in body.pop("Healthcheck", {}).items() if value}
    if given.options.get("no-healthcheck"):
        if check:
            raise InputError("--no-healthcheck conflicts with --health-* options")
        check = {"Test": ["NONE"]}
    for key, flag in (
        ("Interval", "interval"),
        ("Timeout", "timeout"),
        ("Retries", "retries"),
        ("StartPeriod", "start-period"),
        ("StartInterval", "start-interval"),
    ):
        if check.get(key, 0) < 0:
            raise InputError(f"--health-{flag} cannot be negative")
    if check:
        body["Healthcheck"] = check


def _networks(given: Given, body: Json, host: Json) -> None:
    """The flags for one network are about the first."""
    endpoints = [dict(endpoint) for endpoint in given.options.get("network", [{"name": "default"}])]
    links = given.options.get("link", [])
    if links:
        host["Links"] = links
    first = endpoints[0]
    for flag, there in (
        ("network-alias", "Aliases" in first),
        ("ip", "IPAMConfig" in first),
        ("mac-address", "MacAddress" in first),
    ):
        if flag in given.options and there:
            raise InputError(f"conflicting options: cannot specify both --{flag} and per-network settings")
    if aliases := given.options.get("network-alias"):
        first["Aliases"] = aliases
    if address := given.options.get("ip"):
        first["IPAMConfig"] = {"IPv4Address": address}
    if mac := given.options.get("mac-address"):
        first["MacAddress"] = mac
    own = _is_own(first["name"])
    if links and own:
        first["Links"] = links
    if first.get("Aliases") and not own:
        raise InputError("network-scoped aliases are only supported for user-defined networks")
    host["NetworkMode"] = first["name"]
    if len(endpoints) > 1 and not all(_is_own(endpoint["name"]) for endpoint in endpoints):
        raise InputError(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    by_name: Json = {}
    for endpoint in endpoints:
        name = endpoint.pop("name")
        if name in by_name:
            raise InputError(f'network "{name}" is specified multiple times')
        by_name[name] = endpoint
    if len(by_name) > 1 or any(by_name.values()):
        body["NetworkingConfig"] = {"EndpointsConfig": by_name}


def _is_own(network: str) -> bool:
    """Made by a person, and not Docker's."""
    return network not in ("default", "bridge", "host", "none") and not network.startswith("container:")
