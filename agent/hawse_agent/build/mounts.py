"""`RUN --mount=type=cache,target=/root/.cache`: one line of CSV, as in Docker.

Defaults are left to who mounts: a cache's `id` is its target, its root has mode 0755; a secret's `target` is
`/run/secrets/<id>` unless it has `env`, its mode is 0400.
"""

from __future__ import annotations

import csv
import difflib
from typing import Any, Literal

from hawse_agent.build import values
from hawse_agent.build.instructions import Mount
from hawse_agent.errors import InputError, NotSupported

Kind = Literal["bind", "cache", "tmpfs", "secret"]
Sharing = Literal["shared", "private", "locked"]

_KINDS: dict[str, Kind] = {"bind": "bind", "cache": "cache", "tmpfs": "tmpfs", "secret": "secret"}
_SHARING: dict[str, Sharing] = {"shared": "shared", "private": "private", "locked": "locked"}
_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_ALLOWED: dict[Kind, frozenset[str]] = {
    "bind": frozenset({"target", "source", "from", "readonly", "readwrite"}),
    "cache": frozenset(
        {"target", "source", "from", "id", "sharing", "readonly", "readwrite", "mode", "uid", "gid"}
    ),
    "tmpfs": frozenset({"target", "size", "readonly", "readwrite"}),
    "secret": frozenset({"target", "source", "id", "required", "mode", "uid", "gid", "env"}),
}
_WITH_VARIABLES = ("target", "source", "id")


def mount(text: str) -> Mount:
    """Raises InputError and NotSupported, with `--mount=…` in front."""
    try:
        return _mount(text)
    except InputError as error:
        raise error.at(f"RUN --mount={text}") from error


def _mount(text: str) -> Mount:
    said: dict[str, str] = {}
    for field in next(csv.reader([text], strict=True), []):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        key = _NAMES.get(key, key)
        if not equals:
            if key not in ("readonly", "readwrite", "required"):
                raise InputError(f"{field!r} has no value")
            value = "true"
        said[key] = value
    kind = _kind(said.pop("type", "bind"))
    for key, value in said.items():
        if key not in _ALLOWED[kind]:
            known = sorted(_ALLOWED[kind])
            close = difflib.get_close_matches(key, known, n=1)
            raise InputError(
                f"a {kind} mount has no {key}" + (f": did you mean {close[0]}?" if close else ""),
                hint=f"it has {', '.join(known)}",
            )
        if "$" in value and key not in _WITH_VARIABLES:
            raise InputError(
                f"{key} takes no variables",
                hint="name a stage in a FROM line, where they are replaced" if key == "from" else "",
            )
    return _checked(kind, said)


def _kind(word: str) -> Kind:
    kind = _KINDS.get(word.lower())
    if kind is not None:
        return kind
    if word.lower() == "ssh":
        raise NotSupported("type=ssh is not supported: no agent's keys reach a build", hint="use type=secret")
    close = difflib.get_close_matches(word, list(_KINDS), n=1)
    raise InputError(f"unknown type {word!r}" + (f": did you mean {close[0]}?" if close else ""))


def _checked(kind: Kind, said: dict[str, str]) -> Mount:
    read_only = kind in ("bind", "secret")
    if "readwrite" in said:
        read_only = not _truth("readwrite", said["readwrite"])
    if "readonly" in said:
        read_only = _truth("readonly", said["readonly"])
    target = said.get("target", "")
    source = said.get("source", "")
    identity = said.get("id", "")
    if kind == "secret":
        # Older ways of writing it: the source is the id, or the target's last part is.
        if source and identity:
            raise InputError("source and id are the same, of a secret: give one of them")
        identity = identity or source or target.rstrip("/").rpartition("/")[2]
        source = ""
        if not identity:
            raise InputError("a secret needs an id")
    elif not target:
        raise InputError(f"a {kind} mount needs a target")
    elif target.strip("/") in ("", "."):
        raise InputError("nothing can be mounted over the root")
    sharing = _SHARING.get(said.get("sharing", "shared").lower())
    if sharing is None:
        raise InputError(f"sharing={said['sharing']}: expected shared, private or locked")
    numbers: dict[str, Any] = {key: _number(key, said[key]) for key in ("uid", "gid", "mode") if key in said}
    return Mount(
        kind=kind,
        target=target,
        source=source,
        from_=said.get("from", ""),
        id=identity,
        read_only=read_only,
        sharing=sharing,
        required="required" in said and _truth("required", said["required"]),
        size=values.size(said["size"]) if "size" in said else None,
        env=said.get("env", ""),
        **numbers,
    )


def _truth(key: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InputError(f"{key}={value}: expected true or false")


def _number(key: str, value: str) -> int:
    try:
        number = int(value, 8 if key == "mode" else 10)
    except ValueError:
        number = -1
    if not value.isdecimal() or not 0 <= number <= (0o7777 if key == "mode" else 0xFFFFFFFE):
        raise InputError(f"{key}={value}: expected {'octal digits' if key == 'mode' else 'a number'}")
    return number
