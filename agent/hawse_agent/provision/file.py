"""file: directories, links, attributes, and what shall not be there.

`_steps` is the comparison: differences, each with what removes it. `plan` shows them, `apply` does them.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.plan.operations import Change
from hawse_agent.provision import attributes
from hawse_agent.provision.attributes import Wanted
from hawse_agent.provision.module import UNCHANGED, Context, ItemPlan, Result, Tell
from hawse_agent.spec.task import FileArguments


@dataclass(frozen=True, kw_only=True)
class Step:
    change: Change
    do: Callable[[], object]


class _Missing(TaskFailed):
    """What shall get attributes is not there: at planning time an earlier task may still make it."""


def plan(args: FileArguments, context: Context) -> ItemPlan:
    try:
        changes = tuple(step.change for step in _steps(args))
    except _Missing as error:
        return ItemPlan(changed=True, unknown=True, reason=error.message)
    return ItemPlan(changed=True, changes=changes) if changes else UNCHANGED


def apply(args: FileArguments, context: Context, tell: Tell) -> Result:
    changed = False
    try:
        for step in _steps(args):
            step.do()
            changed = True
    except OSError as error:
        raise TaskFailed(f"{error.filename or args.path}: {error.strerror}") from error
    result: Result = {"changed": changed, "path": args.path, "state": _kind(args.path)}
    if args.state in ("link", "hard"):
        result |= {"dest": args.path, "src": args.src}
    return result


def _steps(args: FileArguments) -> Iterator[Step]:
    """In order; a step is looked for only once those before it are done (or, in a plan, would be)."""
    if not args.path.startswith("/"):
        raise InputError(f"file: path must be absolute: {args.path!r}")
    wanted = Wanted(mode=args.mode, owner=args.owner, group=args.group)
    path, kind = args.path, _kind(args.path)
    state = args.state or ("directory" if args.recurse and kind == "absent" else "")
    if args.recurse and state not in ("directory", "") and kind != "directory":
        raise InputError("file: recurse is for directories")
    if state == "absent":
        if kind != "absent":
            yield Step(change=Change(field="state", old=kind, new="absent"), do=lambda: _remove(path, kind))
        return
    if state in ("link", "hard"):
        yield from _link(args, kind, wanted, hard=state == "hard")
        return
    if state == "directory":
        if kind == "absent":
            yield Step(
                change=Change(field="state", old="absent", new="directory"),
                do=lambda: _make_directories(path, wanted),
            )
            return
        if _kind(os.path.realpath(path) if args.follow else path) != "directory":
            raise TaskFailed(f"{path} is there already and is no directory, but a {kind}")
    elif state == "touch":
        yield Step(
            change=Change(field="state" if kind == "absent" else "times", old=kind, new="touch"),
            do=lambda: _touch(path, wanted),
        )
        return
    elif kind == "absent":
        raise _Missing(f"{path} is not there", result={"path": path, "state": "absent"})
    elif state == "file" and _kind(os.path.realpath(path)) != "file":
        raise TaskFailed(f"{path} is a {kind}, no file")
    yield from _attributes(path, wanted, args)


def _attributes(path: str, wanted: Wanted, args: FileArguments) -> Iterator[Step]:
    changes = attributes.differences(path, wanted, follow=args.follow)
    for index, change in enumerate(changes):
        do = (lambda: attributes.apply(path, wanted, follow=args.follow)) if index == 0 else _nothing
        yield Step(change=change, do=do)
    if not args.recurse:
        return
    for directory, names, files in os.walk(path):
        for name in [*names, *files]:
            inner = os.path.join(directory, name)
            for change in attributes.differences(inner, wanted, follow=False):
                named = Change(
                    field=f"{change.field} of {os.path.relpath(inner, path)}", old=change.old, new=change.new
                )
                yield Step(change=named, do=_applier(inner, wanted))


def _applier(path: str, wanted: Wanted) -> Callable[[], object]:
    return lambda: attributes.apply(path, wanted, follow=False)


def _nothing() -> None:
    """The step before has done it."""


def _link(args: FileArguments, kind: str, wanted: Wanted, *, hard: bool) -> Iterator[Step]:
    if not args.src:
        raise InputError(f"file: state {args.state} needs src")
    target = (
        args.src if hard or os.path.isabs(args.src) else os.path.join(os.path.dirname(args.path), args.src)
    )
    if not args.force and not os.path.exists(target):
        raise _Missing(f"src {args.src} is not there", result={"path": args.path, "src": args.src})
    if hard:
        same = kind == "file" and os.path.samefile(args.path, args.src)
        old = kind
    else:
        same = kind == "link" and os.readlink(args.path) == args.src
        old = os.readlink(args.path) if kind == "link" else kind
    if not same:
        if kind not in ("absent", "link") and not args.force:
            raise TaskFailed(f"{args.path} is there already and is a {kind}; force replaces it")
        if kind == "directory":
            raise TaskFailed(f"{args.path} is a directory: it is not replaced by a link")
        yield Step(
            change=Change(field="src", old=old, new=args.src),
            do=lambda: _replace_by_link(args.src, args.path, hard=hard),
        )
    elif wanted.owner or wanted.group:
        for change in attributes.differences(args.path, wanted, follow=hard):
            yield Step(change=change, do=lambda: attributes.apply(args.path, wanted, follow=hard))


def _replace_by_link(source: str, path: str, *, hard: bool) -> None:
    partial = f"{path}.hawse-new"
    if os.path.lexists(partial):
        os.unlink(partial)
    if hard:
        os.link(source, partial)
    else:
        os.symlink(source, partial)
    os.rename(partial, path)


def _make_directories(path: str, wanted: Wanted) -> None:
    """Attributes go to every directory that is made on the way, as with Ansible."""
    made = []
    current = path
    while not os.path.lexists(current):
        made.append(current)
        current = os.path.dirname(current)
    for directory in reversed(made):
        os.mkdir(directory, 0o777)
        attributes.apply(directory, wanted)


def _touch(path: str, wanted: Wanted) -> None:
    if not os.path.lexists(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    else:
        os.utime(path)
    attributes.apply(path, wanted)


def _remove(path: str, kind: str) -> None:
    if kind == "directory":
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _kind(path: str) -> str:
    """absent, directory, link, file; anything else by its own name."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    for name, test in (("link", stat.S_ISLNK), ("directory", stat.S_ISDIR), ("file", stat.S_ISREG)):
        if test(mode):
            return name
    return "special file"
