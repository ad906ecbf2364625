"""Files of a container through an agent: what is at a path, its archive, and an archive to unpack there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from hawse.fleet.client import LONG, AgentClient, container_path
from hawse_agent.errors import NotFound, ProtocolError

_HEADER = "x-docker-container-path-stat"
# Bits of Go's os.FileMode.
_DIRECTORY, _LINK, _SPECIAL = 1 << 31, 1 << 27, 1 << 26 | 1 << 21 | 1 << 19


@dataclass(frozen=True, kw_only=True)
class FileStat:
    name: str
    size: int
    mode: int
    link_target: str = ""

    @property
    def is_directory(self) -> bool:
        return bool(self.mode & _DIRECTORY)

    @property
    def is_link(self) -> bool:
        return bool(self.mode & _LINK)

    @property
    def is_special(self) -> bool:
        """A device, or of a kind that has no name."""
        return bool(self.mode & _SPECIAL)


def look(agent: AgentClient, container: str, path: str) -> FileStat | None:
    """What is there, a link itself; None for nothing."""
    try:
        with agent.open("HEAD", _archive(container), query={"path": path}) as response:
            return _stat(response.headers)
    except NotFound:
        return None


@contextmanager
def read(agent: AgentClient, container: str, path: str) -> Iterator[tuple[FileStat, Iterator[bytes]]]:
    """What is there, and its archive."""
    with agent.open("GET", _archive(container), query={"path": path}, timeout=LONG) as response:
        yield _stat(response.headers), response.chunks()


def write(
    agent: AgentClient, container: str, directory: str, pieces: Iterable[bytes], *, owners: bool
) -> None:
    """Unpacks an archive; `owners`: what it brings belongs to the container's user."""
    query: dict[str, str | int | bool] = {"path": directory, "noOverwriteDirNonDir": True}
    if owners:
        query["copyUIDGID"] = True
    headers = {"Content-Type": "application/x-tar"}
    agent.request("PUT", _archive(container), query=query, body=pieces, headers=headers, timeout=LONG)


@contextmanager
def export(agent: AgentClient, container: str) -> Iterator[Iterator[bytes]]:
    """All files of a container as one tar."""
    with agent.open("GET", f"{container_path(container)}/export", timeout=LONG) as response:
        yield response.chunks()


def _archive(container: str) -> str:
    return f"{container_path(container)}/archive"


def _stat(headers: Mapping[str, str]) -> FileStat:
    text = headers.get(_HEADER, "")
    try:
        said = json.loads(base64.b64decode(text))
        return FileStat(
            name=str(said["name"]),
            size=int(said["size"]),
            mode=int(said["mode"]),
            link_target=str(said.get("linkTarget") or ""),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"an archive without what it is of: {text[:80]!r}") from error
