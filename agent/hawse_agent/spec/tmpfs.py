"""Options of a tmpfs as mount(8) writes them: which there are, and which of these are done. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from hawse_agent.errors import InputError, NotSupported

FLAGS = frozenset(
    (
        *("ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev"),
        *("relatime", "noatime", "strictatime", "diratime", "nodiratime"),
    )
)
_SETTINGS: Mapping[str, re.Pattern[str]] = {
    "size": re.compile(r"[0-9]{1,18}[kmgtpe%]?", re.IGNORECASE),
    "nr_blocks": re.compile(r"[0-9]{1,18}[kmgtpe]?", re.IGNORECASE),
    "nr_inodes": re.compile(r"[0-9]{1,18}[kmgtpe]?", re.IGNORECASE),
    "mode": re.compile(r"0?[0-7]{1,4}"),
    "uid": re.compile(r"[0-9]{1,9}"),
    "gid": re.compile(r"[0-9]{1,9}"),
}
"""What the kernel takes, and how."""
_NOT_DONE = frozenset(
    (
        *("async", "sync", "dirsync", "mand", "nomand", "remount", "mpol", "huge"),
        *(
            "bind",
            "rbind",
            "private",
            "rprivate",
            "shared",
            "rshared",
            "slave",
            "rslave",
            "unbindable",
            "runbindable",
        ),
    )
)


def check(options: Iterable[str]) -> None:
    """Raises InputError for an option that tmpfs does not have, NotSupported for one that is not done."""
    for option in options:
        name, equals, value = option.partition("=")
        if name in _NOT_DONE:
            raise NotSupported(f"tmpfs option {name!r} is not supported by hawse-agent")
        known = not equals if name in FLAGS else name in _SETTINGS and _SETTINGS[name].fullmatch(value)
        if not known:
            raise InputError(f"Tmpfs: invalid tmpfs option [{json.dumps(option, ensure_ascii=False)}]")
