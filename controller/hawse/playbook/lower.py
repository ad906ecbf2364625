"""One task with its values, as what the agent or the controller shall do: items, or a transfer.

Everything is rendered here, files are read here; nothing is sent.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hawse.playbook.model import Task
from hawse.playbook.modules import (
    BackupArguments,
    ImageArguments,
    RestoreArguments,
    StackArguments,
    VolumeArguments,
    build,
)
from hawse.playbook.requests import Backup, Restore
from hawse.playbook.run import Run
from hawse.stack.build import Build
from hawse.template import Scope
from hawse.template.filters import to_bool, to_json
from hawse.template.lookups import find
from hawse.variables import data
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec import codec
from hawse_agent.spec.host import Item, StackSpec, TaskSpec

INLINE = 1 << 20
"""Contents up to this size travel inside the item, larger ones as blobs."""


@dataclass(frozen=True, kw_only=True)
class Lowered:
    items: tuple[Item, ...] = ()
    blobs: Mapping[str, Path] = field(default_factory=dict)
    transfer: Backup | Restore | None = None
    builds: tuple[Build, ...] = ()
    """Images of a stack that are built before."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One task, or one round of its loop, on one host."""

    id: str
    name: str
    task: Task
    host: str
    scope: Scope
    become_user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    no_log: bool = False
    ignore_errors: bool = False

    def item(self, args: Mapping[str, Any], *, module: str = "", part: str = "") -> Item:
        spec = TaskSpec(
            module=module or self.task.module.name,
            args=args,
            become_user=self.become_user,
            environment=self.environment,
            no_log=self.no_log,
        )
        return Item(id=self.id + part, name=self.name, task=spec, ignore_errors=self.ignore_errors)


def lower(call: Call, run: Run) -> Lowered:
    """Raises InputError with the place of the task for values that are wrong."""
    task = call.task
    args = call.scope.render(task.args)
    try:
        return _lower(call, run, args)
    except InputError as error:
        if error.where:
            raise
        raise type(error)(error.message, where=task.args.where(), hint=error.hint) from None


def _lower(call: Call, run: Run, args: dict[str, Any]) -> Lowered:
    match call.task.module.name:
        case "stack":
            return _stack(call, run, build(StackArguments, args, "stack"))
        case "image":
            return _image(call, run, build(ImageArguments, args, "image"))
        case "volume":
            return _volume(call, build(VolumeArguments, args, "volume"))
        case "volume_backup":
            return _backup(call, run, build(BackupArguments, args, "volume_backup"))
        case "volume_restore":
            return _restore(call, run, build(RestoreArguments, args, "volume_restore"))
        case "copy":
            return _copy(call, args)
        case "template":
            return _template(call, args)
        case _:
            return Lowered(items=(call.item(_checked(call, args)),))


def _checked(call: Call, args: Mapping[str, Any], module: str = "") -> dict[str, Any]:
    """The arguments as the agent takes them; defaults are left out."""
    kind = call.task.module.arguments
    assert kind is not None
    checked: dict[str, Any] = codec.to_json(build(kind, args, module or call.task.module.name))
    return checked


# stacks, images, volumes


def _stack(call: Call, run: Run, args: StackArguments) -> Lowered:
    from hawse import stack  # 0.15 s that plays without a stack need not wait for

    builds: list[Build] = []
    if args.src:
        spec = stack.load(
            find(call.scope.search, args.src, "templates"),
            name=args.name or None,
            variables=call.scope,
            environment={**run.environment, **args.environment},
            profiles=args.profiles,
            images=run.images,
            host_matches=lambda pattern: run.inventory.matches(pattern, call.host),
            builds=builds.append,
        )
    elif args.state == "absent" and args.name:
        spec = StackSpec(name=args.name)
    else:
        raise InputError("module stack needs the argument 'src'", hint="the Compose file or its template")
    if args.state == "absent":
        builds.clear()
        spec = StackSpec(name=spec.name, state="absent", remove_volumes=args.remove_volumes)
    elif args.wait is not None:
        spec = replace(spec, wait=args.wait)
    item = Item(id=call.id, name=call.name, stack=spec, ignore_errors=call.ignore_errors)
    return Lowered(items=(item,), builds=tuple(builds))


def _image(call: Call, run: Run, args: ImageArguments) -> Lowered:
    values: dict[str, Any] = {"reference": args.name, "state": args.state, "force": args.force}
    source = run.images(args.name) if args.state == "present" else None
    if source is not None:
        values |= {**codec.to_json(source), "reference": args.name}
    return Lowered(items=(call.item(values),))


