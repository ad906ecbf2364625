"""RUN: a container of its own for each step, isolated and limited like any other.

It is in no list and is removed whatever happens; a daemon that is killed meanwhile leaves it to the next one.
What it has written over its image becomes the layer, without what was only there to mount on.
"""

from __future__ import annotations

import base64
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hawse_agent.build import configuration, globs, placing, secrets, walk
from hawse_agent.build.cache import key
from hawse_agent.build.draft import Draft
from hawse_agent.build.heredocs import script_of
from hawse_agent.build.instructions import Mount as Wanted
from hawse_agent.build.instructions import Run
from hawse_agent.build.scope import PREDEFINED
from hawse_agent.engine.building.surroundings import Building
from hawse_agent.errors import HawseError, InputError, NotFound, NotSupported, StartFailed
from hawse_agent.failpoints import reach
from hawse_agent.images.image import Layer
from hawse_agent.linux import tree
from hawse_agent.runtime import view
from hawse_agent.spec.container import ContainerSpec, FileContent, HealthCheck, LogConfig
from hawse_agent.spec.volume import Mount
from hawse_agent.supervise.attach import AttachOptions

_SCRIPTS = "/dev/pipes"
"""Where BuildKit has them, too."""
_MOUNTED_OVER = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_FRAME = struct.Struct(">BxxxL")


