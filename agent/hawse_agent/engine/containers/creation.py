"""Making containers, and what changes of their records while they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hawse_agent.engine import checks, names, recordcopy, resolve
from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers.files import Files, remove_tree
from hawse_agent.engine.containers.sharing import Sharing
from hawse_agent.engine.images import Images
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.register import Register
from hawse_agent.engine.state import State
from hawse_agent.engine.views import ContainerState, ContainerView
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import Conflict
from hawse_agent.failpoints import reach
from hawse_agent.images.store import Image
from hawse_agent.linux import seccomp
from hawse_agent.paths import Paths
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.records import ContainerRecord


class Creation:
    def __init__(
        self,
        *,
        paths: Paths,
        state: State,
        register: Register,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        sharing: Sharing,
        files: Files,
        announce: Announcer,
    ) -> None:
        self._paths = paths
        self._state = state
        self._register = register
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._sharing = sharing
        self._files = files
        self._announce = announce

    def create(
        self, spec: ContainerSpec, *, inherit: Mapping[str, str] | None = None, of_build: bool = False
    ) -> ContainerView:
        """Raises NotFound for the image or network, InputError for a bind source, Conflict for the name.

        `inherit` maps mount targets to anonymous volumes of a predecessor, which the new one takes over.
        """
        container_id = names.new_id()
        with (
            self._images.using(spec.image) as image,
            self._register.holding_name(spec.name, container_id) as name,
        ):
            return self._create(container_id, replace(spec, name=name), image, inherit or {}, of_build)

    def _create(
        self,
        container_id: str,
        spec: ContainerSpec,
        image: Image,
        inherit: Mapping[str, str],
        of_build: bool,
    ) -> ContainerView:
        checks.check(spec)
        resolve.check_platform(spec, image)
        resolve.command_line(spec, image)
        seccomp.check(spec.seccomp)
        resolve.signal_number(spec.stop_signal)
        self._networks.check(spec)
        spec = self._sharing.pinned(spec)
        own_ids = self._sharing.has_own_ids(spec)
        lent = self._volumes.inherited(spec, self._register.record)
        mounted, anonymous = self._volumes.plan(spec, image, lent, inherit)
        record = ContainerRecord(
            id=container_id,
            spec=spec,
            image_id=image.id,
            created=time.time(),
            volumes=mounted,
            anonymous=anonymous,
            inherited=lent,
            of_build=of_build,
        )
        fresh, recorded = self._paths.new_container(container_id), False
        try:
            reach("create: directory")
            self._files.make_directory(record, fresh)
            reach("create: volumes")
            self._volumes.make(record)
            reach("create: populate")
            self._volumes.populate(record, self._images.layer_dirs(image))
            reach("create: ids")
            if own_ids:
                record = replace(record, ids=self._sharing.find_ids(record))
            reach("create: copy")
            recordcopy.keep(record, fresh / self._paths.record_copy(record.id).name)
            reach("create: record")
            self._state.add_container(record)
            recorded = True
            reach("create: rename")
            fresh.rename(self._paths.container(container_id))
        except BaseException:
            if recorded:
                self._state.delete_container(container_id)
            self._sharing.give_back_ids(record)
            self._volumes.discard(anonymous)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        live = self._register.add(record, ContainerState())
        self._announce.container("create", record)
        return ContainerView(record=record, state=live.state)

    def rename(self, reference: str, new_name: str) -> None:
        record, live = self._register.find(reference)
        new_name = names.check_name(new_name)
        with live.lock:
            old_name = self._register.record(record.id).spec.name  # as it is now that nobody else changes it
            if new_name == old_name:
                raise Conflict("Renaming a container with the same name as its current name")
            try:
                self._register.check_name_free(new_name)
                record = self._register.rewrite(
                    record.id, lambda now: replace(now, spec=replace(now.spec, name=new_name))
                )
            except Conflict as error:
                raise error.at("Error when allocating new name") from None
        self._networks.renamed(record, old_name)
        self._announce.container("rename", record, oldName=f"/{old_name}")

    @contextlib.contextmanager
    def holding(self, ids: Sequence[str]) -> Iterator[None]:
        """Nobody else starts, stops or removes these containers meanwhile."""
        with contextlib.ExitStack() as stack:
            for container_id in sorted(ids):
                if (known := self._register.known(container_id)) is not None:
                    stack.enter_context(known[1].lock)
            yield

    def take_written(self, reference: str, target: Path) -> None:
        """Move what a container has written over its image to `target`, on the same file system: it has
        ended, and is of no use afterwards."""
        record, live = self._register.find(reference)
        with live.lock:
            if live.state.running:
                raise Conflict(f"container {record.id} is running")
            os.rename(self._paths.container(record.id) / "upper", target)

    def finish_creations(self, recorded: set[str]) -> None:
        """A container is made when it is recorded; what a killed daemon had only begun with is removed."""
        for directory in self._paths.containers.glob(".new-*"):
            container_id = directory.name.removeprefix(".new-")
            if container_id in recorded:
                directory.rename(self._paths.container(container_id))
                continue
            begun = recordcopy.read(directory / self._paths.record_copy(container_id).name)
            if begun is not None:
                self._volumes.discard(begun.anonymous)
            remove_tree(directory)
