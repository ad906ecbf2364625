"""What a host's owner has decided for all its containers: /etc/hawse/agent.toml, read when the daemon starts.

    init = false            # whether a container that does not say gets an init of its own

    [userns]
    default = "host"        # or "auto": a container that does not say gets ids of its own
    first = 1879048192      # the ids that are given out: this one and …
    size = 268304384        # … so many; 65536 go to each container

    [registries]            # distribution/settings.py has every key
    mirrors = { "docker.io" = ["https://mirror.lan"] }

Without the file everything is as written here. An unknown key, or a value of the wrong kind, is an error.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.errors import InputError
from hawse_agent.spec import codec

MOST_IDS = (1 << 32) - 1
"""The last one, 0xffffffff, means "none"."""


@dataclass(frozen=True, kw_only=True)
class UsernsSettings:
    default: Literal["host", "auto"] = "host"
    first: int = 0x70000000
    size: int = 0x0FFE0000
    """By default 0x70000000 to 0x7ffdffff, which neither distributions nor systemd use for anything."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    init: bool = False
    userns: UsernsSettings = UsernsSettings()
    registries: RegistrySettings = RegistrySettings()


def read(path: Path) -> Settings:
    """Raises InputError that names the file and the key."""
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(str(error), where=str(path)) from error
    try:
        settings = codec.from_json(Settings, data)
    except InputError as error:
        raise error.at(str(path)) from None
    ids = settings.userns
    if ids.first < 1 or ids.size < 0 or ids.first + ids.size > MOST_IDS:
        raise InputError(f"userns: {ids.size} ids from {ids.first} on are not ids of users", where=str(path))
    try:
        settings.registries.check()
    except InputError as error:
        raise error.at(str(path)) from None
    return settings
