"""Builds of Dockerfiles: context in, image out; and the cache that they share.

    receive the context ─► parse ─► plan stages ─► check sources      nothing is built before all this is
    right ─► each needed stage: FROM, then step by step, from the cache or carried out
      ─► an image of the last stage, its names

A build holds the layers that it uses, so that neither `rmi` nor a prune takes them away meanwhile; its files
lie in a private directory that goes with it, or at the daemon's next start.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hawse_agent.build import context as contexts
from hawse_agent.build import draft as drafts
from hawse_agent.build import secrets
from hawse_agent.build.cache import BuildCache, Table, Usage, to_remove
from hawse_agent.build.context import Context
from hawse_agent.build.draft import Begun, Draft
from hawse_agent.build.instructions import Dockerfile
from hawse_agent.build.mountcache import MountCaches
from hawse_agent.build.options import BuildOptions
from hawse_agent.build.parser import parse
from hawse_agent.build.scope import Scope
from hawse_agent.build.sources import check_sources
from hawse_agent.build.stages import SCRATCH, Plan, PlannedStage, normal_platform, plan
from hawse_agent.distribution import manifest, reference
from hawse_agent.distribution.cancel import Cancel
from hawse_agent.engine.building.stage import Counter, Finished, StageBuilder, telling
from hawse_agent.engine.building.stopping import Stopping
from hawse_agent.engine.building.surroundings import Building, Tell
from hawse_agent.engine.containers import Containers
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.images import Images
from hawse_agent.engine.settings import BuildSettings
from hawse_agent.errors import HawseError, InputError, NotFound, NotSupported
from hawse_agent.failpoints import reach
from hawse_agent.images.blobs import disk
from hawse_agent.images.compression import Readable
from hawse_agent.images.hold import Hold
from hawse_agent.images.image import Image
from hawse_agent.images.tarball import TarWriter, gathered
from hawse_agent.linux import files, tree
from hawse_agent.paths import Paths
from hawse_agent.runtime import view

_PATIENCE = 10.0
"""Seconds that a daemon which leaves waits for its builds to end."""


@dataclass(frozen=True, kw_only=True)
class PrunedCache:
    removed: Sequence[str]
    reclaimed: int


class Builds:
    def __init__(
        self,
        *,
        paths: Paths,
        settings: BuildSettings,
        table: Table,
        images: Images,
        containers: Containers,
        events: EventBus,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._images = images
        self._containers = containers
        self._events = events
        self._cache = BuildCache(table, images.store)
        self._mount_caches = MountCaches(paths.build_caches)
        self._under_way: dict[Stopping, str] = {}
        """With what `cancel` may call it."""
        self._over = threading.Condition()

    def recover(self) -> None:
        """What a killed daemon has left."""
        secrets.sweep(self._paths)
        self._mount_caches.sweep()

    def close(self) -> None:
        """Ends the builds that are under way: nobody would be there to go on with them."""
        with self._over:
            stoppings = list(self._under_way)
        for stopping in stoppings:
            stopping.stop()
        with self._over:
            self._over.wait_for(lambda: not self._under_way, _PATIENCE)
        self._cache.save(every=True)

    def build(self, options: BuildOptions, archive: Readable, tell: Tell, stopping: Stopping) -> str:
        """The image's id. Errors of the Dockerfile come before `tell` is called.

        Raises InputError with file and line, NotSupported, RunFailed, BuildStopped, NotFound for an image.
        """
        for tag in options.tags:
            reference.parse(tag)
        _check_platform(options.platform)
        before = self._cache.changes
        try:
            return self._build(options, archive, tell, stopping)
        finally:
            if self._cache.changes != before:
                self._tidy()

    def _build(self, options: BuildOptions, archive: Readable, tell: Tell, stopping: Stopping) -> str:
        with disk("build"), ExitStack() as stack:
            scratch = stack.enter_context(self._scratch())
            reach("build: context")
            context = stack.enter_context(contexts.received(archive, _own_place(scratch)))
            name, text = context.dockerfile(options.dockerfile)
            dockerfile = parse(text, file=name)
            planned = plan(
                dockerfile, target=options.target, given=options.arguments, platform=options.platform
            )
            context.drop_ignored(name)
            self._check(planned, context)
            hold = stack.enter_context(self._images.store.hold())
            building = Building(
                options=options,
                context=context,
                scratch=scratch,
                hold=hold,
                cache=self._cache,
                mount_caches=self._mount_caches,
                paths=self._paths,
                images=self._images,
                containers=self._containers,
                stopping=stopping,
                tell=tell,
                cache_images=self._cache_images(options, hold),
                closing=stack,
            )
            stack.callback(self._cache.save)
            reach("build: begin")
            return _Build(self._images, building, dockerfile, planned).run()

    def _cache_images(self, options: BuildOptions, hold: Hold) -> tuple[Image, ...]:
        """Those that are here, held."""
        found = []
        for name in options.cache_from:
            with suppress(NotFound), self._images.using(name) as image:
                for layer in image.layers:
                    hold.add_layer(layer)
                found.append(image)
        return tuple(found)

    def _check(self, planned: Plan, context: Context) -> None:
        for stage in planned.stages:
            _check_platform(stage.platform)
        environments: dict[str, Mapping[str, str]] = {}
        for stage in planned.stages:
            if isinstance(stage.base, str) and stage.base != SCRATCH:
                try:
                    image = self._images.get(stage.base)
                except NotFound:  # what it sets is known when it is pulled
                    continue
                environments[stage.base] = drafts.of_image(image).draft.variables()
        check_sources(planned, context.paths(), environments, exists=context.has)

    @contextmanager
    def cancellable(self, identity: str) -> Iterator[Stopping]:
        """The build belongs into the block. `identity` is what `cancel` may name; empty is nothing."""
        stopping = Stopping()
        with self._over:
            self._under_way[stopping] = identity
        try:
            yield stopping
        finally:
            with self._over:
                del self._under_way[stopping]
                self._over.notify_all()

    def cancel(self, identity: str) -> None:
        with self._over:
            wanted = [stopping for stopping, name in self._under_way.items() if name == identity]
        if not identity or not wanted:
            raise NotFound(f"no such build: {identity}")
        for stopping in wanted:
            stopping.stop()

    def root(self, name: str) -> Iterator[bytes]:
        """The tar of an image's root: its layers, one over the other. Raises NotFound before the first
        piece."""
        with ExitStack() as stack:
            image = stack.enter_context(self._images.using(name))
            scratch = stack.enter_context(self._scratch())
            layers = tuple(map(str, self._images.layer_dirs(image)))
            with disk("look into the image"):
                root = view.image(view.Stack(home=str(scratch), layers=layers))
            stack.callback(os.close, root)
            return _archive(root, stack.pop_all())

    # the cache

    def usage(self) -> Sequence[Usage]:
        return self._usage(exact=True)

    def _usage(self, *, exact: bool) -> Sequence[Usage]:
        of_images = (diff_id for image in self._images.list() for diff_id in image.diff_ids)
        return [*self._cache.usage(of_images, exact=exact), *self._mount_caches.usage(exact=exact)]

    def prune(
        self,
        *,
        every: bool = False,
        keep_bytes: int = 0,
        wanted: Callable[[Usage], bool] = lambda usage: True,
    ) -> PrunedCache:
        """Entries whose layers no image has, or `every` one; not more than it takes to keep `keep_bytes`."""
        going = to_remove(
            self.usage(),
            lambda usage: (every or not usage.shared) and wanted(usage),
            keep_bytes=keep_bytes,
        )
        self._remove(going)
        reclaimed = sum(usage.size for usage in going if not usage.shared)
        self._events.publish("builder", "prune", "", {"reclaimed": str(reclaimed)})
        return PrunedCache(removed=[usage.id for usage in going], reclaimed=reclaimed)

    def _tidy(self) -> None:
        """Down to what the host's owner allows."""
        usages = self._usage(exact=False)
        oldest = time.time() - self._settings.cache_days * 86400 if self._settings.cache_days else 0.0
        going = list(to_remove(usages, lambda usage: usage.used < oldest))
        if self._settings.cache_bytes:
            rest = [usage for usage in usages if usage not in going]
            going += to_remove(rest, lambda usage: True, keep_bytes=self._settings.cache_bytes)
        self._remove(going)

    def _remove(self, going: Sequence[Usage]) -> None:
        if going:
            self._cache.remove([usage.id for usage in going if usage.kind == "regular"])
            self._mount_caches.remove([usage.id for usage in going if usage.kind != "regular"])

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with disk("begin a build"):
            path = Path(tempfile.mkdtemp(dir=self._paths.incoming, prefix="build-"))
        try:
            yield path
        finally:
            # Nobody waits for it; what a daemon that leaves has not removed, the next one does.
            threading.Thread(target=tree.remove, args=(path,), name="scratch", daemon=True).start()


