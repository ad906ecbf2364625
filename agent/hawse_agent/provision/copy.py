"""copy and template: that a file has this content.

The new content is written beside the file and put into place by one rename: a reader sees the old file or the
new one. Works as the task's user; only a blob, which is the daemon's, is opened before. Whoever owns the
directory may put a FIFO or a link there at any moment: what is read is opened once, without waiting, and must
be a file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import secrets
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

from hawse_agent.errors import InputError, InternalError, NotFound, TaskFailed
from hawse_agent.linux.files import open_regular
from hawse_agent.plan.operations import Change
from hawse_agent.provision import attributes, modes, process, users
from hawse_agent.provision.attributes import Attributes
from hawse_agent.provision.diff import LIMIT, unified
from hawse_agent.provision.file import expand, temporary_beside
from hawse_agent.provision.item import HIDDEN, Context, ItemPlan, Tell
from hawse_agent.provision.users import UMASK, Account
from hawse_agent.spec.task import CopyArguments, TemplateArguments

Arguments = CopyArguments | TemplateArguments

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_KEPT_XATTRS = ("user.", "system.posix_acl_access", "security.selinux")
_NEW_MODE = 0o666 & ~UMASK


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What the file shall hold. A blob is not here yet when a plan is made: its digest is enough for that."""

    sha256: str
    open: Callable[[], IO[bytes]]
    data: bytes | None = None
    """When it is short enough to be shown."""
    name: str = ""
    mode: int | None = None
    """Of a file of this host."""


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    dest: str
    found: os.stat_result | None
    want: Attributes
    rewrite: bool
    changes: tuple[Change, ...] = ()
    diff: str = ""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    """Of the file that is replaced."""


@dataclass(frozen=True, kw_only=True)
class _Old:
    """A file as it was while it was open."""

    status: os.stat_result
    sha256: str
    data: bytes | None
    """When it is short enough to be shown."""
    xattrs: Mapping[str, bytes]


def plan(args: Arguments, context: Context) -> ItemPlan:
    _check(args)
    user = users.account(context.user)

    def compare() -> _Comparison:
        return _compare(args, context, user, _content(args, user, None))

    seen = users.as_user(user, compare)
    return ItemPlan(changed=bool(seen.changes), changes=seen.changes, diff=seen.diff)


def apply(args: Arguments, context: Context, tell: Tell) -> dict[str, Any]:
    _check(args)
    user = users.account(context.user)
    backup = ""
    with ExitStack() as stack:
        blob = stack.enter_context(_open_blob(args, context)) if args.content_blob else None

        def begin() -> tuple[_Comparison, str]:
            content = _content(args, user, blob)
            seen = _compare(args, context, user, content)
            return seen, _write_beside(seen, content) if seen.rewrite else ""

        seen, fresh = users.as_user(user, begin)
        if fresh:
            try:
                if args.validate:
                    _validate(args.validate, fresh, user, context)
                backup = users.as_user(user, lambda: _place(fresh, seen, keep=args.backup))
            except BaseException:
                users.as_user(user, lambda: os.unlink(fresh))
                raise
        elif seen.changes:
            users.as_user(user, lambda: attributes.apply(seen.dest, seen.want, follow=args.follow))
    return users.as_user(user, lambda: _result(seen, context, backup))


def _check(args: Arguments) -> None:
    if not args.dest:
        raise InputError("a destination is needed ('dest')")
    if args.mode and args.mode != "preserve":
        modes.check(args.mode)
    if args.mode == "preserve" and not isinstance(args, CopyArguments):
        raise InputError("mode 'preserve' belongs to module copy")
    if args.validate and "%s" not in args.validate:
        raise InputError("'validate' needs %s, where the name of the new file goes")
    source = args.src if isinstance(args, CopyArguments) and args.remote_src else ""
    if sum((args.content_b64 is not None, bool(args.content_blob), bool(source))) != 1:
        raise InputError("a file has exactly one content: 'content', or a 'src'")
    if args.content_blob and not _DIGEST.fullmatch(args.content_blob):
        raise InputError(f"not a digest: {args.content_blob!r}")


