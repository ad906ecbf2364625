"""What a host's owner has decided for all its containers: /etc/hawse/agent.toml, read when the daemon starts.

    init = false            # whether a container that does not say gets an init of its own

    [userns]
    default = "host"        # or "auto": a container that does not say gets ids of its own
    first = 1879048192      # the ids that are given out: this one and …
    size = 268304384        # … so many; 65536 go to each container

    [builds]
    cache_bytes = 10737418240 # of the cache the longest unused goes after a build, down to this; 0: all stays
    cache_days = 0.0        # what was not used for so long goes then; 0: nothing

    [images]                # see `engine.collector`; 0 is never
    unused_hours = 0        # an image that no container had for so long is removed
    min_free_percent = 0    # with less of the disk free, those are removed that were used longest ago

    [registries]            # distribution/settings.py has every key
    mirrors = { "docker.io" = ["https://mirror.lan"] }

Without the file everything is as written here. An unknown key, or a value of the wrong kind, is an error.
"""

from __future__ import annotations

import re
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
class BuildSettings:
    cache_bytes: int = 10 << 30
    cache_days: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ImagesSettings:
    unused_hours: int = 0
    min_free_percent: int = 0

    @property
    def collects(self) -> bool:
        return bool(self.unused_hours or self.min_free_percent)

    def check(self) -> None:
        if self.unused_hours < 0:
            raise InputError(f"{self.unused_hours} is no number of hours", where="images.unused_hours")
        if not 0 <= self.min_free_percent < 100:
            raise InputError(
                f"{self.min_free_percent} is no part of the disk, 0 to 99", where="images.min_free_percent"
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    init: bool = False
    userns: UsernsSettings = UsernsSettings()
    builds: BuildSettings = BuildSettings()
    images: ImagesSettings = ImagesSettings()
    registries: RegistrySettings = RegistrySettings()


def read(path: Path) -> Settings:
    """Raises InputError that names the file, the line and the key."""
    try:
        text = path.read_text()
        data = tomllib.loads(text)
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(str(error), where=str(path)) from error
    try:
        settings = codec.from_json(Settings, data)
        settings.images.check()
        settings.registries.check()
    except InputError as error:
        raise error.at(f"{path}{_line(text, error)}") from None
    ids = settings.userns
    if ids.first < 1 or ids.size < 0 or ids.first + ids.size > MOST_IDS:
        raise InputError(f"userns: {ids.size} ids from {ids.first} on are not ids of users", where=str(path))
    if settings.builds.cache_bytes < 0 or settings.builds.cache_days < 0:
        raise InputError("builds: a limit of the cache is less than nothing", where=str(path))
    return settings


def _line(text: str, error: InputError) -> str:
    """`:7`, where the key of an error stands: the innermost, since TOML lets the others stand elsewhere."""
    quoted = re.search(r'"(.*)"$', error.where)
    key = quoted[1] if quoted else error.where.rpartition(".")[2]
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"""\s*(\[.*)?["']?{re.escape(key)}["']?\s*[]=.]""", line):
            return f":{number}"
    return ""
