"""Which tasks a run takes: `-t` and `--skip-tags` against the tags of a task and its play."""

from __future__ import annotations

from collections.abc import Iterable, Set


def selected(tags: Set[str], wanted: Iterable[str] = ("all",), skipped: Iterable[str] = ()) -> bool:
    """`always` tasks run unless skipped by name, `never` tasks only when one of their tags is asked for.

    `all`, `tagged` and `untagged` choose as in Ansible.
    """
    return _wanted(tags, set(wanted)) and not _skipped(tags, set(skipped))


def _wanted(tags: Set[str], wanted: Set[str]) -> bool:
    if tags & wanted:
        return True
    if "never" in tags:
        return False
    if "always" in tags or "all" in wanted:
        return True
    return ("tagged" in wanted and bool(tags)) or ("untagged" in wanted and not tags)


def _skipped(tags: Set[str], skipped: Set[str]) -> bool:
    if tags & skipped:
        return True
    if "all" in skipped:
        return "always" not in tags
    return ("tagged" in skipped and bool(tags)) or ("untagged" in skipped and not tags)
