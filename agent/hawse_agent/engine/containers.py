"""The life of containers: create, start, stop, remove, and what happens when one ends by itself.

Each container has a lock of its own; nothing here waits for another container. What must survive the
daemon (restart policy, stop grace, health, log) is the shim's; this module writes down decisions, starts
shims and keeps the snapshot that readers see.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import resource
import shutil
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hawse_agent.cgroups import Base, Cgroup, Stats, Tree
from hawse_agent.engine import checks, names, recordcopy, resolve
from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.images import Images
from hawse_agent.engine.live import STOPPED, Live, Waiter
from hawse_agent.engine.networks import DEFAULT_NETWORK, Lease, Networks
from hawse_agent.engine.pending import Pending, PendingAttach, close_all
from hawse_agent.engine.register import Register
from hawse_agent.engine.settings import Settings
from hawse_agent.engine.state import State
from hawse_agent.engine.views import ContainerState, ContainerView, HealthView, state_from_shim
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import (
    Conflict,
    HawseError,
    HostRefused,
    InputError,
    NotFound,
    OutOfSpace,
    StartFailed,
)
from hawse_agent.failpoints import reach
from hawse_agent.images.store import Image
from hawse_agent.linux import files, namespace, seccomp, tree
from hawse_agent.paths import Paths
from hawse_agent.runtime.ids import Ids
from hawse_agent.runtime.view import Stack
from hawse_agent.spec import codec
from hawse_agent.spec.container import ContainerSpec, Resources, RestartPolicy
from hawse_agent.spec.records import ContainerRecord, IdRange
from hawse_agent.spec.runtime import RuntimeConfig
from hawse_agent.supervise import client as shim_client
from hawse_agent.supervise import logs as shim_logs
from hawse_agent.supervise.zygote import Zygote

ATTACH_TIMEOUT = 5.0
"""Seconds that a start waits for a client that is about to attach."""

START_TIMEOUT = 60.0
"""Seconds from the request to a running PID 1, after which the start is given up."""

END_TIMEOUT = 30.0
"""Seconds from the end of a PID 1 until its supervisor must have told of it."""

QUIET = 1.5
"""Seconds without a word from any of the shims that a fresh daemon has asked, after which it goes on."""

STUCK_TIMEOUT = 5.0
"""Seconds from SIGKILL until it is looked at why a container has not ended."""


class Containers:
    def __init__(
        self,
        *,
        paths: Paths,
        settings: Settings,
        state: State,
        zygote: Zygote,
        cgroup_base: Base,
        cgroups: Tree,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        events: EventBus,
        watcher: shim_client.Watcher,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._ids = Ids(IdRange(first=settings.userns.first, count=settings.userns.size))
        self._state = state
        self._zygote = zygote
        self._cgroup_base = codec.dumps(cgroup_base)
        self._cgroups = cgroups
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._announce = Announcer(events)
        self._watcher = watcher
        self._register = Register(paths=paths, shelf=state)
        self._guard = threading.RLock()
        self._pending = Pending()
        self._exec_ended: Callable[[str, int], None] = lambda exec_id, exit_code: None
        self._arrived = threading.Condition()
        self._announced: Counter[str] = Counter()
        self._hard_nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    # looking

    def list(self) -> Sequence[ContainerView]:
        """All containers, newest first; not those of builds."""
        known = [pair for pair in self._register.all() if not pair[0].of_build]
        known.sort(key=lambda pair: pair[0].created, reverse=True)
        endpoints: dict[str, list[Any]] = {}
        ports: dict[str, list[Any]] = {}
        for endpoint in self._state.endpoints():
            endpoints.setdefault(endpoint.container, []).append(endpoint)
        for port in self._state.ports():
            ports.setdefault(port.container, []).append(port)
        return [
            ContainerView(
                record=record,
                state=live.state,
                endpoints=tuple(endpoints.get(record.id, ())),
                ports=tuple(ports.get(record.id, ())),
            )
            for record, live in known
        ]

    def get(self, reference: str) -> ContainerView:
        record, live = self._register.find(reference)
        return ContainerView(
            record=record,
            state=live.state,
            endpoints=tuple(self._state.endpoints(record.id)),
            ports=tuple(self._state.ports(record.id)),
        )

    def record(self, reference: str) -> ContainerRecord:
        return self._register.record(reference)

    def cgroup(self, container_id: str) -> Cgroup:
        return self._cgroups.open(container_id)

    def limits(self, container_id: str) -> Resources | None:
        """What the cgroup's files say now; None when the container has none."""
        try:
            return self._cgroups.open(container_id).limits()
        except (NotFound, FileNotFoundError):
            return None

    def size(self, reference: str) -> int:
        """Bytes on the disk of the files that the container has written over its image."""
        upper = self._paths.container(self.record(reference).id) / "upper"
        return files.disk_usage(upper, directories=False)

    def stats(self, reference: str) -> Stats:
        return self._cgroups.open(self.record(reference).id).stats()

    def top(self, reference: str) -> Sequence[int]:
        """Its processes, as this PID namespace numbers them; raises Conflict when it has none."""
        view = self.get(reference)
        if not view.state.running:
            raise Conflict(f"Container {view.id} is not running")
        if view.state.status == "restarting":
            raise Conflict(f"Container {view.id} is restarting, wait until the container is running")
        try:
            pids = self._cgroups.open(view.id).pids()
        except (NotFound, FileNotFoundError):  # it has just ended
            raise Conflict(f"Container {view.id} is not running") from None
        self._publish("top", view.record)
        return pids

    def logs(
        self,
        reference: str,
        *,
        follow: bool = False,
        since: float | None = None,
        until: float | None = None,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[shim_logs.LogRecord]:
        """With `follow` until its run ends, over restarts by its policy."""
        record, live = self._register.find(reference)
        if live.state.status == "dead":
            raise Conflict("can not get logs from container which is dead or marked for removal")
        run = live.runs_over
        return shim_logs.read(
            self._paths.container(record.id) / f"{record.id}-json.log",
            follow=follow,
            since=since,
            until=until,
            tail=tail,
            stdout=stdout,
            stderr=stderr,
            stop=lambda: stop() or live.state.status in STOPPED or live.runs_over != run,
        )

    def waiter(
        self, reference: str, condition: Literal["not-running", "next-exit", "removed"] = "not-running"
    ) -> Waiter:
        _, live = self._register.find(reference)
        if condition == "next-exit":
            return live.next_exit()
        return live.removal() if condition == "removed" else live.not_running()

    def wait_healthy(self, reference: str, timeout: float) -> ContainerState:
        """Until healthy (or running, without a health check), unhealthy, or ended."""
        _, live = self._register.find(reference)

        def settled(state: ContainerState) -> bool:
            if state.status != "running":
                return state.status in STOPPED
            return state.health is None or state.health.status != "starting"

        live.wait(settled, timeout)
        return live.state

    def wait_completed(self, reference: str, timeout: float) -> ContainerState:
        _, live = self._register.find(reference)
        live.wait(lambda state: state.status in STOPPED, timeout)
        return live.state

    # making and removing

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
        for link in spec.links:
            self.record(link.partition(":")[0])
        own_ids = self._has_own_ids(spec)
        mounted, anonymous = self._volumes.plan(spec, image, self._volumes_of, inherit)
        record = ContainerRecord(
            id=container_id,
            spec=spec,
            image_id=image.id,
            created=time.time(),
            volumes=mounted,
            anonymous=anonymous,
            of_build=of_build,
        )
        fresh, recorded = self._paths.new_container(container_id), False
        try:
            reach("create: directory")
            self._make_directory(record, fresh)
            reach("create: volumes")
            self._volumes.make(record)
            reach("create: populate")
            self._volumes.populate(record, self._images.layer_dirs(image))
            reach("create: ids")
            if own_ids:
                record = replace(record, ids=self._find_ids(record))
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
            self._give_back_ids(record)
            self._volumes.discard(anonymous)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        live = self._register.add(record, ContainerState())
        self._publish("create", record)
        return ContainerView(record=record, state=live.state)

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        record, live = self._register.find(reference)
        if live.state.running and not force:
            first = (
                " and must be unpaused first"
                if live.state.status == "paused"
                else ": stop the container before removing or force remove"
            )
            raise Conflict(
                f'cannot remove container "/{record.spec.name}": container is {live.state.status}{first}'
            )
        with self._register.removing(record.id, reference):
            if live.state.running:  # one that is being stopped with time to spare is not waited for
                self._ask_to_end(record, signal=9, timeout=0)
            with live.lock:
                if self._register.known(record.id) is None:  # it has removed itself meanwhile
                    return
                if live.state.running:
                    self._stop(record, live, signal=9, timeout=0)
                self._remove(record, live, volumes=volumes)

    def rename(self, reference: str, new_name: str) -> None:
        record, live = self._register.find(reference)
        new_name = names.check_name(new_name)
        with live.lock:
            old_name = self.record(record.id).spec.name  # as it is now that nobody else changes it
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
        self._publish("rename", record, oldName=f"/{old_name}")

    # starting and stopping

    def start(self, reference: str) -> bool:
        """False when it runs already (Docker's 304). Raises StartFailed with the step that failed."""
        record, live = self._register.find(reference)
        with live.lock:
            record = self.record(record.id)  # as it is now that nobody else changes it
            if live.state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if live.state.running:
                return False
            if live.state.status == "dead":
                raise Conflict(f"container {record.id} is marked for removal and cannot be started")
            self._start(record, live)
        return True

    def stop(self, reference: str, *, signal: str = "", timeout: float | None = None) -> bool:
        """False when it does not run (Docker's 304)."""
        record, live = self._register.find(reference)
        with live.lock:
            if not live.state.running:
                return False
            number = resolve.signal_number(signal) if signal else self._stop_signal(record)
            grace = timeout if timeout is not None else self._grace(record)
            self._stop(record, live, signal=number, timeout=grace)
            self._publish("stop", record)
        return True

    def restart(self, reference: str, *, signal: str = "", timeout: float | None = None) -> None:
        record, live = self._register.find(reference)
        with live.lock:
            self.stop(record.id, signal=signal, timeout=timeout)
            self.start(record.id)
        self._publish("restart", record)

    def kill(self, reference: str, signal: str = "KILL") -> None:
        record, live = self._register.find(reference)
        number = resolve.signal_number(signal)
        if not live.state.running:
            raise Conflict(f"container {record.id} is not running")
        final = number in (9, self._stop_signal(record))
        if final:  # wanted: the policy does not bring it back
            self._register.amend(record.id, desired="stopped")
        elif live.state.status == "restarting":
            raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
        with self.asking(record.id) as shim:
            if live.state.status == "restarting":  # there is no process: it is the restart that ends
                shim.stop(signal=number, timeout=0)
            else:
                shim.signal(number)

    def pause(self, reference: str) -> None:
        record, live = self._register.find(reference)
        with live.lock:
            if live.state.status == "paused":
                raise Conflict(f"Container {record.id} is already paused")
            if live.state.status == "restarting":
                raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
            if live.state.status != "running":
                raise Conflict(f"Container {record.id} is not running")
            with self.asking(record.id) as shim:
                shim.pause()
            live.change(status="paused")
        self._publish("pause", record)

    def unpause(self, reference: str) -> None:
        record, live = self._register.find(reference)
        with live.lock:
            if live.state.status != "paused":
                raise Conflict(f"Container {record.id} is not paused")
            with self.asking(record.id) as shim:
                shim.unpause()
            live.change(status="running")
        self._publish("unpause", record)

    def update(
        self, reference: str, *, resources: Resources | None = None, restart: RestartPolicy | None = None
    ) -> None:
        """Change limits and restart policy of a container, running or not."""
        if resources is not None:
            checks.check_resources(resources)
        record, live = self._register.find(reference)
        with live.lock:
            if live.state.running:
                with contextlib.suppress(ConnectionError, FileNotFoundError):  # it ends just now
                    self.reach(record.id).update(
                        resources=None if resources is None else resolve.with_swap(resources), restart=restart
                    )
            changed: dict[str, Any] = {"resources": resources, "restart": restart}
            wanted = {name: value for name, value in changed.items() if value is not None}
            record = self._register.rewrite(
                record.id, lambda now: replace(now, spec=replace(now.spec, **wanted))
            )
        self._publish("update", record)

    def reapply_limits(self, reference: str) -> None:
        """Write the spec's limits into the cgroup again."""
        record = self.record(reference)
        self.reach(record.id).update(resources=resolve.with_swap(record.spec.resources), restart=None)

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

    # its files, see `copies`

    def stack(self, record: ContainerRecord) -> Stack:
        """What its root is made of on the disk."""
        layers = self._layers(self._images.get(record.image_id))
        home = self._paths.container(record.id)
        around = self._surroundings(record, layers, resolve.Namespaces(network="none"))
        return Stack(
            home=str(home),
            layers=tuple(str(layer) for layer in layers),
            binds=resolve.mounts(record, around, home)[0],
            read_only=record.spec.read_only,
        )

    def _layers(self, image: Image) -> tuple[Path, ...]:
        """Of a container's root, topmost first."""
        return (*self._images.layer_dirs(image), self._paths.mountpoints)

    def user(self, record: ContainerRecord) -> str:
        """As whom it runs; "" is root."""
        return record.spec.user or self._images.get(record.image_id).config.user

    def open_init(self, container_id: str) -> int | None:
        """An owned pidfd of its PID 1; None when it does not run. An end that is under way is waited for."""
        while True:
            _, live = self._register.find(container_id)
            state = live.state
            if state.pid and (pidfd := self._checked_pidfd(container_id, state.pid)) is not None:
                return pidfd
            if not state.pid and state.status not in ("running", "paused"):
                return None

            def changed(now: ContainerState, before: ContainerState = state) -> bool:
                return (now.pid, now.status) != (before.pid, before.status)

            if not live.wait(changed, END_TIMEOUT):
                raise HawseError(f"container {container_id} has ended, but its supervisor does not say so")

    def _checked_pidfd(self, container_id: str, pid: int) -> int | None:
        """None when the process has ended: its number may be another's by now, so it must be one of the
        container's cgroup, and live still when that was read."""
        try:
            pidfd = namespace.pidfd_open(pid)
        except ProcessLookupError:
            return None
        with contextlib.suppress(NotFound, FileNotFoundError):
            if pid in self._cgroups.open(container_id).pids() and not namespace.has_ended(pidfd):
                return pidfd
        os.close(pidfd)
        return None

    # streams

    def announce_attach(self, container_id: str) -> Callable[[], None]:
        """A client is about to attach; the returned function says that it has, or never will.

        It starts the container as soon as it reads that it is attached, which can be before it is: a start
        waits for those that are announced, and so each sees every byte.
        """
        with self._arrived:
            self._announced[container_id] += 1

        def over() -> None:
            with self._arrived:
                self._announced[container_id] -= 1
                if not self._announced[container_id]:
                    del self._announced[container_id]
                self._arrived.notify_all()

        return over

    def attach(
        self, reference: str, client: socket.socket, options: shim_client.AttachOptions, head: bytes = b""
    ) -> bool:
        """Hand the client's socket over to the shim; before the start it is kept until then.

        False when nothing more will come: it has ended, or ends just now, and there is only its log.
        """
        record, live = self._register.find(reference)
        with self._guard:
            if live.state.status in STOPPED:
                if not options.stream:
                    return False
                kept = PendingAttach(client=client.dup(), options=options, head=head)
                self._pending.add(record.id, kept)
                self._publish("attach", record)
                return True
        try:
            self.reach(record.id).attach(client, options, head)
        except (ConnectionError, FileNotFoundError):
            return False
        self._publish("attach", record)
        return True

    def resize(self, reference: str, height: int, width: int) -> None:
        record = self.record(reference)
        with self.asking(record.id) as shim:
            shim.resize(height, width)
        self._publish("resize", record, height=str(height), width=str(width))

    def check_executable(self, container_id: str) -> None:
        """Raises Conflict when nothing can be executed in it now."""
        state = self._register.live(container_id).state
        if state.status == "paused":
            raise Conflict(f"Container {container_id} is paused, unpause the container before exec")
        if state.status == "restarting":
            raise Conflict(f"Container {container_id} is restarting, wait until the container is running")
        if state.status != "running":
            raise Conflict(f"container {container_id} is not running")

    def when_exec_ends(self, callback: Callable[[str, int], None]) -> None:
        """`callback(id, exit_code)`, in the watcher's thread."""
        self._exec_ended = callback

    def has_stopped(self, container_id: str) -> bool:
        """Or is gone."""
        known = self._register.known(container_id)
        return known is None or known[1].state.status in STOPPED

    def catch_up(self) -> None:
        """Returns when all that shims have told by now is known."""
        self._watcher.catch_up()

    # coming back after a crash, an upgrade or a reboot

    def recover(self) -> Sequence[str]:
        """Take up every container that the records name; returns ids that must be started again.

        The same path after a crash, an upgrade and a reboot: a shim that answers is watched again, a
        container whose shim is gone has ended and is treated by its restart policy.
        """
        restart: builtins.list[ContainerRecord] = []
        records = self._state.containers()
        self._finish_creations({record.id for record in records})
        self._ids.tidy(self._paths.containers)
        for record, live, reached in self._reach_all(records):
            if record.of_build:  # nobody is left who would make a layer of it
                self.remove(record.id, force=True, volumes=True)
                continue
            if reached:
                continue
            with live.lock:
                self._forget_run(record)
                if record.removing or (record.spec.auto_remove and record.desired == "running"):
                    self._auto_remove(record, live)
                elif self._restarts_after_loss(record, live.state):
                    restart.append(record)
        return self._donors_first(restart)

    def _donors_first(self, records: Sequence[ContainerRecord]) -> builtins.list[str]:
        """Who shares the namespaces of others starts after them."""
        wanted = {record.id: record for record in records}
        ordered: dict[str, None] = {}

        def add(record: ContainerRecord, waiting: tuple[str, ...] = ()) -> None:
            for reference in _joined(record.spec):
                with contextlib.suppress(NotFound, Conflict):  # it cannot start, and says so
                    donor = self.record(reference)
                    if donor.id in wanted and donor.id not in waiting:
                        add(donor, (*waiting, record.id))
            ordered[record.id] = None

        for record in records:
            add(record)
        return list(ordered)

    def _reach_all(
        self, records: Sequence[ContainerRecord]
    ) -> builtins.list[tuple[ContainerRecord, Live, bool]]:
        """Each with whether it has a shim. They are asked all at once, and none that is held up is waited
        for: its container runs, as its own file says, and is known better once it answers."""
        asked: dict[str, socket.socket] = {}
        late: set[str] = set()
        for record in records:
            try:
                asked[record.id] = self.reach(record.id).ask_to_watch()
            except (ConnectionError, FileNotFoundError):  # it is leaving, or has left
                continue
            except BlockingIOError:
                late.add(record.id)
        told = shim_client.first_answers(asked, QUIET)
        found = []
        for record in records:
            live = self._register.add(record, self._ended_state(record))
            watch = asked.get(record.id)
            state = told.get(record.id)
            if state is not None:
                live.apply_shim(state)
            elif record.id in late or (watch is not None and record.id not in told):
                self._believe_file(record, live)
            else:
                found.append((record, live, False))
                continue
            found.append((record, live, True))
            if watch is not None:
                self._watcher.add(record.id, watch, self._on_event)
            else:
                self._reach_later(record, live)
        return found

    def _finish_creations(self, recorded: set[str]) -> None:
        """A container is made when it is recorded; what a killed daemon had only begun with is removed."""
        for directory in self._paths.containers.glob(".new-*"):
            container_id = directory.name.removeprefix(".new-")
            if container_id in recorded:
                directory.rename(self._paths.container(container_id))
                continue
            begun = recordcopy.read(directory / self._paths.record_copy(container_id).name)
            if begun is not None:
                self._volumes.discard(begun.anonymous)
            _remove_tree(directory)

    def restore_names(self) -> None:
        """Bring back the resolvers of running containers whose name server has died."""
        for container_id in self._networks.observe().names_lost:
            with contextlib.suppress(NotFound):  # removed meanwhile
                view = self.get(container_id)
                try:
                    if view.state.pid:
                        self._networks.restore_names(view.record, view.state.pid)
                except HostRefused:
                    if self.get(container_id).state.pid == view.state.pid:  # it has not just ended
                        raise

    def _watch_again(self, record: ContainerRecord, live: Live) -> bool:
        """False when it has no shim any more. How it is now comes as the stream's first word."""
        try:
            watch = self.reach(record.id).ask_to_watch()
        except (ConnectionError, FileNotFoundError):
            return False
        except BlockingIOError:
            self._reach_later(record, live)
        else:
            self._watcher.add(record.id, watch, self._on_event)
        return True

    def _believe_file(self, record: ContainerRecord, live: Live) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            live.apply_shim(json.loads((self._paths.shim(record.id) / "state.json").read_bytes()))
        live.change(error="the container's supervisor does not answer")

    def _reach_later(self, record: ContainerRecord, live: Live) -> None:
        """Of a shim that is held up, with so many waiting for it that no more can."""

        def wait() -> None:
            try:
                watch = self.reach(record.id).ask_to_watch(patient=True)
            except (ConnectionError, FileNotFoundError):
                self._lost(record, live)
            else:
                self._watcher.add(record.id, watch, self._on_event)

        threading.Thread(target=wait, name="reach", daemon=True).start()

    def _ended_state(self, record: ContainerRecord) -> ContainerState:
        """What is left of a run: exit.json, or nothing when it never ran."""
        path = self._paths.container(record.id) / "exit.json"
        try:
            return state_from_shim(json.loads(path.read_bytes()))
        except (ValueError, TypeError, AttributeError):  # half a file: a power cut
            return ContainerState(
                status="exited", exit_code=137, error="how it ended was lost with the power"
            )
        except FileNotFoundError:
            if record.desired == "running":  # it ran, and neither shim nor exit.json says how it ended
                return ContainerState(
                    status="exited", exit_code=137, error="ended with its supervisor or with the host"
                )
            return ContainerState()

    def _restarts_after_loss(self, record: ContainerRecord, state: ContainerState) -> bool:
        mode = record.spec.restart.mode
        if mode == "always":
            return state.status != "created"
        if record.desired != "running":
            return False
        if mode == "on-failure":
            return state.exit_code != 0 and state.status == "exited"
        return mode == "unless-stopped"

    # internals

    def _start(self, record: ContainerRecord, live: Live) -> None:
        pending = self._pending.take(record.id)
        lease, before = Lease(), record.desired
        try:
            if record.removing:
                raise Conflict(f"container {record.id} is marked for removal and cannot be started")
            image = self._images.get(record.image_id)
            reach("start: sources")
            self._volumes.check_sources(record)
            reach("start: ids")
            record = self._with_ids(record)
            reach("start: lease")
            lease = self._networks.lease(record)
            reach("start: record")  # before it runs, or a daemon killed in between would not know of it
            record = self._register.amend(record.id, desired="running")
            reach("start: files")
            config = self._prepare(record, image, lease)
            reach("start: config")
            path = self._write_config(record, config)
            reach("start: shim")
            started = shim_client.start(
                self._zygote,
                path,
                configure_network=lambda netns, pid: self._networks.configure(record, lease, netns, pid),
                before_run=lambda shim: self._hand_over(record.id, shim, pending),
                timeout=START_TIMEOUT,
            )
        except BaseException as error:
            self._forget_run(record)
            self._networks.release(record.id)
            close_all(pending)
            if isinstance(error, Exception):
                with contextlib.suppress(HostRefused):  # a full disk: then it is tried again at the next boot
                    self._register.amend(record.id, releasing=True, desired=before)
                code = error.container_exit if isinstance(error, StartFailed) else 128
                live.exited(status=_status_after_failure(live.state), exit_code=code, error=str(error))
                if record.spec.auto_remove and not record.removing:
                    self._auto_remove(record, live)
            raise
        finally:
            lease.close()
        live.set(
            ContainerState(
                status="running",
                pid=started.pid,
                started_at=started.started_at,
                finished_at=live.state.finished_at,
                health=HealthView(status="starting") if config.health is not None else None,
            )
        )
        self._attach_late(record.id)
        self._announce.started(record, lease.networks)
        reach("start: watch")
        self._watcher.add(record.id, started.watch, self._on_event)
        reach("start: linked")
        self._tell_linked(record)

    def _write_config(self, record: ContainerRecord, config: RuntimeConfig) -> Path:
        """What the shim reads; how the last run ended is past with it."""
        path = self._paths.container(record.id) / "runtime.json"
        files.write_private(path, codec.dumps(config).encode())
        (self._paths.container(record.id) / "exit.json").unlink(missing_ok=True)
        return path

    def _prepare(self, record: ContainerRecord, image: Image, lease: Lease) -> RuntimeConfig:
        directory = self._paths.container(record.id)
        namespaces = self._namespaces(record.spec)
        linked = tuple(self._linked(record, link) for link in record.spec.links)
        layers = self._layers(image)
        shared = self._shared_etc(record.spec)
        around = replace(
            self._surroundings(record, layers, namespaces),
            linked=linked,
            host_name=None if shared is None else _names_of(shared.parent),
        )
        config = resolve.runtime_config(record, image, around)
        config = replace(config, finished_before=self._register.live(record.id).state.finished_at)
        etc = directory / "etc"
        etc.mkdir(mode=0o755, exist_ok=True)
        spec = record.spec
        host_network = namespaces.network == "host"
        host_hosts = Path("/etc/hosts").read_text() if host_network else None
        host_resolv = _read_or_empty(Path("/etc/resolv.conf"))
        if shared is not None:
            for name in ("hostname", "hosts", "resolv.conf"):
                shutil.copyfile(shared / name, etc / name)
            return config
        (etc / "hostname").write_text(config.hostname + "\n")
        (etc / "hosts").write_text(
            resolve.hosts_file(spec, config.hostname, lease.endpoints, lease.gateway, host_hosts, linked)
        )
        (etc / "resolv.conf").write_text(
            resolve.resolv_conf(spec, host_resolv, embedded=lease.embedded_dns, host_network=host_network)
        )
        return config

    def _linked(self, record: ContainerRecord, link: str) -> resolve.Linked:
        name, _, alias = link.partition(":")
        view = self.get(name)
        if not view.state.running:
            raise Conflict(
                f"Cannot link to a non running container: /{view.name} AS /{record.spec.name}/{alias}"
            )
        default = self._networks.get(DEFAULT_NETWORK).id
        own = next((endpoint for endpoint in view.endpoints if endpoint.network == default), None)
        if own is None:
            raise Conflict(f"Cannot link to /{view.name}, as it does not belong to the default network")
        image, spec = self._images.get(view.record.image_id), view.record.spec
        published = (f"{port.container_port}/{port.protocol}" for port in spec.ports)
        given = dict(entry.partition("=")[::2] for entry in image.config.env) | dict(spec.environment)
        return resolve.Linked(
            alias=alias,
            name=view.name,
            id=view.id,
            ipv4=own.ipv4.split("/")[0],
            ports=tuple(dict.fromkeys((*image.config.exposed_ports, *spec.expose, *published))),
            environment=given,
        )

    def _tell_linked(self, record: ContainerRecord) -> None:
        """Running containers that know this one by a link learn its new address."""
        for other, live in self._register.all():
            for link in other.spec.links:
                name = link.partition(":")[0]
                if name != record.spec.name and not record.id.startswith(name):
                    continue
                if live.state.running:
                    path = self._paths.container(other.id) / "etc" / "hosts"
                    path.write_text(resolve.moved(path.read_text(), self._linked(other, link)))

    def _surroundings(
        self, record: ContainerRecord, layers: tuple[Path, ...], namespaces: resolve.Namespaces
    ) -> resolve.Surroundings:
        return resolve.Surroundings(
            paths=self._paths,
            layers=layers,
            volume_dirs={name: self._volumes.path(name) for name in record.volumes.values()},
            inherited=self._volumes.inherited(record.spec, self._volumes_of),
            namespaces=namespaces,
            cgroup_base=self._cgroup_base,
            hard_nofile=self._hard_nofile,
            init=self._settings.init,
        )

    def _shared_etc(self, spec: ContainerSpec) -> Path | None:
        kind, _, other = spec.network_mode.partition(":")
        return self._paths.container(self.record(other).id) / "etc" if kind == "container" else None

    def _namespaces(self, spec: ContainerSpec) -> resolve.Namespaces:
        return resolve.Namespaces(
            network=self._network_namespace(spec),
            pid=self._namespace(spec.pid_mode),
            ipc=self._ipc_namespace(spec.ipc_mode),
            uts=self._namespace(spec.uts_mode),
            user=self._namespace(f"container:{others[0]}" if (others := _joined(spec)) else ""),
        )

    def _network_namespace(self, spec: ContainerSpec) -> str:
        mode = spec.network_mode
        if mode in ("host", "none"):
            return mode
        if mode.startswith("container:"):
            return self._namespace(mode)
        return "new"

    def _ipc_namespace(self, mode: str) -> str:
        joined = self._namespace(mode)
        if mode.startswith("container:"):
            donor = self.record(mode.partition(":")[2])
            if donor.spec.ipc_mode in ("", "private", "none"):
                raise Conflict(
                    f"can't join IPC of container {donor.id}: non-shareable IPC (hint: use IpcMode:shareable "
                    "for the donor container)"
                )
        return joined

    def _namespace(self, mode: str) -> str:
        if mode in ("", "private", "shareable", "none"):
            return "new"
        if mode == "host":
            return "host"
        kind, _, other = mode.partition(":")
        if kind != "container":
            raise InputError(f"invalid namespace mode: {mode}")
        view = self.get(other)
        if view.state.status not in ("running", "paused"):
            raise Conflict(f"cannot join namespace of a non running container: container {view.name}")
        return f"container:{view.id}"

    def _has_own_ids(self, spec: ContainerSpec) -> bool:
        """Whether it gets a user namespace; raises InputError for what does not go with one, as Docker."""
        others = [self.record(other) for other in _joined(spec)]
        wanted = spec.userns_mode or self._settings.userns.default
        if others and not spec.userns_mode:  # as the one with whom it shares
            wanted = "auto" if others[0].ids is not None else "host"
        if wanted == "host":
            if any(other.ids is not None for other in others):
                # The host's root owns them: no capability that it has dropped would be missing there.
                raise Conflict(
                    "cannot share namespaces of a container with ids of its own with --userns=host"
                )
            return False
        if spec.privileged:
            raise InputError(
                "privileged mode is incompatible with user namespaces.  You must run the container in the "
                "host namespace when running privileged mode",
                hint="--userns=host",
            )
        for mode, what in (
            (spec.network_mode, "host's network namespace"),
            (spec.pid_mode, "host PID namespace"),
            (spec.ipc_mode, "host's IPC namespace"),
        ):
            if mode == "host":
                raise InputError(
                    f"cannot share the {what} when user namespaces are enabled", hint="--userns=host"
                )
        for mount in spec.mounts:
            if mount.propagation in ("shared", "rshared"):
                raise InputError(
                    f"mount on {mount.target}: propagation {mount.propagation} is not possible when user "
                    "namespaces are enabled",
                    hint="--userns=host",
                )
        return True

    def _find_ids(self, record: ContainerRecord) -> IdRange:
        """Who shares a namespace shares its owner, too."""
        others = [self.record(other) for other in _joined(record.spec)]
        if not others:
            directory = self._paths.container(record.id)
            return self._ids.keep(record.ids, directory) if record.ids else self._ids.take(directory)
        ids = {other.ids for other in others}
        found = ids.pop()
        if ids or found is None:
            names_of = ", ".join(other.spec.name for other in others)
            raise Conflict(f"cannot share namespaces of {names_of}: not in one user namespace of its own")
        return found

    def _with_ids(self, record: ContainerRecord) -> ContainerRecord:
        """Before a start: its ids may have gone to another one while the host was down."""
        if record.ids is None:
            return record
        ids = self._find_ids(record)
        if ids != record.ids:
            return self._register.amend(record.id, ids=ids)
        return record

    def _give_back_ids(self, record: ContainerRecord) -> None:
        if record.ids is None:
            return
        rest = [other.id for other, _ in self._register.all() if other.ids == record.ids]
        heir = next((self._paths.container(other) for other in rest if other != record.id), None)
        self._ids.give_back(record.ids, self._paths.container(record.id), heir)

    def _make_directory(self, record: ContainerRecord, directory: Path) -> None:
        directory.mkdir(mode=0o711, parents=True)
        (directory / "upper").mkdir(mode=0o755)
        (directory / "work").mkdir(mode=0o700)
        (directory / "root").mkdir(mode=0o700)  # here, so that a look into one being removed makes nothing
        if record.spec.files:
            (directory / "files").mkdir(mode=0o700)
        for index, file in enumerate(record.spec.files):
            path = resolve.file_source(directory, index)
            files.write_private(path, resolve.file_bytes(file.content))
            os.chown(path, file.uid, file.gid)
            path.chmod(file.mode)

    def _stop(self, record: ContainerRecord, live: Live, *, signal: int, timeout: float) -> None:
        reach("stop: record")
        self._register.amend(record.id, desired="stopped")
        reach("stop: ask")
        self._ask_to_end(record, signal=signal, timeout=timeout)
        reach("stop: wait")
        self._await_end(record, live, timeout)

    def _await_end(self, record: ContainerRecord, live: Live, timeout: float) -> None:
        """Its stop was asked for. Raises HostRefused when SIGKILL, `timeout` seconds later, is in vain."""

        def ended(state: ContainerState) -> bool:
            return state.status in STOPPED

        if timeout < 0:
            live.wait(ended, None)
            return
        if live.wait(ended, timeout + STUCK_TIMEOUT):
            return
        pid = live.state.pid
        stuck = pid > 0 and _is_uninterruptible(pid)
        if not stuck and live.wait(ended, END_TIMEOUT - STUCK_TIMEOUT):
            return
        raise HostRefused(
            f"container {record.spec.name} does not end, not even by SIGKILL"
            + (f": its process {pid} waits for the kernel (state D)" if stuck else ""),
            hint="it ends by itself once the kernel lets it: look for a frozen cgroup or a disk that hangs",
        )

    def _ask_to_end(self, record: ContainerRecord, *, signal: int, timeout: float) -> None:
        try:
            self.reach(record.id).stop(signal=signal, timeout=timeout)
        except (ConnectionError, FileNotFoundError):
            pass  # it ended on its own in the meantime; the watcher reports how

    def _remove(self, record: ContainerRecord, live: Live, *, volumes: bool) -> None:
        """A daemon that is killed meanwhile leaves it to the next one, which knows by the record."""
        if not record.removing:
            kept = () if not volumes else record.anonymous
            reach("remove: record")
            record = self._register.amend(record.id, releasing=True, removing=True, anonymous=kept)
        close_all(self._pending.take(record.id))
        try:
            reach("remove: lease")
            self._networks.release(record.id)
            reach("remove: run")
            self._forget_run(record)
            reach("remove: files")
            _remove_tree(self._paths.container(record.id))
        except OSError as error:
            message = f"unable to remove the files of container {record.id}: {error}"
            live.change(status="dead", error=message)
            raise HostRefused(message, hint="remove it again once the cause is gone") from error
        reach("remove: volumes")
        self._volumes.discard(record.anonymous, of=record.id)
        reach("remove: ids")
        self._give_back_ids(record)
        reach("remove: forget")
        self._register.forget(record.id)
        self._publish("destroy", record)

    def _on_event(self, container_id: str, event: dict[str, Any] | None) -> None:
        """Called by the watcher's thread; None is the end of the stream without `gone`: the shim died."""
        known = self._register.known(container_id)
        if known is None:
            return
        record, live = known
        if event is None:
            self._lost(record, live)
            return
        kind = event.get("event")
        if kind is None:  # the answer of one that was asked to be watched
            live.apply_shim(event["state"])
        elif kind == "exited":
            self._exited(record, live, event)
        elif kind == "restarted":
            live.change(
                status="running",
                pid=event["pid"],
                exit_code=0,
                started_at=event["started_at"],
                restart_count=event.get("restart_count", live.state.restart_count + 1),
                oom_killed=False,
                error="",
            )
            self._publish("start", record)
        elif kind == "health":
            before = live.state.health
            live.apply_shim(event["state"])
            if before is None or before.status != event["status"]:
                self._publish(f"health_status: {event['status']}", record)
        elif kind == "oom":
            live.change(oom_killed=True)
            self._publish("oom", record)
        elif kind in ("paused", "unpaused"):
            live.change(status="paused" if kind == "paused" else "running")
        elif kind == "signalled":
            self._publish("kill", record, signal=str(event["signal"]))
        elif kind == "dropped":
            live.change(dropped_log_bytes=event["bytes"])
        elif kind == "detached":
            self._publish("detach", record)
        elif kind == "exec_detached":
            self._publish("exec_detach", record, execID=event["exec"])
        elif kind == "exec_exited":
            self._exec_ended(event["exec"], event["exit_code"])
            self._publish("exec_die", record, execID=event["exec"], exitCode=str(event["exit_code"]))
        elif kind == "gone":
            self._gone(record, live, event["state"])

    def _exited(self, record: ContainerRecord, live: Live, event: dict[str, Any]) -> None:
        status = "restarting" if event.get("restarting") else "exited"
        lasted = max(0.0, event["finished_at"] - live.state.started_at)
        self._publish("die", record, exitCode=str(event["exit_code"]), execDuration=str(int(lasted)))
        live.exited(
            status=live.state.status if status == "exited" else status,
            exit_code=event["exit_code"],
            oom_killed=event.get("oom", False),
            finished_at=event["finished_at"],
            pid=0,
            error=event.get("error", ""),
        )

    def _gone(self, record: ContainerRecord, live: Live, state: dict[str, Any]) -> None:
        """The shim has cleaned up and left: addresses and ports are free again."""
        self._let_go(record)
        live.apply_shim(state)
        if record.spec.auto_remove:
            threading.Thread(target=self._auto_remove, args=(record, live), daemon=True).start()

    def _auto_remove(self, record: ContainerRecord, live: Live) -> None:
        """What stands in its way makes it dead, and its state says what it was."""
        with live.lock, contextlib.suppress(HostRefused):
            if self._register.known(record.id) is not None:
                self._remove(record, live, volumes=True)

    def _lost(self, record: ContainerRecord, live: Live) -> None:
        """The shim was killed and took its container along (PDEATHSIG); the policy decides what follows."""
        if self._watch_again(record, live):  # it lives, and only the stream was lost
            return
        told = self._paths.container(record.id) / "exit.json"
        if told.exists():  # it had ended before its shim did
            ended = self._ended_state(record)
        else:
            error = "the container's supervisor was killed"
            ended = ContainerState(status="exited", exit_code=137, finished_at=time.time(), error=error)
        lasted = max(0.0, ended.finished_at - live.state.started_at)
        self._publish("die", record, exitCode=str(ended.exit_code), execDuration=str(int(lasted)))
        self._let_go(record)
        live.exited(
            status="exited",
            exit_code=ended.exit_code,
            oom_killed=ended.oom_killed,
            finished_at=ended.finished_at,
            pid=0,
            error=ended.error,
        )

        def follow_up() -> None:
            with live.lock:
                known = self._register.known(record.id)
                if known is None or live.state.running:  # removed, or started again by somebody
                    return
                now = known[0]
                self._forget_run(now)
                if self._restarts_after_loss(now, live.state):
                    with contextlib.suppress(HawseError):  # kept in the state, shown by inspect
                        self._start(now, live)
                elif now.spec.auto_remove:
                    self._auto_remove(now, live)

        threading.Thread(target=follow_up, daemon=True).start()

    def _let_go(self, record: ContainerRecord) -> None:
        """What its run held is free again. On a full disk it stays taken until it starts again or goes."""
        try:
            freed = self._networks.release(record.id)
        except OutOfSpace as error:
            text = f"hawse-agent: {record.spec.name} keeps its addresses: {error}"
            print(text, file=sys.stderr, flush=True)
        else:
            self._announce.let_go(record, freed)

    def _forget_run(self, record: ContainerRecord) -> None:
        """Remove what a dead shim left: its cgroup (with whatever is still in it) and its run directory."""
        with contextlib.suppress(NotFound, FileNotFoundError):
            cgroup = self._cgroups.open(record.id)
            cgroup.kill()
            cgroup.remove()
        shutil.rmtree(self._paths.shim(record.id), ignore_errors=True)

    def _hand_over(
        self, container_id: str, shim: shim_client.ShimClient, pending: builtins.list[PendingAttach]
    ) -> None:
        with self._arrived:
            self._arrived.wait_for(lambda: container_id not in self._announced, ATTACH_TIMEOUT)
        pending += self._pending.take(container_id)
        for attach in pending:
            shim.attach(attach.client, attach.options, attach.head)
        close_all(pending)

    def _attach_late(self, container_id: str) -> None:
        """Clients that came while the start was under way, after the others had been handed over."""
        with self._guard:  # whoever looks from now on sees that it runs
            late = self._pending.take(container_id)
        for attach in late:
            with contextlib.suppress(ConnectionError, FileNotFoundError):  # it has ended already
                self.reach(container_id).attach(attach.client, attach.options, attach.head)
        close_all(late)

    def reach(self, container_id: str) -> shim_client.ShimClient:
        """Whatever the container's state; raises FileNotFoundError or ConnectionError when used in vain."""
        return shim_client.ShimClient(self._paths.shim(container_id) / "shim.sock")

    @contextlib.contextmanager
    def asking(self, container_id: str) -> Iterator[shim_client.ShimClient]:
        """The shim of a container that seems to run; raises Conflict when it has ended in the meantime."""
        try:
            yield self.reach(container_id)
        except (ConnectionError, FileNotFoundError) as error:
            raise Conflict(f"container {container_id} is not running") from error

    def _stop_signal(self, record: ContainerRecord) -> int:
        image = self._images.get(record.image_id)
        return resolve.signal_number(record.spec.stop_signal or image.config.stop_signal)

    def _grace(self, record: ContainerRecord) -> float:
        timeout = record.spec.stop_timeout
        return float(resolve.DEFAULT_STOP_TIMEOUT if timeout is None else timeout)

    def _volumes_of(self, reference: str) -> ContainerRecord:
        return self.record(reference)

    def _publish(self, action: str, record: ContainerRecord, **attributes: str) -> None:
        self._announce.container(action, record, **attributes)


def _joined(spec: ContainerSpec) -> builtins.list[str]:
    """Containers whose namespaces it shares."""
    modes = (spec.network_mode, spec.pid_mode, spec.ipc_mode, spec.uts_mode)
    return [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]


def _status_after_failure(state: ContainerState) -> Literal["created", "exited"]:
    return "exited" if state.status == "exited" else "created"


def _is_uninterruptible(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].startswith("D")
    except (FileNotFoundError, ProcessLookupError):
        return False


def _names_of(home: Path) -> tuple[str, str]:
    """Host and domain name of a container that has been started."""
    config = codec.loads(RuntimeConfig, (home / "runtime.json").read_bytes())
    return config.hostname, config.domainname


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _remove_tree(directory: Path) -> None:
    """Also when it is half gone already; any other failure is raised, so that nothing stays unnoticed."""
    with contextlib.suppress(FileNotFoundError):
        tree.remove(directory)
