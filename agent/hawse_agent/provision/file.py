"""file: that a file, directory or link is there, or is not, and whose it is.

Works as the task's user. A tree is walked by descriptors and never through a link.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.plan.operations import Change
from hawse_agent.provision import attributes, modes, users
from hawse_agent.provision.attributes import Attributes, Kind
from hawse_agent.provision.item import Context, ItemPlan, Step, Tell, Work, carry_out, plan_of
from hawse_agent.provision.users import Account
from hawse_agent.spec.task import FileArguments


def plan(args: FileArguments, context: Context) -> ItemPlan:
    _check(args)
    user = users.account(context.user)
    return users.as_user(user, lambda: plan_of(_work(args, user), context))


def apply(args: FileArguments, context: Context, tell: Tell) -> dict[str, Any]:
    _check(args)
    user = users.account(context.user)
    return users.as_user(user, lambda: carry_out(_work(args, user), context))


def _check(args: FileArguments) -> None:
    if not args.path:
        raise InputError("module file needs a path")
    if args.state in ("link", "hard") and not args.src:
        raise InputError(f"state {args.state} needs 'src', what the link points to")
    if args.src and args.state not in ("link", "hard"):
        raise InputError("'src' belongs to state link or hard")
    if args.recurse and args.state not in ("directory", None):
        raise InputError("'recurse' belongs to state directory")
    if args.mode:
        modes.check(args.mode)


def _work(args: FileArguments, user: Account) -> Work:
    path = expand(args.path, user.home)
    state = args.state or ("directory" if args.recurse else "")
    want = Attributes() if state == "absent" else attributes.wanted(args.mode, args.owner, args.group)
    steps = _STATES[state](path, want, args)

    def describe() -> dict[str, Any]:
        about = {"path": path, "dest": path, **attributes.describe(path)}
        return {**about, "src": args.src} if args.src else about

    return Work(steps=tuple(steps), describe=describe)


def expand(path: str, home: str) -> str:
    """`~` is the home of the task's user; a relative path starts there too."""
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return os.path.join(home, path).rstrip("/") or "/"


def _as_is(path: str, want: Attributes, args: FileArguments) -> list[Step]:
    """Whatever is there, with these attributes."""
    return attributes.steps(path, want, _present(path, args), follow=args.follow)


def _file(path: str, want: Attributes, args: FileArguments) -> list[Step]:
    found = _present(path, args)
    if attributes.kind(found) == "directory":
        raise TaskFailed(f"{path} is a directory")
    return attributes.steps(path, want, found, follow=args.follow)


def _present(path: str, args: FileArguments) -> os.stat_result:
    found = attributes.look(path, follow=args.follow)
    if found is None:
        hint = "state touch creates an empty file, module copy one with content"
        raise TaskFailed(f"{path} is not there", hint=hint)
    return found


def _directory(path: str, want: Attributes, args: FileArguments) -> list[Step]:
    found = attributes.look(path, follow=args.follow)
    now = attributes.kind(found)
    if found is None:
        return [_to(now, "directory", lambda: _make_directories(path, want))]
    if now != "directory":
        raise TaskFailed(f"{path} is there and is no directory ({now})")
    steps = attributes.steps(path, want, found, follow=args.follow)
    if args.recurse and (below := sum(1 for _ in _differing(path, want))):
        change = Change(field="below", old=f"{below} with other attributes", new="the same")
        steps.append(Step(change=change, fix=lambda: _apply_below(path, want)))
    return steps


def _link(path: str, want: Attributes, args: FileArguments) -> list[Step]:
    found = attributes.look(path)
    now = attributes.kind(found)
    target = os.path.join(os.path.dirname(path), args.src)
    if not args.force and attributes.look(target, follow=True) is None:
        raise TaskFailed(f"{target} is not there to be linked to", hint="`force: true` links all the same")
    if now == "link" and os.readlink(path) == args.src:
        assert found is not None
        return attributes.steps(path, Attributes(uid=want.uid, gid=want.gid), found, follow=False)
    old = f"link to {os.readlink(path)}" if now == "link" else _replaceable(path, now, args)

    def make(fresh: str) -> None:
        os.symlink(args.src, fresh)
        attributes.apply(fresh, Attributes(uid=want.uid, gid=want.gid), follow=False)

    return [_to(old, f"link to {args.src}", lambda: _replace(path, now, make))]