def _volume(call: Call, args: VolumeArguments) -> Lowered:
    values = {
        "name": args.name,
        "state": args.state,
        "options": dict(args.driver_options),
        "labels": dict(args.labels),
    }
    return Lowered(items=(call.item(values),))


_ENDINGS = {"zstd": ".tar.zst", "gzip": ".tar.gz", "none": ".tar"}


def _backup(call: Call, run: Run, args: BackupArguments) -> Lowered:
    dest = Path(args.dest).expanduser()
    if args.dest.endswith("/"):
        dest = dest / f"{call.host}-{args.name}{_ENDINGS[args.compression]}"
    return Lowered(
        transfer=Backup(
            id=call.id,
            name=call.name,
            volume=args.name,
            dest=dest if dest.is_absolute() else run.project / dest,
            compression=args.compression,
            ignore_errors=call.ignore_errors,
        )
    )


def _restore(call: Call, run: Run, args: RestoreArguments) -> Lowered:
    src = Path(args.src).expanduser()
    return Lowered(
        transfer=Restore(
            id=call.id,
            name=call.name,
            volume=args.name,
            src=src if src.is_absolute() else run.project / src,
            ignore_errors=call.ignore_errors,
        )
    )


# files


def _copy(call: Call, args: dict[str, Any]) -> Lowered:
    source, content = args.pop("src", None), args.pop("content", None)
    directory_mode = args.pop("directory_mode", None)
    if to_bool(args.get("remote_src")):
        if "remote_src" not in call.task.module.names or source is None:
            raise NotSupported("module copy does not support 'remote_src'", where=call.task.args.where())
        return Lowered(items=(call.item(_checked(call, {**args, "src": source})),))
    if (source is None) == (content is None):
        raise InputError("module copy needs either 'src' or 'content'")
    if content is not None:
        text = content if isinstance(content, str) else to_json(content)
        return Lowered(items=(call.item(_checked(call, {**args, **_inline(text.encode())})),))
    path = find(call.scope.search, str(source), "files")
    if path.is_dir():
        return _copy_directory(call, args, path, directory_mode, inside=str(source).endswith("/"))
    return _copy_file(call, args, path, _destination(args, path.name))


def _copy_file(call: Call, args: dict[str, Any], path: Path, dest: str, part: str = "") -> Lowered:
    values, blobs = _content(path)
    mode = args.get("mode")
    if mode == "preserve":
        args = {**args, "mode": f"{path.stat().st_mode & 0o7777:04o}"}
    item = call.item(_checked(call, {**args, "dest": dest, **values}), part=part)
    return Lowered(items=(item,), blobs=blobs)


def _copy_directory(call: Call, args: dict[str, Any], path: Path, mode: Any, *, inside: bool) -> Lowered:
    """As with cp: `src/` puts what is in the directory into dest, `src` the directory itself."""
    base = str(args.get("dest", "")).rstrip("/") + ("" if inside else f"/{path.name}")
    owners: dict[str, Any] = {key: args[key] for key in ("owner", "group") if key in args}
    items: list[Item] = []
    blobs: dict[str, Path] = {}
    for number, entry in enumerate([path, *sorted(path.rglob("*"))]):
        dest = base if entry == path else f"{base}/{entry.relative_to(path)}"
        if entry.is_dir():
            values: dict[str, Any] = {"path": dest, "state": "directory", **owners}
            if mode is not None:
                values["mode"] = f"{mode:04o}" if isinstance(mode, int) else str(mode)
            items.append(call.item(values, module="file", part=f"/{number}"))
        else:
            lowered = _copy_file(call, args, entry, dest, f"/{number}")
            items += lowered.items
            blobs |= lowered.blobs
    return Lowered(items=tuple(items), blobs=blobs)


def _template(call: Call, args: dict[str, Any]) -> Lowered:
    path = find(call.scope.search, str(args.pop("src")), "templates")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"template {path} is not UTF-8 text") from error
    about = {"template_path": data(str(path)), "ansible_managed": data("Managed by Hawse")}
    rendered = call.scope.child(about).searching(path.parent).text(text, str(path))
    values = {**args, "dest": _destination(args, path.name.removesuffix(".j2")), **_inline(rendered.encode())}
    return Lowered(items=(call.item(_checked(call, values)),))


def _destination(args: Mapping[str, Any], name: str) -> str:
    dest = str(args.get("dest", ""))
    return dest + name if dest.endswith("/") else dest


def _inline(content: bytes) -> dict[str, str]:
    return {"content_b64": base64.b64encode(content).decode()}


def _content(path: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """A file as arguments, and as a blob when it is long."""
    try:
        if path.stat().st_size <= INLINE:
            return _inline(path.read_bytes()), {}
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return {"content_blob": digest}, {digest: path}
