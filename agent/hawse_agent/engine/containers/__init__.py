"""The life of containers: create, start, stop, remove, and what happens when one ends by itself.

Each container has a lock of its own; nothing here waits for another container. What must survive the
daemon (restart policy, stop grace, health, log) is the shim's; these modules write down decisions, start
shims and keep the snapshot that readers see.

    shims looking ← sharing ← files attaching control ← removal ← starting creation ← following ← recovery

Each knows those before it. `Containers` puts them together, and is what others know.
"""

from __future__ import annotations

from hawse_agent.cgroups import Base, Tree
from hawse_agent.engine.announce import Announcer
from hawse_agent.engine.containers.attaching import Attaching
from hawse_agent.engine.containers.control import Control
from hawse_agent.engine.containers.creation import Creation
from hawse_agent.engine.containers.files import Files
from hawse_agent.engine.containers.following import Following
from hawse_agent.engine.containers.looking import Looking
from hawse_agent.engine.containers.recovery import Recovery
from hawse_agent.engine.containers.removal import Removal
from hawse_agent.engine.containers.sharing import Sharing
from hawse_agent.engine.containers.shims import Shims
from hawse_agent.engine.containers.starting import Starting
from hawse_agent.engine.events import EventBus
from hawse_agent.engine.images import Images
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.register import Register
from hawse_agent.engine.settings import Settings
from hawse_agent.engine.state import State
from hawse_agent.engine.volumes import Volumes
from hawse_agent.paths import Paths
from hawse_agent.spec import codec
from hawse_agent.supervise.client import Watcher
from hawse_agent.supervise.zygote import Zygote


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
        watcher: Watcher,
    ) -> None:
        register, announce, shims = Register(paths=paths, shelf=state), Announcer(events), Shims(paths)
        looking = Looking(paths=paths, state=state, register=register, cgroups=cgroups, announce=announce)
        sharing = Sharing(paths=paths, settings=settings, register=register)
        files = Files(
            paths=paths,
            settings=settings,
            images=images,
            networks=networks,
            volumes=volumes,
            register=register,
            looking=looking,
            sharing=sharing,
            cgroup_base=codec.dumps(cgroup_base),
        )
        attaching = Attaching(register=register, shims=shims, announce=announce)
        control = Control(
            paths=paths,
            register=register,
            shims=shims,
            cgroups=cgroups,
            images=images,
            networks=networks,
            announce=announce,
        )
        removal = Removal(
            paths=paths,
            register=register,
            images=images,
            networks=networks,
            volumes=volumes,
            attaching=attaching,
            sharing=sharing,
            control=control,
            announce=announce,
        )
        starting = Starting(
            zygote=zygote,
            register=register,
            images=images,
            networks=networks,
            volumes=volumes,
            sharing=sharing,
            files=files,
            attaching=attaching,
            control=control,
            removal=removal,
            announce=announce,
            watch=lambda container, stream: following.watch(container, stream),
        )
        creation = Creation(
            paths=paths,
            state=state,
            register=register,
            images=images,
            networks=networks,
            volumes=volumes,
            sharing=sharing,
            files=files,
            announce=announce,
        )
        following = Following(
            paths=paths,
            register=register,
            shims=shims,
            watcher=watcher,
            control=control,
            removal=removal,
            starting=starting,
            announce=announce,
        )
        recovery = Recovery(
            state=state,
            register=register,
            networks=networks,
            shims=shims,
            looking=looking,
            sharing=sharing,
            creation=creation,
            control=control,
            removal=removal,
            following=following,
        )
        self.list = looking.list
        self.get = looking.get
        self.record = looking.record
        self.cgroup = looking.cgroup
        self.limits = looking.limits
        self.size = looking.size
        self.stats = looking.stats
        self.top = looking.top
        self.logs = looking.logs
        self.waiter = looking.waiter
        self.wait_healthy = looking.wait_healthy
        self.wait_completed = looking.wait_completed
        self.has_stopped = looking.has_stopped
        self.check_executable = looking.check_executable
        self.open_init = looking.open_init
        self.create = creation.create
        self.rename = creation.rename
        self.holding = creation.holding
        self.take_written = creation.take_written
        self.start = starting.start
        self.restart = starting.restart
        self.stop = control.stop
        self.kill = control.kill
        self.pause = control.pause
        self.unpause = control.unpause
        self.update = control.update
        self.reapply_limits = control.reapply_limits
        self.remove = removal.remove
        self.stack = files.stack
        self.user = files.user
        self.announce_attach = attaching.announce_attach
        self.attach = attaching.attach
        self.resize = attaching.resize
        self.reach = shims.reach
        self.asking = shims.asking
        self.when_exec_ends = following.when_exec_ends
        self.recover = recovery.recover
        self.restore_names = recovery.restore_names
        self.catch_up = watcher.catch_up
