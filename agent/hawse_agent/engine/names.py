"""Ids, names and how a person may refer to a container."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from hawse_agent.errors import Conflict, InputError, NotFound
from hawse_agent.spec.records import ContainerRecord

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_LEFT = ("amber", "brisk", "calm", "deft", "eager", "fleet", "hardy", "keen", "lively", "noble", "proud")
_RIGHT = ("anchor", "beacon", "bosun", "capstan", "cutter", "dinghy", "ferry", "galley", "ketch", "lugger")


def new_id() -> str:
    return secrets.token_hex(32)


def random_name(taken: set[str]) -> str:
    while True:
        name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"
        for candidate in (name, f"{name}{secrets.randbelow(1000)}"):
            if candidate not in taken:
                return candidate


def check_name(name: str) -> str:
    plain = name.removeprefix("/")
    if not _NAME.fullmatch(plain):
        raise InputError(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        )
    return plain


def find(records: Iterable[ContainerRecord], reference: str) -> ContainerRecord:
    """By full id, then name, then unique id prefix, as Docker looks them up."""
    reference = reference.removeprefix("/")
    by_prefix = []
    by_name = None
    for record in records:
        if record.id == reference:
            return record
        if record.spec.name == reference:
            by_name = record
        if reference and record.id.startswith(reference):
            by_prefix.append(record)
    if by_name is not None:
        return by_name
    if len(by_prefix) == 1:
        return by_prefix[0]
    if by_prefix:
        raise Conflict(f"Multiple IDs found with provided prefix: {reference}")
    raise NotFound(f"No such container: {reference}")