def _content(args: Arguments, user: Account, blob: IO[bytes] | None) -> _Content:
    """Run as the user, who must be able to read a source on this host."""
    if args.content_b64 is not None:
        try:
            data = base64.b64decode(args.content_b64, validate=True)
        except binascii.Error as error:
            raise InputError(f"'content_b64' is not base64: {error}") from None
        digest = hashlib.sha256(data).hexdigest()
        return _Content(sha256=digest, data=data, open=lambda: io.BytesIO(data))
    if match := _DIGEST.fullmatch(args.content_blob):
        return _Content(sha256=match[1], open=lambda: _sent(blob))
    assert isinstance(args, CopyArguments)
    source = expand(args.src, user.home)
    with open_regular(source, follow=True) as file:
        seen = _read(file)
    return _Content(
        sha256=seen.sha256,
        open=lambda: open_regular(source, follow=True),
        data=seen.data,
        name=os.path.basename(source),
        mode=stat.S_IMODE(seen.status.st_mode),
    )


def _open_blob(args: Arguments, context: Context) -> IO[bytes]:
    """Run as the daemon."""
    try:
        return (context.blobs / args.content_blob.removeprefix("sha256:")).open("rb")
    except FileNotFoundError:
        raise NotFound(f"the content of {args.dest} was not sent ({args.content_blob})") from None


def _sent(blob: IO[bytes] | None) -> IO[bytes]:
    if blob is None:
        raise InternalError("a blob is read before it was sent")
    return blob


def _compare(args: Arguments, context: Context, user: Account, content: _Content) -> _Comparison:
    dest = _destination(args, user, content)
    found = attributes.look(dest)
    mode = args.mode
    if mode == "preserve":
        mode = modes.show(content.mode) if content.mode is not None else ""
    want = attributes.wanted(mode, args.owner, args.group)
    if found is not None and not args.force:
        return _Comparison(dest=dest, found=found, want=want, rewrite=False)
    now = attributes.kind(found)
    if now not in ("file", "link", "absent"):
        hint = "end it with / to put the file into it" if now == "directory" else ""
        raise TaskFailed(f"{dest} is a {now if now == 'directory' else 'special file'}", hint=hint)
    old = None
    if now == "file":
        with open_regular(dest) as file:
            old = _read(file)
        found = old.status
    changes = []
    if old is None or old.sha256 != content.sha256:
        changes.append(_content_change(now, old.sha256 if old else "", content.sha256, context))
    rewrite = bool(changes)
    if old is not None:
        changes += attributes.differences(want, old.status)
    return _Comparison(
        dest=dest,
        found=found,
        want=want,
        rewrite=rewrite,
        changes=tuple(changes),
        diff=_diff(dest, old, content) if rewrite and not context.no_log else "",
        xattrs=old.xattrs if old is not None else {},
    )


def _destination(args: Arguments, user: Account, content: _Content) -> str:
    dest = expand(args.dest, user.home)
    if args.dest.endswith("/") or (content.name and os.path.isdir(dest)):
        if not content.name:
            raise InputError(f"{args.dest} names a directory, and the content has no name of its own")
        dest = os.path.join(dest, content.name)
    return os.path.realpath(dest) if args.follow else dest


def _content_change(now: str, old: str, new: str, context: Context) -> Change:
    if context.no_log:
        return Change(field="content", old=HIDDEN, new=HIDDEN)
    return Change(field="content", old=f"sha256 {old[:12]}" if old else now, new=f"sha256 {new[:12]}")


def _diff(dest: str, old: _Old | None, content: _Content) -> str:
    before = old.data if old is not None else b""
    if before is None or content.data is None:
        return f"{dest}: too long to show\n"
    return unified(before if old is not None else None, content.data, dest)