class RunFailed(HawseError):
    """The step's command failed; `code` is its exit code."""

    def __init__(self, message: str, *, code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code

    def fields(self) -> dict[str, Any]:
        return {"code": self.code}


@dataclass(kw_only=True)
class _Mounted:
    """What a container gets for the mounts that a step wants."""

    mounts: list[Mount] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    """Of variables to the files that have their values."""


class Runs:
    """One instruction, whose variables are replaced."""

    def __init__(
        self,
        building: Building,
        draft: Draft,
        instruction: Run,
        *,
        arguments: Mapping[str, str],
        environment: Mapping[str, str],
        others: Mapping[str, Draft],
    ) -> None:
        """`arguments` are those that count, `environment` is all; `others` the stages and images of
        `from=`."""
        self._building = building
        self._draft = draft
        self._instruction = instruction
        self._arguments = arguments
        self._environment = environment
        self._others = others
        if instruction.network == "host" and building.options.network != "host":
            raise InputError(
                "RUN --network=host: a file alone cannot give a step the host's network",
                hint="--network host allows it",
            )
        self._script, self._words = _words(draft, instruction)

    @property
    def created_by(self) -> str:
        """The history's: arguments in front, as Docker's builder writes it."""
        given = [f"{name}={value}" for name, value in self._arguments.items()]
        any_given = given or self._environment.keys() & PREDEFINED - self._draft.variables().keys()
        return " ".join(([f"|{len(given)}", *given] if any_given else []) + self._words)

    @property
    def told(self) -> bool:
        """Whether `created_by` says all that it is made from."""
        instruction = self._instruction
        return not instruction.mounts and self._script is None and instruction.network == "default"

    def key(self) -> str:
        config = self._draft.config
        instruction = self._instruction
        counting = self._arguments.keys() | self._draft.variables().keys()
        seen = {
            name: value
            for name, value in self._environment.items()
            if name not in PREDEFINED or name in counting
        }
        script = None if self._script is None else (self._script.target, self._script.content)
        return key(
            "run",
            *(self._draft.diff_ids, self._words, script, seen, config.get("User") or ""),
            *(config.get("WorkingDir") or "/", sorted(config.get("Volumes") or ())),
            *(self._network, [self._mount_key(mount) for mount in instruction.mounts]),
        )

    def layer(self) -> Layer | None:
        """Raises RunFailed, BuildStopped, StartFailed."""
        building = self._building
        image = self._draft.image()
        with ExitStack() as stack:
            stack.enter_context(building.images.lent(image))
            mounted = _Mounted()
            self._proxies(mounted, stack)
            for wanted in self._instruction.mounts:
                self._mount(wanted, mounted, stack)
            reach("build: run")
            view_of = building.containers.create(self._spec(image.id, mounted), of_build=True)
            stack.callback(self._remove, view_of.id)
            if view_of.record.ids is not None and any(m.layers and not m.read_only for m in mounted.mounts):
                raise NotSupported(
                    "RUN --mount=type=bind,rw cannot be written to by containers with ids of their own",
                    hint='leave rw out, or set default = "host" under [userns] in agent.toml',
                )
            building.say(f" ---> Running in {view_of.id[:12]}\n")
            code = self._run(view_of.id)
            if code:
                raise self._failed(code)
            home = building.directory()
            reach("build: take")
            building.containers.take_written(view_of.id, home / "upper")
        self._clean(home, [*(mount.target for mount in mounted.mounts), *_MOUNTED_OVER])
        building.say(f" ---> Removed intermediate container {view_of.id[:12]}\n")
        return building.layer(home / "upper")

    def _run(self, container_id: str) -> int:
        building = self._building

        def end() -> None:
            with suppress(NotFound):
                building.containers.remove(container_id, force=True, volumes=True)

        ours, theirs = socket.socketpair()
        with ours, building.stopping.ending(end):
            with theirs:
                options = AttachOptions(stdout=True, stderr=True)
                building.containers.attach(container_id, theirs, options)
            try:
                building.containers.start(container_id)
            except StartFailed as error:
                raise self._failed(error.container_exit, error.message) from error
            waiter = building.containers.waiter(container_id)
            for data in _output(ours):
                building.say(data)
            code = waiter.result()
        return code or 0

    def _remove(self, container_id: str) -> None:
        with suppress(NotFound):
            self._building.containers.remove(container_id, force=True, volumes=True)

    def _failed(self, code: int, why: str = "") -> RunFailed:
        command = " ".join(self._words)
        text = f"The command '{command}' returned a non-zero code: {code} ({self._instruction.place})"
        return RunFailed(f"{text}: {why}" if why else text, code=code)

    def _spec(self, image: str, mounted: _Mounted) -> ContainerSpec:
        options = self._building.options
        own = self._draft.variables()
        return ContainerSpec(
            name="",
            image=image,
            entrypoint=(),
            command=tuple(self._words),
            environment={
                name: value
                for name, value in self._environment.items()
                if name not in own and name not in mounted.environment
            },
            environment_files=mounted.environment,
            health=HealthCheck(test=("NONE",)),
            resources=options.resources,
            mounts=tuple(mounted.mounts),
            files=() if self._script is None else (self._script,),
            network_mode=self._network,
            extra_hosts=options.extra_hosts,
            shm_size=options.shm_size,
            ulimits=options.ulimits,
            init=False,
            log=LogConfig(driver="none"),
        )

    @property
    def _network(self) -> str:
        own = self._instruction.network
        return self._building.options.network if own == "default" else own

    def _proxies(self, mounted: _Mounted, stack: ExitStack) -> None:
        """Values that nothing else knows, and that may have a password, are not written down either."""
        own = self._environment.keys() & PREDEFINED - self._draft.variables().keys() - self._arguments.keys()
        if own:
            directory = stack.enter_context(secrets.directory(self._building.paths))
        for name in sorted(own):
            secrets.write(directory / name, self._environment[name].encode())
            mounted.environment[name] = str(directory / name)

    # -- mounts --------------------------------------------------------------------------------------

    def _mount_key(self, mount: Wanted) -> list[Any]:
        """Caches and secrets count by what they are called, not by what is in them."""
        about = [mount.kind, mount.target, mount.source, mount.id, mount.read_only, mount.env]
        if mount.kind == "bind":
            about.append(self._content(mount))
        return about

    def _content(self, mount: Wanted) -> Any:
        if mount.from_:
            return self._others[mount.from_].diff_ids
        root, path = self._building.context.root, globs.clamped(mount.source)
        try:
            return walk.digest(walk.walk(root, path), owners=False, check=self._building.stopping.check)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"RUN --mount: {mount.source} is not in the context") from None

    def _mount(self, wanted: Wanted, mounted: _Mounted, stack: ExitStack) -> None:
        match wanted.kind:
            case "tmpfs":
                mounted.mounts.append(
                    Mount(
                        kind="tmpfs",
                        target=self._target(wanted.target),
                        tmpfs_size=wanted.size or 0,
                        read_only=wanted.read_only,
                        tmpfs_options=("exec",),
                    )
                )
            case "bind":
                mounted.mounts.append(self._bind(wanted))
            case "cache":
                mounted.mounts.append(self._cache(wanted, stack))
            case "secret":
                self._secret(wanted, mounted, stack)

    def _bind(self, wanted: Wanted) -> Mount:
        layers = self._layers(wanted)
        home = self._building.directory()
        for name in ("point", "upper", "work"):
            (home / name).mkdir(mode=0o755)
        return Mount(
            kind="bind",
            target=self._target(wanted.target),
            source=str(home),
            subpath=globs.clamped(wanted.source),
            layers=layers,
            read_only=wanted.read_only,
            map_ids=not wanted.from_ and wanted.read_only,
        )

    def _layers(self, wanted: Wanted) -> tuple[str, ...]:
        if not wanted.from_:
            return (str(self._building.context.path),)
        return tuple(map(str, self._building.layer_dirs(self._others[wanted.from_])))

    def _cache(self, wanted: Wanted, stack: ExitStack) -> Mount:
        def fill(directory: Path) -> None:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if wanted.from_:
                    with self._building.looking_into(self._others[wanted.from_]) as root:
                        found = walk.walk(root, globs.clamped(wanted.source))
                        placing.put_directory(fd, placing.Placed(destination="/", owner=None), found)
                os.fchown(fd, wanted.uid or 0, wanted.gid or 0)
                os.fchmod(fd, 0o755 if wanted.mode is None else wanted.mode)
            finally:
                os.close(fd)

        identity = wanted.id or self._target(wanted.target)
        check = self._building.stopping.check
        using = self._building.mount_caches.using(identity, wanted.sharing, fill, check=check)
        return Mount(
            kind="bind",
            target=self._target(wanted.target),
            source=str(stack.enter_context(using)),
            read_only=wanted.read_only,
            map_ids=True,
        )

    def _secret(self, wanted: Wanted, mounted: _Mounted, stack: ExitStack) -> None:
        content = self._building.options.secrets.get(wanted.id)
        if content is None:
            if wanted.required:
                raise InputError(f"secret {wanted.id} is required, and was not given", hint="--secret")
            return
        path = stack.enter_context(secrets.directory(self._building.paths)) / "secret"
        mode = 0o400 if wanted.mode is None else wanted.mode
        secrets.write(path, content, mode=mode, uid=wanted.uid or 0, gid=wanted.gid or 0)
        if wanted.env:
            mounted.environment[wanted.env] = str(path)
        if wanted.target or not wanted.env:
            target = wanted.target or f"/run/secrets/{wanted.id}"
            mounted.mounts.append(
                Mount(
                    kind="bind",
                    target=self._target(target),
                    source=str(path),
                    read_only=True,
                    map_ids=True,
                )
            )

    def _target(self, path: str) -> str:
        return placing.destination(self._draft.config.get("WorkingDir") or "/", path).rstrip("/")

    # -- what was only there to mount on ---------------------------------------------------------------

    def _clean(self, home: Path, targets: list[str]) -> None:
        """Take away empty places that the image does not have, and directories that only they made differ."""
        upper = home / "upper"
        if not os.listdir(upper):
            return
        layers = tuple(map(str, self._building.layer_dirs(self._draft)))
        looking = self._building.directory()
        with _opened(upper) as above:
            below = view.image(view.Stack(home=str(looking), layers=layers))
            try:
                for target in targets:
                    _take_away(above, below, tree.follow(below, target).strip("/"))
            finally:
                os.close(below)


