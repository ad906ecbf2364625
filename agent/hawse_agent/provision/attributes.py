"""Owner, group and mode: what differs, and making it so. Shared by file, copy and template."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from hawse_agent.plan.operations import Change
from hawse_agent.provision import modes, users


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Empty strings ask for nothing."""

    mode: str = ""
    owner: str = ""
    group: str = ""


def differences(path: str, wanted: Wanted, *, follow: bool = True) -> list[Change]:
    status = os.stat(path, follow_symlinks=follow)
    found = []
    if wanted.owner and users.uid(wanted.owner) != status.st_uid:
        found.append(Change(field="owner", old=users.user_name(status.st_uid), new=wanted.owner))
    if wanted.group and users.gid(wanted.group) != status.st_gid:
        found.append(Change(field="group", old=users.group_name(status.st_gid), new=wanted.group))
    if wanted.mode and not stat.S_ISLNK(status.st_mode):
        mode = modes.parse(wanted.mode, status.st_mode, directory=stat.S_ISDIR(status.st_mode))
        if mode != stat.S_IMODE(status.st_mode):
            found.append(Change(field="mode", old=f"{stat.S_IMODE(status.st_mode):04o}", new=f"{mode:04o}"))
    return found


def apply(path: str, wanted: Wanted, *, follow: bool = True) -> bool:
    """True when something was changed. Owner first: changing it clears set-uid bits."""
    changes = differences(path, wanted, follow=follow)
    owner = users.uid(wanted.owner) if wanted.owner else -1
    group = users.gid(wanted.group) if wanted.group else -1
    if any(change.field in ("owner", "group") for change in changes):
        os.chown(path, owner, group, follow_symlinks=follow)
    status = os.stat(path, follow_symlinks=follow)
    if wanted.mode and not stat.S_ISLNK(status.st_mode):
        mode = modes.parse(wanted.mode, status.st_mode, directory=stat.S_ISDIR(status.st_mode))
        if mode != stat.S_IMODE(status.st_mode):
            os.chmod(path, mode)
    return bool(changes)