def _hard(path: str, want: Attributes, args: FileArguments) -> list[Step]:
    source = os.path.join(os.path.dirname(path), args.src)
    other = attributes.look(source)
    if other is None:
        raise TaskFailed(f"{source} is not there to be linked to")
    found = attributes.look(path)
    if found is not None and (found.st_dev, found.st_ino) == (other.st_dev, other.st_ino):
        return attributes.steps(path, want, found, follow=False)
    now = attributes.kind(found)
    old = _replaceable(path, now, args)

    def make(fresh: str) -> None:
        os.link(source, fresh, follow_symlinks=False)
        attributes.apply(fresh, want, follow=False)

    return [_to(old, f"hard link to {args.src}", lambda: _replace(path, now, make))]


def _absent(path: str, want: Attributes, args: FileArguments) -> list[Step]:
    now = attributes.kind(attributes.look(path))
    if now == "absent":
        return []
    if path == "/":
        raise InputError("the root directory is not removed")
    return [_to(now, "absent", lambda: shutil.rmtree(path) if now == "directory" else os.unlink(path))]


def _touch(path: str, want: Attributes, args: FileArguments) -> list[Step]:
    found = attributes.look(path, follow=args.follow)
    if found is None:
        return [_to("absent", "file", lambda: _create(path, want))]
    change = Change(field="times", old="earlier", new="now")
    touch = Step(change=change, fix=lambda: os.utime(path, follow_symlinks=args.follow))
    return [touch, *attributes.steps(path, want, found, follow=args.follow)]


_STATES: dict[str, Callable[[str, Attributes, FileArguments], list[Step]]] = {
    "": _as_is,
    "file": _file,
    "directory": _directory,
    "link": _link,
    "hard": _hard,
    "absent": _absent,
    "touch": _touch,
}


def _to(old: str, new: str, fix: Callable[[], None]) -> Step:
    return Step(change=Change(field="state", old=old, new=new), fix=fix)


def _create(path: str, want: Attributes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o666))
    attributes.apply(path, want, follow=False)


def _make_directories(path: str, want: Attributes) -> None:
    """Parents too; what is new gets the attributes."""
    missing = []
    while attributes.look(path, follow=True) is None:
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        os.mkdir(directory, 0o777)
        attributes.apply(directory, want, follow=False)


def _replaceable(path: str, now: Kind, args: FileArguments) -> str:
    """What is in the way of a link, if it may go."""
    if now in ("absent", "link"):
        return now
    if not args.force:
        raise TaskFailed(f"{path} is there and is no link ({now})", hint="`force: true` replaces it")
    if now == "directory" and os.listdir(path):
        raise TaskFailed(f"{path} is a directory and not empty; it is not replaced by a link")
    return now


def _replace(path: str, now: Kind, make: Callable[[str], None]) -> None:
    """Put something new in place by one rename, so that the path is never missing."""
    fresh = temporary_beside(path)
    make(fresh)
    try:
        if now == "directory":
            os.rmdir(path)
        os.rename(fresh, path)
    except OSError:
        os.unlink(fresh)
        raise


def temporary_beside(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name[:200]}.hawse-{secrets.token_hex(6)}")


def _differing(path: str, want: Attributes) -> Iterator[tuple[str, int]]:
    """What lies below and has other attributes: its name and an open directory."""
    for _top, directories, files, descriptor in os.fwalk(path, onerror=_stop):
        for name in (*directories, *files):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if attributes.differences(want, found):
                yield name, descriptor


def _apply_below(path: str, want: Attributes) -> None:
    for name, directory in _differing(path, want):
        attributes.apply(name, want, follow=False, directory=directory)


def _stop(error: OSError) -> None:
    raise error
