"""The fields in which two specs differ, as a person reads them. Pure.

Secrets are shown as `(hidden)`, contents of files by a short digest, sizes with their unit, ports and
mounts in the notation of `-p` and `-v`.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hawse_agent.plan.operations import Change
from hawse_agent.spec.container import ContainerSpec, FileContent, PortMap, Resources
from hawse_agent.spec.volume import Mount

UNSET = "(unset)"
HIDDEN = "(hidden)"

_NOT_OF_THE_CONTAINER = frozenset({"name", "depends_on", "console_height", "console_width"})
"""Fields that say where a container stands and how it began, not what it is."""

_MAPPINGS = frozenset({"environment", "labels", "sysctls"})
_BYTES = frozenset({"memory", "memory_swap", "memory_reservation", "shm_size", "max_size"})


def container_changes(old: ContainerSpec, new: ContainerSpec) -> list[Change]:
    """Every field of `new` that differs from `old`, in the order of the spec."""
    changes: list[Change] = []
    for f in fields(ContainerSpec):
        if f.name in _NOT_OF_THE_CONTAINER:
            continue
        before, after = getattr(old, f.name), getattr(new, f.name)
        if before == after:
            continue
        if f.name in _MAPPINGS:
            changes += _mapping_changes(f.name, before, after)
        elif f.name == "resources":
            changes += resource_changes(before, after)
        elif f.name == "files":
            changes += _file_changes(before, after)
        elif f.name == "ports":
            changes += _set_changes("ports", [port_text(p) for p in before], [port_text(p) for p in after])
        elif f.name == "mounts":
            changes += _set_changes("mounts", [mount_text(m) for m in before], [mount_text(m) for m in after])
        else:
            changes.append(Change(field=f.name, old=_text(f.name, before), new=_text(f.name, after)))
    return changes


def resource_changes(old: Resources, new: Resources, prefix: str = "resources.") -> list[Change]:
    return [
        Change(field=f"{prefix}{f.name}", old=_text(f.name, before), new=_text(f.name, after))
        for f in fields(Resources)
        if (before := getattr(old, f.name)) != (after := getattr(new, f.name))
    ]


def file_diff(old: ContainerSpec, new: ContainerSpec) -> str:
    """Unified diff of the configs that differ; secrets and binary contents are left out."""
    before = {file.target: file for file in old.files}
    lines: list[str] = []
    for file in new.files:
        previous = before.get(file.target)
        if file.secret or (previous is not None and (previous.secret or previous.content == file.content)):
            continue
        old_text, new_text = _decode(previous), _decode(file)
        if old_text is not None and new_text is not None:
            lines += difflib.unified_diff(
                old_text.splitlines(keepends=True),
                new_text.splitlines(keepends=True),
                f"{file.target} (now)",
                f"{file.target} (wanted)",
            )
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def port_text(port: PortMap) -> str:
    host = f"{port.host_ip}:" if port.host_ip else ""
    last = f"-{port.host_port_last}" if port.host_port_last else ""
    return f"{host}{port.host_port or ''}{last}:{port.container_port}/{port.protocol}"


def mount_text(mount: Mount) -> str:
    source = mount.source or ("(anonymous)" if mount.kind == "volume" else mount.kind)
    options = [word for word, given in (("ro", mount.read_only), ("idmap", mount.map_ids)) if given]
    return f"{source}:{mount.target}" + (f":{','.join(options)}" if options else "")


def size_text(count: int) -> str:
    """`67108864` → `64 MiB`: exact, in the largest unit that divides it."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} B"


_SECRET = re.compile(r"pass|secret|token|key|credential|auth", re.IGNORECASE)
"""Names of variables whose values nobody shall read in a plan, a journal or a history."""


def _mapping_changes(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    def shown(values: Mapping[str, str], key: str) -> str:
        if key not in values:
            return UNSET
        return "(hidden)" if _SECRET.search(key) else values[key]

    return [
        Change(field=f"{name}.{key}", old=shown(old, key), new=shown(new, key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _set_changes(name: str, old: list[str], new: list[str]) -> list[Change]:
    gone = [item for item in old if item not in new]
    come = [item for item in new if item not in old]
    if not gone and not come:
        return [Change(field=f"{name} (order)", old=", ".join(old), new=", ".join(new))]
    return [Change(field=name, old=", ".join(gone) or UNSET, new=", ".join(come) or UNSET)]


def _file_changes(old: tuple[FileContent, ...], new: tuple[FileContent, ...]) -> list[Change]:
    before, after = {f.target: f for f in old}, {f.target: f for f in new}
    changes = []
    for target in sorted({*before, *after}):
        was, wanted = before.get(target), after.get(target)
        if was == wanted:
            continue
        secret = (was is not None and was.secret) or (wanted is not None and wanted.secret)
        label = "secret" if secret else "config"
        if was is not None and wanted is not None and was.content == wanted.content:
            changes.append(Change(field=f"{label} {target}", old=_file_facts(was), new=_file_facts(wanted)))
        else:
            changes.append(Change(field=f"{label} {target}", old=_fingerprint(was), new=_fingerprint(wanted)))
    return changes


def _file_facts(file: FileContent) -> str:
    return f"{file.uid}:{file.gid} {file.mode:04o}"


def _fingerprint(file: FileContent | None) -> str:
    if file is None:
        return UNSET
    if file.secret:
        return HIDDEN
    return hashlib.sha256(base64.b64decode(file.content)).hexdigest()[:8]


def _decode(file: FileContent | None) -> str | None:
    if file is None:
        return ""
    try:
        return base64.b64decode(file.content).decode()
    except UnicodeDecodeError:
        return None


def _text(name: str, value: Any) -> str:
    if value is None or value == "" or value == ():
        return UNSET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in _BYTES and isinstance(value, int):
        return "unlimited" if value < 0 else size_text(value)
    if isinstance(value, tuple):
        return " ".join(_text("", item) for item in value)
    if hasattr(value, "__dataclass_fields__"):
        shown = [f"{f.name}={_text(f.name, getattr(value, f.name))}" for f in fields(value)]
        return "{" + ", ".join(part for part in shown if not part.endswith(UNSET)) + "}"
    return str(value)
