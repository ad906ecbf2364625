"""Directories that outlive a build: what `RUN --mount=type=cache` mounts.

caches/<hex>/data       the directory, `<hex>` of its id and number
caches/<hex>/about      JSON: id, when it was made and used

shared    several steps use it at a time
locked    one after the other
private   a step that finds it in use gets another one
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hawse_agent.build.cache import Usage
from hawse_agent.failpoints import reach
from hawse_agent.linux import files, tree
from hawse_agent.spec import codec

Sharing = Literal["shared", "private", "locked"]


@dataclass(frozen=True, kw_only=True)
class _About:
    id: str
    made: float
    used: float = 0.0
    uses: int = 0


class MountCaches:
    """One per daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._freed = threading.Condition()
        self._users: Counter[str] = Counter()
        """By hex."""
        self._sizes: dict[str, int] = {}
        """As they were measured last, of those that nobody has used since."""

    @contextmanager
    def using(
        self, identity: str, sharing: Sharing, fill: Callable[[Path], None], *, check: Callable[[], None]
    ) -> Iterator[Path]:
        """A directory, made by `fill` where there was none. `check` is asked again and again while it is
        waited for, and raises when nobody waits any more."""
        name = self._take(identity, sharing, check)
        try:
            path = self._directory / name
            if not path.exists():
                self._make(path, identity, fill)
            _note(path)
            yield path / "data"
        finally:
            with self._freed:
                self._sizes.pop(name, None)
                self._users[name] -= 1
                self._freed.notify_all()

    def usage(self, *, exact: bool = True) -> Sequence[Usage]:
        """`exact`: measured now, though nobody has used them since they were measured."""
        found = []
        for path in self._there():
            about = _read(path)
            if exact or path.name not in self._sizes:
                self._sizes[path.name] = files.disk_usage(path / "data")
            found.append(
                Usage(
                    id=path.name,
                    kind="exec.cachemount",
                    description=f"cache mount {about.id}",
                    size=self._sizes[path.name],
                    made=about.made,
                    used=about.used,
                    uses=about.uses,
                    in_use=self._users[path.name] > 0,
                )
            )
        return found

    def remove(self, ids: Iterable[str]) -> None:
        """Those that nobody uses."""
        for one in ids:
            with self._freed:
                if self._users[one] or not (self._directory / one).exists():
                    continue
                grave = self._directory / f".gone-{one}"
                os.rename(self._directory / one, grave)
            tree.remove(grave)

    def sweep(self) -> None:
        """What a crash has left half made or half removed."""
        self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        for path in self._directory.glob(".*"):
            tree.remove(path)

    def _take(self, identity: str, sharing: Sharing, check: Callable[[], None]) -> str:
        number = 0
        with self._freed:
            while True:
                name = hashlib.sha256(f"{identity}\0{number}".encode()).hexdigest()
                if sharing == "shared" or not self._users[name]:
                    self._users[name] += 1
                    return name
                if sharing == "private":
                    number += 1
                    continue
                self._freed.wait(1.0)
                check()

    def _make(self, path: Path, identity: str, fill: Callable[[Path], None]) -> None:
        fresh = path.with_name(f".new-{path.name}")
        with self._freed:
            if path.exists():
                return
            try:
                (fresh / "data").mkdir(mode=0o755, parents=True)
                fill(fresh / "data")
                reach("build: cache mount")
                _write(fresh, _About(id=identity, made=time.time()))
                os.rename(fresh, path)
            except BaseException:
                tree.remove(fresh)
                raise

    def _there(self) -> list[Path]:
        return sorted(path for path in self._directory.iterdir() if not path.name.startswith("."))


def _note(path: Path) -> None:
    about = _read(path)
    _write(path, replace(about, used=time.time(), uses=about.uses + 1))


def _read(path: Path) -> _About:
    return codec.loads(_About, (path / "about").read_bytes())


def _write(path: Path, about: _About) -> None:
    fresh = path / "about.new"
    fresh.write_text(codec.dumps(about))
    os.rename(fresh, path / "about")