def _write_beside(seen: _Comparison, content: _Content) -> str:
    """A complete file with the attributes that it shall have. Removed again when that fails."""
    fresh = temporary_beside(seen.dest)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(fresh, flags, 0o600)
    except FileNotFoundError:
        raise TaskFailed(f"there is no directory {os.path.dirname(seen.dest)}") from None
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, os.path.dirname(seen.dest)) from None
    try:
        with os.fdopen(descriptor, "wb") as out, content.open() as source:
            shutil.copyfileobj(source, out, 1 << 20)
            out.flush()
            _take_over(descriptor, seen)
            os.fsync(descriptor)
    except BaseException:
        os.unlink(fresh)
        raise
    return fresh


def _take_over(descriptor: int, seen: _Comparison) -> None:
    """Owner, extended attributes and mode: those wanted, else those of the file that is replaced."""
    own = os.fstat(descriptor)
    old = seen.found if seen.found is not None and stat.S_ISREG(seen.found.st_mode) else None
    uid, gid = (own.st_uid, own.st_gid) if old is None else (old.st_uid, old.st_gid)
    uid = uid if seen.want.uid is None else seen.want.uid
    gid = gid if seen.want.gid is None else seen.want.gid
    if (uid, gid) != (own.st_uid, own.st_gid):
        os.chown(descriptor, uid, gid)
    mode = _NEW_MODE
    if old is not None:
        mode = stat.S_IMODE(old.st_mode)
        for name, value in seen.xattrs.items():
            os.setxattr(descriptor, name, value)
    if seen.want.mode:
        mode = modes.resolve(seen.want.mode, mode, directory=False, umask=UMASK)
    os.chmod(descriptor, mode)


def _validate(command: str, fresh: str, user: Account, context: Context) -> None:
    try:
        argv = [word.replace("%s", fresh) for word in shlex.split(command)]
    except ValueError as error:
        raise InputError(f"'validate' is not a command line: {error}") from None
    done = process.run(argv, user, environment=context.environment)
    if done.rc:
        said = (done.stderr or done.stdout).decode(errors="backslashreplace").strip()
        result = {"changed": False, "rc": done.rc, "stdout": "", "stderr": "" if context.no_log else said}
        last = "" if context.no_log or not said else f": {said.splitlines()[-1][:200]}"
        raise TaskFailed(f"the new content is not valid (exit status {done.rc}){last}", result=result)


def _place(fresh: str, seen: _Comparison, *, keep: bool) -> str:
    """The name under which the old file is kept, if it is."""
    backup = ""
    if keep and seen.found is not None:
        stamp = time.strftime("%Y-%m-%d@%H:%M:%S")
        backup = f"{seen.dest}.{stamp}.{secrets.token_hex(2)}~"
        os.link(seen.dest, backup, follow_symlinks=False)
    os.rename(fresh, seen.dest)
    return backup


def _result(seen: _Comparison, context: Context, backup: str) -> dict[str, Any]:
    result = {
        "changed": bool(seen.changes),
        "dest": seen.dest,
        "path": seen.dest,
        **attributes.describe(seen.dest),
        "checksum": _sha1(seen.dest),
    }
    if seen.diff:
        result["diff"] = {"prepared": seen.diff}
    if backup:
        result["backup_file"] = backup
    return result


def _read(file: io.BufferedReader) -> _Old:
    status = os.fstat(file.fileno())
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    xattrs = {}
    for name in os.listxattr(file.fileno()):
        if name.startswith(_KEPT_XATTRS):
            xattrs[name] = os.getxattr(file.fileno(), name)
    data = file.read(LIMIT) if status.st_size <= LIMIT else None
    return _Old(status=status, sha256=digest, data=data, xattrs=xattrs)


def _sha1(path: str) -> str:
    """What Ansible calls `checksum`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
