"""Acting as a user: commands run as that user, files are reached with that user's rights.

The daemon has threads, so it may not fork and go on in Python. Work on files runs in a thread of its own,
whose file identity (fsuid, fsgid, groups) is the user's and which has no capability left: the kernel itself
refuses what the user may not do, also through a symbolic link that the user has planted. Working directory
and umask of that thread are its own too. A process of the user's for each task would cost 0.1 s each.
"""

from __future__ import annotations

import grp
import os
import pwd
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hawse_agent.errors import HostRefused, TaskFailed
from hawse_agent.linux import namespace, privilege

UMASK = 0o022
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All of them, the first one included."""
    home: str
    shell: str

    @property
    def environment(self) -> dict[str, str]:
        """What a command of this user starts with; nothing of the daemon's own."""
        return {
            "HOME": self.home,
            "LANG": "C.UTF-8",
            "LOGNAME": self.name,
            "PATH": PATH,
            "SHELL": self.shell,
            "USER": self.name,
        }


def account(name: str) -> Account:
    """Raises TaskFailed when the host has no such user, HostRefused when the agent may not become it."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise TaskFailed(f"this host has no user {name!r}") from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise HostRefused(f"an agent that is not root cannot act as user {name!r}")
    return Account(
        name=name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(name, entry.pw_gid)),
        home=entry.pw_dir or "/",
        shell=entry.pw_shell or "/bin/sh",
    )


def as_user(user: Account, work: Callable[[], T]) -> T:
    """What `work` returns or raises, run with the rights of `user`. It must not start processes."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            namespace.unshare(namespace.CLONE_FS)
            os.umask(UMASK)
            if user.uid != os.geteuid():
                privilege.set_file_identity(user.uid, user.gid, user.groups)
            returned.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name=f"as {user.name}")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]


def uid_of(name: str) -> int:
    """A user by name or number. Raises TaskFailed."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        if name.isascii() and name.isdigit():
            return int(name)
        raise TaskFailed(f"this host has no user {name!r}") from None


def gid_of(name: str) -> int:
    """A group by name or number. Raises TaskFailed."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isascii() and name.isdigit():
            return int(name)
        raise TaskFailed(f"this host has no group {name!r}") from None


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
