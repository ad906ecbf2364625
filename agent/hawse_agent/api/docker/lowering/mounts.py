"""Binds, volumes and tmpfs of a create request → mounts. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from hawse_agent.api.docker.fields import Fields
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec import tmpfs
from hawse_agent.spec.volume import Mount, MountKind, Propagation

_PROPAGATIONS: tuple[Propagation, ...] = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


_WITHOUT_MEANING = ("z", "Z", "consistent", "cached", "delegated")
"""Labels of SELinux, and words for macOS: dockerd takes them everywhere."""


def all_mounts(config: Fields, host: Fields) -> tuple[Mount, ...]:
    given = (*_binds(host), *_mounts(host.objects("Mounts")), *_tmpfs(host.labels("Tmpfs")))
    return _with_volumes(config, _distinct(given))


def _binds(host: Fields) -> tuple[Mount, ...]:
    if host.text("VolumeDriver") not in ("", "local"):
        raise NotSupported("volume drivers other than local are not supported")
    return tuple(_bind(text) for text in host.texts("Binds"))


def _bind(text: str) -> Mount:
    """`source:target[:options]`."""
    parts = text.split(":")
    if len(parts) == 1:
        return Mount(kind="volume", target=_absolute(parts[0], f"invalid volume specification: {text!r}"))
    if len(parts) > 3:
        raise InputError(f"invalid volume specification: {text!r}")
    source, target = parts[0], _absolute(parts[1], f"invalid volume specification: {text!r}")
    options = parts[2].split(",") if len(parts) == 3 and parts[2] else []
    if len(set(options)) < len(options) or {"ro", "rw"} <= set(options):
        raise InputError(f"invalid mode: {parts[2]} in {text!r}")
    read_only, no_copy, map_ids = False, False, False
    propagation: Propagation | None = None
    for option in options:
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option == "nocopy" and not source.startswith("/"):
            no_copy = True
        elif source.startswith("/") and option in _PROPAGATIONS:
            propagation = _propagation(option)
        elif source.startswith("/") and option == "idmap":
            map_ids = True
        elif option not in _WITHOUT_MEANING:
            raise InputError(f"invalid mode: {option} in {text!r}")
    if source.startswith("/"):
        return Mount(
            kind="bind",
            source=posixpath.normpath(source),
            target=target,
            read_only=read_only,
            create_source=True,
            propagation=propagation or "rprivate",
            map_ids=map_ids,
        )
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", source):
        raise InputError(
            f'"{source}" includes invalid characters for a local volume name; a path must be absolute'
        )
    return Mount(kind="volume", source=source, target=target, read_only=read_only, no_copy=no_copy)


def _mounts(given: list[Any]) -> tuple[Mount, ...]:
    return tuple(_mount(Fields(entry, "Mounts")) for entry in given)


def _mount(fields: Fields) -> Mount:
    kind = _mount_kind(fields.text("Type"))
    target = _absolute(fields.text("Target"), f'Mounts.Target: invalid mount config for type "{kind}"')
    source, read_only = fields.text("Source"), fields.flag("ReadOnly")
    fields.ignore({"Consistency": "for macOS"})
    bind, volume, tmpfs = (_options(fields, kind, name) for name in ("bind", "volume", "tmpfs"))
    mount = Mount(
        kind=kind,
        source=source,
        target=target,
        read_only=read_only,
        create_source=bind.flag("CreateMountpoint"),
        propagation=_propagation(bind.text("Propagation") or "rprivate"),
        no_copy=volume.flag("NoCopy"),
        labels=volume.labels("Labels"),
        subpath=volume.text("Subpath"),
        tmpfs_size=tmpfs.number("SizeBytes"),
        tmpfs_mode=tmpfs.number("Mode") or 0o1777,
    )
    driver = volume.inner("DriverConfig")
    if driver.text("Name") not in ("", "local"):
        raise NotSupported("volume drivers other than local are not supported")
    for part in (driver, bind, volume, tmpfs, fields):
        part.rest()
    if kind == "bind" and not source.startswith("/"):
        raise InputError(f'invalid mount config for type "bind": invalid mount path: {source!r}')
    if kind == "tmpfs" and source:
        raise InputError('invalid mount config for type "tmpfs": field Source must not be specified')
    return mount


def _options(fields: Fields, kind: MountKind, name: str) -> Fields:
    """A mount's options for its own kind; those of another kind must not be there."""
    key = f"{name.capitalize()}Options"
    if name != kind and fields.given(key):
        raise InputError(f'invalid mount config for type "{kind}": field {key} must not be specified')
    return fields.inner(key)


def _propagation(text: str) -> Propagation:
    for known in _PROPAGATIONS:
        if text == known:
            return known
    raise InputError(f"invalid propagation mode: {text!r}")


def _mount_kind(text: str) -> MountKind:
    for kind in ("volume", "bind", "tmpfs"):
        if text == kind:
            return kind
    raise NotSupported(f"mount type {text!r} is not supported: volume, bind and tmpfs are")


def _tmpfs(given: dict[str, str]) -> tuple[Mount, ...]:
    return tuple(
        _tmpfs_mount(_absolute(target, "HostConfig.Tmpfs"), options) for target, options in given.items()
    )


def _tmpfs_mount(target: str, options: str) -> Mount:
    """`rw,exec,size=64m,mode=1777`, as mount(8) has them."""
    words = [word for word in options.split(",") if word not in ("", "defaults")]
    tmpfs.check(words)
    size, mode = 0, Mount.tmpfs_mode
    others = []
    for word in words:
        name, _, value = word.partition("=")
        if name == "size" and (number := _SIZE.fullmatch(value)):
            size = int(number[1]) << _SHIFTS[number[2].lower()]
        elif name == "mode":
            mode = int(value, 8)
        elif name not in ("ro", "rw"):
            others.append(word)
    return Mount(
        kind="tmpfs",
        target=target,
        read_only="ro" in words,
        tmpfs_size=size,
        tmpfs_mode=mode,
        tmpfs_options=tuple(others),
    )


_SIZE = re.compile(r"([0-9]{1,12})([kmg]?)", re.IGNORECASE | re.ASCII)
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30}


def _distinct(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    seen = set()
    for mount in mounts:
        if mount.target in seen:
            raise InputError(f"Duplicate mount point: {mount.target}")
        seen.add(mount.target)
    return mounts


def _with_volumes(config: Fields, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Clients name in Volumes again what they have in Binds: an anonymous one is for the rest."""
    taken = {mount.target for mount in mounts}
    volumes = dict.fromkeys(_absolute(target, "Volumes") for target in config.mapping("Volumes"))
    return (*mounts, *(Mount(kind="volume", target=target) for target in volumes if target not in taken))


def _absolute(path: str, where: str) -> str:
    """The target of a mount, in the one way to write it."""
    if not path.startswith("/"):
        raise InputError(f"{where}: invalid mount path: {path!r} mount path must be absolute")
    target = "/" + posixpath.normpath(path).strip("/")
    if target == "/":
        raise InputError(f"{where}: invalid specification: destination can't be '/'")
    return target