def _take_away(above: int, below: int, path: str) -> None:
    while path:
        parent, _, name = path.rpartition("/")
        try:
            directory = tree.open_in(above, parent, os.O_RDONLY | os.O_DIRECTORY, links=False)
        except OSError:  # it is not of this layer
            return
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not _is_empty(directory, name, status) or not _is_as_before(below, path, status):
                return
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        finally:
            os.close(directory)
        path = parent


def _is_empty(directory: int, name: str, status: os.stat_result) -> bool:
    if stat.S_ISREG(status.st_mode):
        return status.st_size == 0
    if not stat.S_ISDIR(status.st_mode):
        return False
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        return not os.listdir(fd) and "trusted.overlay.opaque" not in os.listxattr(fd)
    finally:
        os.close(fd)


def _is_as_before(below: int, path: str, status: os.stat_result) -> bool:
    """Whether the image has nothing there, or a directory like this one."""
    try:
        fd = tree.open_in(below, path, tree.O_PATH | os.O_NOFOLLOW, links=False)
    except OSError:
        return True
    try:
        old = os.fstat(fd)
    finally:
        os.close(fd)
    return stat.S_ISDIR(old.st_mode) and (old.st_mode, old.st_uid, old.st_gid) == (
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _words(draft: Draft, instruction: Run) -> tuple[FileContent | None, list[str]]:
    """The arguments, and the script that they execute where a heredoc is a program of its own."""
    command = instruction.command
    if not command.heredocs:
        return None, configuration.words_of(draft.config, command)
    script = script_of(command)
    if not script.program:
        return None, [*configuration.shell(draft.config), script.text]
    path = f"{_SCRIPTS}/{command.heredocs[0].name}"
    content = base64.b64encode(script.text.encode()).decode()
    return FileContent(target=path, content=content, mode=0o755), [path]


def _output(stream: socket.socket) -> Iterator[str]:
    """Both streams, as they come; a character that comes in two pieces is put together."""
    pending = b""
    while head := _exactly(stream, _FRAME.size):
        data = pending + _exactly(stream, _FRAME.unpack(head)[1])
        text, pending = _whole_characters(data)
        if text:
            yield text
    if pending:
        yield pending.decode(errors="replace")


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := stream.recv(size - len(data))):
        data += piece
    return data if len(data) == size else b""


def _whole_characters(data: bytes) -> tuple[str, bytes]:
    """Text, and the beginning of a UTF-8 character at the end."""
    for length in range(1, min(4, len(data) + 1)):
        byte = data[-length]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        if wanted > length:
            return data[:-length].decode(errors="replace"), data[-length:]
        break
    return data.decode(errors="replace"), b""