def _own_place(scratch: Path) -> Path:
    """A new directory for the context, never where the last one was: ext4 is slow to make files where many
    were just removed."""
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files.spread(fd)
    finally:
        os.close(fd)
    path = Path(tempfile.mkdtemp(dir=scratch, prefix="context-"))
    path.chmod(0o755)
    return path


def _archive(root: int, opened: ExitStack) -> Iterator[bytes]:
    with opened, disk("read the image"):
        yield from gathered(TarWriter([]).directory(root, b""))


class _Build:
    def __init__(self, images: Images, building: Building, dockerfile: Dockerfile, planned: Plan) -> None:
        self._images = images
        self._building = building
        self._dockerfile = dockerfile
        self._plan = planned
        self._finished: dict[int, Finished] = {}
        self._found: dict[str, Image] = {}
        """By the names that the file gives them: a name means one image in all of a build."""

    def run(self) -> str:
        building, options = self._building, self._building.options
        for warning in self._dockerfile.warnings:
            building.say(f"[Warning] {warning}\n")
        if len(building.cache_images) < len(options.cache_from):
            building.say("[Warning] Not all images of --cache-from are on this host: pull them first\n")
        steps = sum(1 + len(stage.stage.instructions) for stage in self._plan.stages)
        counter = Counter(steps + len(options.labels))
        for planned in self._plan.stages:
            self._finished[planned.index] = self._stage(planned, counter)
        if unused := self._plan.unused(self._dockerfile):
            building.say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        building.cache.save()
        image_id = self._image(self._finished[self._plan.target.index].draft)
        building.tell({"aux": {"ID": image_id}})
        building.say(f"Successfully built {image_id[7:19]}\n")
        for tag in options.tags:
            reach("build: tag")
            self._images.tag(image_id, tag)
            building.say(f"Successfully tagged {reference.familiar(tag)}\n")
        return image_id

    def _stage(self, planned: PlannedStage, counter: Counter) -> Finished:
        building = self._building
        building.stopping.check()
        with telling(building, planned, counter, planned.stage):
            begun, scope = self._begin(planned)
            building.say(f" ---> {begun.draft.id[7:19]}\n")
        builder = StageBuilder(
            building,
            planned,
            counter,
            draft=begun.draft,
            scope=scope or self._plan.scope(begun.draft.variables()),
            other=lambda name: self._other(planned, name),
        )
        last = planned.index == self._plan.target.index
        return builder.build(begun.triggers, building.options.labels if last else {})

    def _begin(self, planned: PlannedStage) -> tuple[Begun, Scope | None]:
        """With the scope of the stage that it begins with, if it is one."""
        if isinstance(planned.base, int):
            before = self._finished[planned.base]
            return drafts.of_stage(before.draft), before.scope.child()
        if planned.base == SCRATCH:
            return Begun(draft=drafts.scratch()), None
        try:
            return drafts.of_image(self._find(planned.base)), None
        except HawseError as error:
            raise error.at(str(planned.stage.place)) from None

    def _other(self, planned: PlannedStage, name: str) -> Draft:
        """A stage or image that files are taken from. Those of a trigger are images."""
        index = planned.sources.get(name)
        if index is not None:
            return self._finished[index].draft
        if name == SCRATCH:
            return drafts.scratch()
        return drafts.of_image(self._find(name)).draft

    def _find(self, name: str) -> Image:
        """Held, and pulled when it is not here or shall be looked for anew."""
        if name not in self._found:
            self._found[name] = self._held(name)
        return self._found[name]

    def _held(self, name: str) -> Image:
        building = self._building
        image = self._here(name)
        if image is None or (building.options.pull and _is_named(image, name)):
            parsed = reference.parse(name)
            credentials = building.options.keyring.get(parsed.registry)
            cancel = Cancel()
            with building.stopping.ending(cancel):
                image = self._images.pull(name, building.tell, credentials, cancel=cancel)
        for layer in image.layers:
            building.hold.add_layer(layer)
        if self._here(image.id) is None:
            raise NotFound(f"image {name} was removed while the build began")
        own = manifest.host_platform()
        if image.architecture and image.architecture != own.architecture:
            raise NotSupported(f"image {name} is for {image.architecture}: this machine is {own}")
        return image

    def _here(self, name: str) -> Image | None:
        try:
            return self._images.get(name)
        except NotFound:
            return None

    def _image(self, draft: Draft) -> str:
        """The id of the image, made unless it is there already."""
        if not draft.id:
            raise InputError("No image was generated. Is your Dockerfile empty?")
        if self._here(draft.id) is None:
            parent = draft.base.id if draft.base is not None else ""
            reach("build: image")
            self._images.add(draft.encoded(), draft.layers, parent=parent)
        return draft.id


def _is_named(image: Image, name: str) -> bool:
    """By a tag or digest that a registry may know, not by its id."""
    try:
        return reference.familiar(name) in (*image.repo_tags, *image.repo_digests)
    except InputError:
        return False


def _check_platform(text: str) -> None:
    """Raises NotSupported for another one than this machine's."""
    own = manifest.host_platform()
    if text and normal_platform(text) != normal_platform(
        f"{own.os}/{own.architecture}/{own.variant}".rstrip("/")
    ):
        raise NotSupported(f"platform {text} is not supported by hawse-agent: this machine is {own}")
