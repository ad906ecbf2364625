"""Images that nobody uses any more, removed by themselves: only where agent.toml says so, and said aloud.

    unused_hours       how long no container must have had an image
    min_free_percent   below that much free disk, those that were used longest ago go, until there is more

An image is used while a container has it, and when one is made of it or removed. One that containers have or
that others were made from stays, whatever the settings say.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from hawse_agent.engine.images import Images
from hawse_agent.engine.settings import ImagesSettings
from hawse_agent.errors import HawseError
from hawse_agent.images.store import Image
from hawse_agent.paths import Paths

PERIOD = 600.0
"""Seconds between two looks."""


class Collector:
    def __init__(
        self,
        *,
        images: Images,
        settings: ImagesSettings,
        paths: Paths,
        free: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`free` is the free part of the disk, 0 to 1."""
        self._images = images
        self._settings = settings
        self._free = free or (lambda: _free(paths))
        self._clock = clock
        self._stopping = threading.Event()

    def start(self) -> None:
        """In the background from now on; nothing when no setting asks for it."""
        if self._settings.collects:
            threading.Thread(target=self._run, name="collector", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def collect(self) -> list[str]:
        """One look; what was done, in words."""
        self._images.touch_used()
        return [*self._by_age(), *self._by_room()]

    def _by_age(self) -> Iterator[str]:
        hours = self._settings.unused_hours
        if not hours:
            return
        for image in self._unused():
            unused = self._clock() - self._images.last_used(image)
            if unused >= hours * 3600:
                yield from self._remove(image, f"nobody has used it for {_told(unused)}")

    def _by_room(self) -> Iterator[str]:
        wanted = self._settings.min_free_percent / 100
        for image in self._unused() if wanted else ():
            free = self._free()
            if free >= wanted:
                return
            yield from self._remove(image, f"{free:.0%} of the disk were free, {wanted:.0%} shall be")

    def _unused(self) -> list[Image]:
        """Those without a name first, then by their last use."""
        images = [image for image in self._images.list() if not self._images.users(image.id)]
        return sorted(images, key=lambda image: (bool(image.repo_tags), self._images.last_used(image)))

    def _remove(self, image: Image, why: str) -> Iterator[str]:
        pruned = self._images.prune(every=True, wanted=lambda other: other.id == image.id)
        if pruned.removed:
            name = " ".join(image.repo_tags) or "<none>"
            yield f"image {name} ({image.id[7:19]}) removed, {pruned.reclaimed >> 20} MB: {why}"

    def _run(self) -> None:
        while True:
            try:
                for line in self.collect():
                    print(f"hawse-agent: {line}", file=sys.stderr, flush=True)
            except (HawseError, OSError) as error:  # the next look tries again
                print(f"hawse-agent: images are not collected: {error}", file=sys.stderr, flush=True)
            if self._stopping.wait(PERIOD):
                return


def _free(paths: Paths) -> float:
    status = os.statvfs(paths.layers)
    return status.f_bavail / max(1, status.f_blocks)


def _told(seconds: float) -> str:
    hours = int(seconds // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
