"""What every step of one build shares."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hawse_agent.build.cache import BuildCache
from hawse_agent.build.context import Context
from hawse_agent.build.draft import Draft
from hawse_agent.build.mountcache import MountCaches
from hawse_agent.build.options import BuildOptions
from hawse_agent.engine.building.stopping import Stopping
from hawse_agent.engine.containers import Containers
from hawse_agent.engine.images import Images
from hawse_agent.failpoints import reach
from hawse_agent.images.hold import Hold
from hawse_agent.images.image import Image, Layer
from hawse_agent.linux import tree
from hawse_agent.paths import Paths
from hawse_agent.runtime import view

Tell = Callable[[dict[str, Any]], None]
"""A message of Docker's, to whoever waits for the build."""


@dataclass(frozen=True, kw_only=True)
class Building:
    options: BuildOptions
    context: Context
    scratch: Path
    """A private directory on the store's file system, which goes with the build."""
    hold: Hold
    cache: BuildCache
    mount_caches: MountCaches
    paths: Paths
    images: Images
    containers: Containers
    stopping: Stopping
    tell: Tell
    cache_images: tuple[Image, ...] = ()
    """Held ones, whose steps count as cached."""
    closing: ExitStack
    """What is opened until the build ends."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def say(self, text: str) -> None:
        self.tell({"stream": text})

    def directory(self) -> Path:
        """A new one, empty."""
        path = self.scratch / str(next(self._numbers))
        path.mkdir(mode=0o755)
        return path

    def layer_dirs(self, draft: Draft) -> tuple[Path, ...]:
        """Topmost first."""
        return self.images.layer_dirs(draft.image())

    @contextmanager
    def looking_into(self, draft: Draft) -> Iterator[int]:
        """The root of what a stage or image has, opened to read."""
        home = self.directory()
        layers = tuple(map(str, self.layer_dirs(draft)))
        root = view.image(view.Stack(home=str(home), layers=layers))
        try:
            yield root
        finally:
            os.close(root)
            tree.remove(home)

    @contextmanager
    def writing(self, draft: Draft | None, home: Path) -> Iterator[int]:
        """Its root, opened to write; without a draft, of nothing. What is written is in `upper` of the empty
        directory `home` afterwards."""
        upper, work = home / "upper", home / "work"
        for directory in (upper, work):
            directory.mkdir(mode=0o755)
        if draft is None or not draft.layers:
            root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            layers = tuple(map(str, self.layer_dirs(draft)))
            view.look_alike(layers[0], str(upper))
            root = view.stopped_to_write(view.Stack(home=str(home), layers=layers))
        try:
            yield root
        finally:
            os.close(root)

    def layer(self, upper: Path) -> Layer | None:
        """Of what was written; None if that is nothing. The directory is gone afterwards."""
        if not os.listdir(upper):
            return None
        reach("build: layer")
        return self.images.store.add_layer(upper, self.hold, take=True)
