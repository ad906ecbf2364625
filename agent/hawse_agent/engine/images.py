"""Images as the engine offers them: the store, who uses what, and events."""

from __future__ import annotations

import builtins
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hawse_agent.distribution import reference
from hawse_agent.distribution.cancel import Cancel
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.reference import Reference
from hawse_agent.distribution.registry import Client
from hawse_agent.engine.events import EventBus
from hawse_agent.errors import NotFound
from hawse_agent.images import archive, loading
from hawse_agent.images.image import Layer
from hawse_agent.images.pull import Pulls
from hawse_agent.images.push import Pushes
from hawse_agent.images.store import Image, ImageStore, Pruned
from hawse_agent.spec.records import ContainerRecord

Progress = Callable[[dict[str, Any]], None]


class Images:
    """Any number may add, name and remove images at a time: the store knows what each of them needs."""

    def __init__(
        self,
        *,
        store: ImageStore,
        registries: Client,
        events: EventBus,
        containers: Callable[[], Iterable[ContainerRecord]],
    ) -> None:
        self.store = store
        self._pulls = Pulls(registries, store)
        self._pushes = Pushes(registries, store)
        self.is_running: Callable[[str], bool] = lambda container: False
        """Of a container, once the engine has them."""
        self._events = events
        self._containers = containers
        self._lending = threading.Lock()
        self._lent: dict[str, Image] = {}
        self._borrowers: Counter[str] = Counter()

    def get(self, name: str) -> Image:
        """By reference, id or unique id prefix; raises NotFound."""
        try:
            return self.store.get(name)
        except NotFound:
            if (lent := self._lent.get(name)) is None:
                raise
            return lent

    @contextmanager
    def lent(self, image: Image) -> Iterator[None]:
        """While the block runs, containers can be made of an image that the store need not have, by its id:
        what a build has come to. Its layers must be held. If the store has it, as before the first step, that
        one is given out, which has names."""
        with self._lending:
            self._lent[image.id] = image
            self._borrowers[image.id] += 1
        try:
            yield
        finally:
            with self._lending:
                self._borrowers[image.id] -= 1
                if not self._borrowers[image.id]:
                    del self._lent[image.id]

    @contextmanager
    def using(self, name: str) -> Iterator[Image]:
        """The image, which nobody removes while the block runs; raises NotFound."""
        with ExitStack() as stack:
            try:
                image = stack.enter_context(self.store.using(name))
            except NotFound:
                if (lent := self._lent.get(name)) is None:
                    raise
                image = lent
            yield image

    def list(self) -> Sequence[Image]:
        return self.store.list()

    def ancestors(self, image: Image) -> Sequence[Image]:
        """The images that it was made from on this host, the nearest first."""
        by_id = {other.id: other for other in self.store.list()}
        found: builtins.list[Image] = []
        while (parent := by_id.pop(image.parent, None)) is not None:
            found.append(image := parent)
        return found

    def layer_dirs(self, image: Image) -> tuple[Path, ...]:
        """Topmost first."""
        return self.store.layer_dirs(image)

    def by_reference(self) -> dict[str, str]:
        """Reference → image id, in canonical and in familiar form."""
        found = {}
        for image in self.store.list():
            for tag in image.repo_tags:
                found[reference.canonical(tag)] = image.id
                found[reference.familiar(tag)] = image.id
        return found

    # adding

    def commit_manifest(self, digest: str, references: Iterable[str]) -> Image:
        """Make an image of blobs that were sent; raises NotFound for a blob that is missing."""
        image = self.store.commit_manifest(digest, list(references))
        self._published("load", image)
        return image

    def load(self, stream: BinaryIO) -> Sequence[str]:
        """`docker load`: returns the lines to show."""
        images = loading.load(stream, self.store)
        for image in images:
            self._published("load", image)
        return [loading.told(image) for image in images]

    def add(self, config: bytes, layers: Iterable[Layer], *, parent: str = "") -> Image:
        """Of layers that are held."""
        return self.store.create(config, [layer.blob for layer in layers], parent=parent)

    def import_tarball(
        self, stream: BinaryIO, ref: str, changes: Iterable[str] = (), message: str = ""
    ) -> Image:
        image = archive.import_tarball(stream, self.store, ref, list(changes), message)
        self._published("import", image)
        return image

    # registries

    def pull(
        self,
        ref: str,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        platform: str = "",
        cancel: Cancel | None = None,
    ) -> Image:
        """`platform`: another than this host's, which nothing runs here. See `Pulls.pull`."""
        name = reference.parse(ref)
        image = self._pulls.pull(name, progress, credentials, platform=platform, cancel=cancel)
        self._exchanged("pull", name.familiar, name, image)
        return image

    def pull_all(
        self,
        ref: str,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        platform: str = "",
        cancel: Cancel | None = None,
    ) -> None:
        """Every tag that the registry has of a repository."""
        name = reference.parse(ref)
        for image in self._pulls.pull_all(name, progress, credentials, platform=platform, cancel=cancel):
            self._exchanged("pull", name.familiar_name, name, image)

    def push(
        self,
        name: Reference,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        cancel: Cancel | None = None,
    ) -> None:
        image = self._pushes.push(name, progress, credentials, cancel=cancel).image
        self._exchanged("push", name.familiar, name, image)

    def push_all(
        self,
        name: Reference,
        progress: Progress,
        credentials: Credentials = NOBODY,
        *,
        cancel: Cancel | None = None,
    ) -> None:
        """Every tag of a repository that is here."""
        for pushed in self._pushes.push_all(name, progress, credentials, cancel=cancel):
            self._exchanged("push", name.familiar_name, name, pushed.image)

    def _exchanged(self, action: str, shown: str, name: Reference, image: Image) -> None:
        attributes = {**image.config.labels, "name": name.familiar_name}
        self._events.publish("image", action, shown, attributes)

    # archives

    def save(self, names: Iterable[str]) -> Iterator[bytes]:
        return archive.save(self.store, list(names))

    # naming and removing

    def tag(self, name: str, ref: str) -> None:
        image = self.store.get(name)
        self.store.tag(image.id, ref)
        self._published("tag", image, reference.familiar(ref))

    def remove(self, name: str, *, force: bool = False, parents: bool = True) -> Sequence[dict[str, str]]:
        """`[{"Untagged": …}, {"Deleted": …}]`; raises Conflict while a container uses it."""
        image = self.store.get(name)
        removed = self.store.remove(
            name, force=force, parents=parents, in_use=self.users, running=self.is_running
        )
        for entry in removed:
            if "Untagged" in entry:
                self._published("untag", image)
            elif entry["Deleted"] == image.id:
                self._published("delete", image)
        return removed

    def prune(self, *, every: bool, wanted: Callable[[Image], bool] = lambda image: True) -> Pruned:
        """Remove unused images without a name, or `every` unused one."""
        known = {image.id: image for image in self.store.list()}
        pruned = self.store.prune(in_use=self.users, every=every, wanted=wanted)
        for entry in pruned.removed:
            if entry.get("Deleted") in known:
                self._published("delete", known[entry["Deleted"]])
        return pruned

    def last_used(self, image: Image) -> float:
        """When a container was made of it or removed, or it came."""
        return self.store.last_used(image.id)

    def touch_used(self) -> None:
        """Those that containers have are used now."""
        for image_id in {record.image_id for record in self._containers()}:
            self.store.touch(image_id)

    def touch(self, image_id: str) -> None:
        """A container of it has gone."""
        self.store.touch(image_id)

    def disk_usage(self) -> int:
        """Bytes that all images take on the disk, what they share counted once: as du counts."""
        layers = [layer for image in self.store.list() for layer in image.layers]
        return self.store.disk_usage(layers) + self.store.documents_usage()

    def users(self, image_id: str) -> builtins.list[str]:
        """Ids of the containers made from this image."""
        return [record.id for record in self._containers() if record.image_id == image_id]

    def _published(self, action: str, image: Image, name: str = "") -> None:
        self._events.publish("image", action, image.id, {**image.config.labels, "name": name or image.id})
