"""Which sysctls are of a namespace, and so a container's own. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hawse_agent.errors import InputError

_OF_IPC = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_NAME = re.compile(r"[A-Za-z0-9_-]+(?:[.][A-Za-z0-9_-]+)+")


def check(names: Iterable[str], *, own_ipc: bool, own_network: bool) -> None:
    """Raises InputError for one that is not of a namespace of the container's own."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(f"Sysctls: sysctl {name!r} is not a name")
        if name in _OF_IPC or name.startswith("fs.mqueue."):
            allowed, needs = own_ipc, "IPC"
        elif name.startswith("net."):
            allowed, needs = own_network, "network"
        else:
            raise InputError(
                f"Sysctls: sysctl '{name}' is not allowed: it is not of a namespace, but of the whole host"
            )
        if not allowed:
            raise InputError(f"Sysctls: sysctl '{name}' is not allowed without an own {needs} namespace")
