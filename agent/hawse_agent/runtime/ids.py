"""Which users and groups of the host a container's own ids are: 65536 of them, nobody else's.

Ranges are given out of a pool. A range in use is a symbolic link on the machine, named by its first id, that
leads to the container's directory: with the directory the range becomes free, even when nobody takes the link
away. So several agents on a machine, whatever their roots are, never give out the same ids. Users that the
host knows, and ids that /etc/subuid and /etc/subgid give to somebody, are left out.

Files on the disk keep the owners that a container sees, so a container may have other ids after a reboot.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hawse_agent.errors import Conflict
from hawse_agent.linux import apart, mount
from hawse_agent.runtime import userns
from hawse_agent.spec.records import IdRange

COUNT = 65536
_CLAIMS = Path("/run/hawse-ids")
_ETC = Path("/etc")


class Ids:
    """Of one agent. Thread-safe, and safe against other agents."""

    def __init__(self, pool: IdRange, *, claims: Path = _CLAIMS, etc: Path = _ETC) -> None:
        self._pool = pool
        self._claims = claims
        self._etc = etc
        self._last = 0

    def take(self, directory: Path) -> IdRange:
        """A free range for the container whose directory this is. Raises Conflict when there is none."""
        with _lock(self._claims):
            ids = choose(self._pool, [*self._taken(), *host_ids(self._etc)], after=self._last)
            self._last = ids.first
            self._link(ids, directory)
        return ids

    def keep(self, ids: IdRange, directory: Path) -> IdRange:
        """Make sure that a range is still the container's; another one when somebody has it by now."""
        link = self._claims / str(ids.first)
        with _lock(self._claims):
            if _owner(link) in (None, directory):
                self._link(ids, directory)
                return ids
        return self.take(directory)

    def give_back(self, ids: IdRange, directory: Path, heir: Path | None = None) -> None:
        """Harmless when the range is somebody else's. `heir`: another container that lives in it."""
        link = self._claims / str(ids.first)
        with _lock(self._claims):
            if os.path.islink(link) and os.readlink(link) == str(directory):
                link.unlink()
                if heir is not None:
                    link.symlink_to(heir)
            _remove_if_empty(self._claims)

    def tidy(self, containers: Path) -> None:
        """Take away links to containers of this directory that are gone: their daemon was killed."""
        if not self._claims.is_dir():
            return
        with _lock(self._claims):
            for link in self._claims.iterdir():
                if Path(os.readlink(link)).parent == containers and _owner(link) is None:
                    link.unlink()
            _remove_if_empty(self._claims)

    def _taken(self) -> Iterator[IdRange]:
        for link in self._claims.iterdir():
            if _owner(link) is not None:
                yield IdRange(first=int(link.name), count=COUNT)

    def _link(self, ids: IdRange, directory: Path) -> None:
        link = self._claims / str(ids.first)
        link.unlink(missing_ok=True)
        link.symlink_to(directory)


def choose(pool: IdRange, taken: Iterable[IdRange], *, after: int = 0) -> IdRange:
    """The next free range of a pool, in turn: files of a container that is gone may lie somewhere yet."""
    used = sorted(taken, key=lambda ids: ids.first)
    starts = range(pool.first, pool.first + pool.count - COUNT + 1, COUNT)
    later = [first for first in starts if first > after]
    for first in (*later, *starts[: len(starts) - len(later)]):
        if not any(ids.first < first + COUNT and first < ids.first + ids.count for ids in used):
            return IdRange(first=first, count=COUNT)
    raise Conflict(
        f"no ids are left for another container: all {len(starts)} ranges from {pool.first} on are in use",
        hint="remove containers, or give a larger size under [userns] in agent.toml",
    )


def host_ids(etc: Path) -> Iterator[IdRange]:
    """Ids that mean somebody on this host."""
    for name, first, count in (("passwd", 2, None), ("group", 2, None), ("subuid", 1, 2), ("subgid", 1, 2)):
        with contextlib.suppress(FileNotFoundError):
            for line in (etc / name).read_text(errors="replace").splitlines():
                fields = line.split(":")
                with contextlib.suppress(ValueError, IndexError):  # a comment, an entry of NIS
                    yield IdRange(first=int(fields[first]), count=1 if count is None else int(fields[count]))


def probe(directory: str) -> None:
    """Raises HostRefused where no container can have ids of its own, with its layers below `directory`."""
    userns_fd = userns.create(IdRange(first=1, count=1))

    def stack() -> int:
        apart.own_mounts()
        userns.show_mapped([directory], userns_fd)
        with userns.stacking():
            return mount.new("overlay", options=(f"lowerdir={directory}:/usr",))

    try:
        os.close(apart.in_thread(stack))
    finally:
        os.close(userns_fd)


def forget(containers: Path, claims: Path = _CLAIMS) -> None:
    """Take away the links of an agent that is removed."""
    if claims.is_dir():
        with _lock(claims):
            for link in claims.iterdir():
                if link.is_symlink() and Path(os.readlink(link)).parent == containers:
                    link.unlink()
            _remove_if_empty(claims)


@contextlib.contextmanager
def _lock(claims: Path) -> Iterator[None]:
    """The directory, which is made when it is not there, and nobody else's meanwhile."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(claims, 0o700)
        try:
            fd = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody has removed it in between
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(claims)):
                break
        os.close(fd)  # removed after it was opened
    try:
        yield
    finally:
        os.close(fd)


def _remove_if_empty(claims: Path) -> None:
    with contextlib.suppress(OSError):
        claims.rmdir()


def _owner(link: Path) -> Path | None:
    """The directory of the container that has it; None when that is gone, and not about to be made."""
    try:
        target = Path(os.readlink(link))
    except FileNotFoundError:
        return None
    fresh = target.with_name(f".new-{target.name}")  # as `Paths.new_container`
    return target if target.is_dir() or fresh.is_dir() else None
