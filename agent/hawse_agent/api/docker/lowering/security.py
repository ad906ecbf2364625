"""Security options, masked paths and devices of a create request. Pure."""

from __future__ import annotations

import re
from typing import Any

from hawse_agent.api.docker.fields import Fields
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec.container import Device


def options(given: tuple[str, ...]) -> tuple[bool, str]:
    """no_new_privileges, seccomp."""
    no_new, seccomp = False, "default"
    for option in given:
        key, value = (re.split("[=:]", option, maxsplit=1) + [""])[:2]
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InputError(f"no-new-privileges: {value!r} is neither true nor false")
            no_new = value != "false"
        elif key == "seccomp":
            seccomp = "default" if value == "builtin" else value
        elif (key, value) in (("apparmor", "unconfined"), ("label", "disable")):
            continue  # neither AppArmor nor SELinux confines our containers
        else:
            raise NotSupported(f"security option {key!r} is not supported by hawse-agent")
    return no_new, seccomp


def inner_paths(host: Fields, key: str, usual: tuple[str, ...]) -> tuple[str, ...] | None:
    """None for the usual ones, which inspect names: a container that is made after another's is the same."""
    paths = host.texts_or_none(key)
    if paths == usual:
        return None
    for path in paths or ():
        if not path.startswith("/"):
            raise InputError(f"HostConfig.{key}: {path!r} is not an absolute path")
    return paths


def devices(given: list[Any]) -> tuple[Device, ...]:
    found = []
    for entry in given:
        fields = Fields(entry, "Devices")
        host = fields.text("PathOnHost")
        target, access = fields.text("PathInContainer") or host, fields.text("CgroupPermissions") or "rwm"
        fields.rest()
        found.append(Device(host=host, target=target, access=access))
    return tuple(found)
