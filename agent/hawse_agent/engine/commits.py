"""`commit`: a container's writable layer and configuration as a new image.

What is read is the overlay's upper directory, so volumes, binds and tmpfs are not in it, and owners are as
the container sees them, whoever it is on the host. Meanwhile nobody starts, stops or removes the container.
One that runs is paused, unless it shall not be; a mark in its directory tells the next daemon to let it go
on, should this one be killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hawse_agent.distribution import reference
from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers import Containers
from hawse_agent.engine.effective import config_of
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.images import Images
from hawse_agent.errors import Conflict
from hawse_agent.failpoints import reach
from hawse_agent.images.changes import apply_changes
from hawse_agent.images.image import Layer
from hawse_agent.images.store import Image
from hawse_agent.paths import Paths
from hawse_agent.spec.records import ContainerRecord

_UNION = ("ExposedPorts", "Volumes", "Labels")
_PAUSED_TO_COMMIT = "committing"


@dataclass(frozen=True, kw_only=True)
class CommitWish:
    container: str
    name: str = ""
    """Of the image, with its tag; "": it gets none."""
    author: str = ""
    comment: str = ""
    pause: bool = True
    changes: Sequence[str] = ()
    """Instructions of a Dockerfile."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Docker's `Config`: what it says goes before what the container has."""


class Commits:
    def __init__(self, *, paths: Paths, containers: Containers, images: Images, events: EventBus) -> None:
        self._paths = paths
        self._containers = containers
        self._images = images
        self._announce = Announcer(events)

    def commit(self, wish: CommitWish) -> Image:
        """Raises NotFound, InputError for a change that cannot be, Conflict for a container that goes."""
        name = reference.canonical(wish.name) if wish.name else ""
        record = self._containers.record(wish.container)
        parent = self._images.get(record.image_id)
        config = config_of(record.spec, parent)
        config = apply_changes(_merged(wish.config, config) if wish.config else config, wish.changes)
        with self._images.store.hold() as hold:
            with self._at_rest(record, pause=wish.pause):
                upper = self._paths.container(record.id) / "upper"
                layer = None
                if not _is_unchanged(upper, self._images.layer_dirs(parent)[0]):
                    reach("commit: layer")
                    layer = self._images.store.add_layer(upper, hold)
            document = _document(parent, config, layer, _step(wish, config_of(record.spec, parent)))
            blobs = [kept.blob for kept in (*parent.layers, *([layer] if layer else ()))]
            reach("commit: image")
            image = self._images.store.create(document, blobs, parent=parent.id)
            if name:
                reach("commit: name")
                self._images.tag(image.id, name)
        self._announce.container(
            "commit",
            record,
            comment=wish.comment,
            imageID=image.id,
            imageRef=reference.familiar(name) if name else "",
        )
        return self._images.get(image.id)

    def recover(self) -> None:
        """Containers that were paused for a commit when the daemon was killed go on."""
        for view in self._containers.list():
            mark = self._mark(view.record)
            if mark.exists():
                with contextlib.suppress(Conflict):  # it has ended, or does not pause any more
                    self._containers.unpause(view.id)
                mark.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _at_rest(self, record: ContainerRecord, *, pause: bool) -> Iterator[None]:
        with self._containers.holding([record.id]):
            state = self._containers.get(record.id).state
            if record.removing or state.status == "dead":
                raise Conflict(f"You cannot commit container {record.id} which is being removed")
            if not (pause and state.status == "running"):
                yield
                return
            mark = self._mark(record)
            mark.touch(mode=0o600)
            try:
                reach("commit: pause")
                with contextlib.ExitStack() as paused:
                    try:
                        self._containers.pause(record.id)
                    except Conflict:  # it has just ended
                        pass
                    else:
                        paused.callback(self._unpause, record.id)
                    yield
            finally:
                mark.unlink(missing_ok=True)

    def _unpause(self, container_id: str) -> None:
        with contextlib.suppress(Conflict):  # killed while it was paused
            self._containers.unpause(container_id)

    def _mark(self, record: ContainerRecord) -> Path:
        return self._paths.container(record.id) / _PAUSED_TO_COMMIT


def _is_unchanged(upper: Path, topmost: Path) -> bool:
    """Nothing was written, and the root has the image's owner and mode."""
    if os.listdir(upper):
        return False
    one, other = upper.stat(), topmost.stat()
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid) or (
        (one.st_mode, one.st_uid, one.st_gid) == (stat.S_IFDIR | 0o755, 0, 0)  # it was never started
    )


def _merged(asked: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, and the container's where nothing is."""
    result = {key: value for key, value in asked.items() if value not in (None, "", [], {})}
    for key, value in own.items():
        if key in _UNION and isinstance(result.get(key), dict):
            result[key] = {**value, **result[key]}
        elif key == "Env" and isinstance(result.get(key), list):
            names = {str(entry).partition("=")[0] for entry in result[key]}
            result[key] += [entry for entry in value if entry.partition("=")[0] not in names]
        elif key == "Cmd" and "Entrypoint" in result:
            continue  # another entrypoint does without the old one's words
        else:
            result.setdefault(key, value)
    return result


def _step(wish: CommitWish, own: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "created": _now(),
        "created_by": " ".join(own.get("Cmd") or ()),
        **({"author": wish.author} if wish.author else {}),
        **({"comment": wish.comment} if wish.comment else {}),
    }


def _document(
    parent: Image, config: Mapping[str, Any], layer: Layer | None, step: Mapping[str, Any]
) -> bytes:
    before = json.loads(parent.raw)
    document = {
        **{key: before[key] for key in ("architecture", "variant", "os") if before.get(key)},
        "created": step["created"],
        **{key: step[key] for key in ("author", "comment") if key in step},
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [*parent.diff_ids, *([layer.diff_id] if layer is not None else [])],
        },
        "history": [
            *(before.get("history") or ()),
            {**step, **({"empty_layer": True} if layer is None else {})},
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _now() -> str:
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
