"""Owner, group and mode of what a path names.

A path is looked up once: what is opened is what is changed, also when somebody puts another file there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from hawse_agent.plan.operations import Change
from hawse_agent.provision import modes, users
from hawse_agent.provision.item import Step

Kind = Literal["file", "directory", "link", "hard", "absent", "other"]


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What is wanted; None and "" are whatever is there."""

    mode: str = ""
    uid: int | None = None
    gid: int | None = None


def wanted(mode: str, owner: str, group: str) -> Attributes:
    """Raises InputError for a bad mode, TaskFailed for names that the host does not know."""
    if mode:
        modes.check(mode)
    return Attributes(
        mode=mode,
        uid=users.uid_of(owner) if owner else None,
        gid=users.gid_of(group) if group else None,
    )


def look(path: str, *, follow: bool = False) -> os.stat_result | None:
    """None when nothing is there."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None


def kind(found: os.stat_result | None) -> Kind:
    if found is None:
        return "absent"
    if stat.S_ISREG(found.st_mode):
        return "file"
    if stat.S_ISDIR(found.st_mode):
        return "directory"
    return "link" if stat.S_ISLNK(found.st_mode) else "other"


def steps(path: str, want: Attributes, found: os.stat_result, *, follow: bool) -> list[Step]:
    """What must change at `path`, which is now as `found` says."""
    return [
        Step(change=change, fix=lambda: apply(path, want, follow=follow))
        for change in differences(want, found)
    ]


def differences(want: Attributes, found: os.stat_result) -> list[Change]:
    changes = []
    if want.uid is not None and want.uid != found.st_uid:
        changes.append(
            Change(field="owner", old=users.user_name(found.st_uid), new=users.user_name(want.uid))
        )
    if want.gid is not None and want.gid != found.st_gid:
        changes.append(
            Change(field="group", old=users.group_name(found.st_gid), new=users.group_name(want.gid))
        )
    if want.mode and not stat.S_ISLNK(found.st_mode):
        mode = mode_of(want, found)
        if mode != stat.S_IMODE(found.st_mode):
            changes.append(Change(field="mode", old=modes.show(found.st_mode), new=modes.show(mode)))
    return changes


def mode_of(want: Attributes, found: os.stat_result) -> int:
    is_directory = stat.S_ISDIR(found.st_mode)
    return modes.resolve(want.mode, stat.S_IMODE(found.st_mode), directory=is_directory, umask=users.UMASK)


def apply(path: str, want: Attributes, *, follow: bool, directory: int | None = None) -> None:
    """Set what differs. The owner comes first: changing it clears the set-id bits."""
    try:
        _apply(path, want, follow=follow, directory=directory)
    except OSError as error:  # name what was asked for, not the descriptor
        raise OSError(error.errno, error.strerror, path) from error


def _apply(path: str, want: Attributes, *, follow: bool, directory: int | None) -> None:
    with _opened(path, follow=follow, directory=directory) as descriptor:
        found = os.fstat(descriptor)
        for change in differences(want, found):
            if change.field in ("owner", "group"):
                uid, gid = (-1 if number is None else number for number in (want.uid, want.gid))
                if stat.S_ISLNK(found.st_mode):
                    os.chown(path, uid, gid, dir_fd=directory, follow_symlinks=False)
                else:
                    os.chown(_handle(descriptor), uid, gid)
        if want.mode and not stat.S_ISLNK(found.st_mode):
            mode = mode_of(want, found)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
                os.chmod(_handle(descriptor), mode)


def describe(path: str) -> dict[str, Any]:
    """The part of a result that says what is there now."""
    found = look(path)
    if found is None:
        return {"state": "absent"}
    return {
        "state": "hard" if kind(found) == "file" and found.st_nlink > 1 else kind(found),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "owner": users.user_name(found.st_uid),
        "group": users.group_name(found.st_gid),
        "mode": modes.show(found.st_mode),
        "size": found.st_size,
    }


@contextmanager
def _opened(path: str, *, follow: bool, directory: int | None) -> Iterator[int]:
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _handle(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"
